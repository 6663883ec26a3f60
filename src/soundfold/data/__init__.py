"""Data sets: tables of clips, layouts, splits, decoded waveforms, batches."""
