"""Atomic files, locks, checkpoints, audio decoding, PCM conversion, signals and the console."""
