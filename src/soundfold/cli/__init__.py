"""The command ``soundfold``: one module per command. Each has a function ``main``, which scripts/ also calls."""

from soundfold import deferred_imports

# only for commands: how a program that uses the library imports Lightning is for that program to decide
deferred_imports.install()
