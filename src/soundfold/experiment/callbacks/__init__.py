"""Lightning callbacks, one module per concern."""
