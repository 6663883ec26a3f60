"""Runs: one fold, a cross-validation, their results."""
