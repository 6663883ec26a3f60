"""Files, locks, checkpoints, audio files, signals and the console."""
