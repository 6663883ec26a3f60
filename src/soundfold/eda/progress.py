"""Progress bars of an analysis on standard error, and a substitute that shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.progress import track

from soundfold.io.console import console

# from a description, items and their number to the items
Progress = Callable[[str, Iterable, int], Iterable]


def show_progress(description: str, items: Iterable, total: int) -> Iterable:
    """Yield the items, and show how many of them are done."""
    return track(items, description=description, total=total, console=console)


def show_nothing(description: str, items: Iterable, total: int) -> Iterable:
    """Return the items: the default of functions that others call."""
    return items
