"""The shortcut audit of a run's collection, if ``soundfold explore`` has made one beside the run."""

from __future__ import annotations

import csv
from pathlib import Path


def load_shortcuts(run: Path, collection: str) -> list[list[str]] | None:
    """Return the rows of ``explore-<collection>/shortcuts.csv`` beside a run's folder, its header first; else None."""
    path = run.parent / f"explore-{collection}" / "shortcuts.csv"
    if not path.is_file():
        return None
    with path.open(newline="") as stream:
        return list(csv.reader(stream))
