"""Training runs: setup, one fold, cross-validation, sweep, search."""
