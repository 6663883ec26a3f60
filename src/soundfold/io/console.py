"""Where a run tells its notes and progress: the standard error, so that tables and pages may be piped."""

from rich.console import Console

# what is printed may hold brackets, which would be taken for markup
console = Console(stderr=True, markup=False)
