"""From files to batches: the table of clips, the folds, the waveforms, the data module."""
