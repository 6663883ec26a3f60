"""Waveforms to network input: augmentation, log-mel spectrograms, crops and mixing."""
