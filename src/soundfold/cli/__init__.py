"""The command ``soundfold``: one module per command. Each has a function ``main``, which scripts/ also calls."""
