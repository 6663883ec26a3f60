"""From waveforms to what the network sees, on the device: log-mel, augmentation, mixing."""
