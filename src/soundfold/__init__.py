"""soundfold: honest five-fold cross-validation for environmental sound classification."""

__version__ = "0.1.0"
