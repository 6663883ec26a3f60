"""Metrics, statistics and results of folds and runs. Pure: no Lightning, no W&B, no drawing."""
