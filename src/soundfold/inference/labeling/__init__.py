"""Active labeling: windows of unlabeled recordings, the most useful first, labeled by keyboard on a page."""
