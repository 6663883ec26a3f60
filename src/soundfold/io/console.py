"""The console for notes and progress: standard error, so that standard output can be piped."""

from rich.console import Console

# messages contain brackets, which Rich would parse as markup
console = Console(stderr=True, markup=False)
