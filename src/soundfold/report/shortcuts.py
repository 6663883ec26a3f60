"""The shortcut audit of a run's collection, if ``soundfold explore`` has made one beside the run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from soundfold.io.reading import read_text

MAX_CSV = 10_000_000  # bytes


def load_shortcuts(run: Path, collection: str, classes: Iterable[str]) -> list[list[str]] | None:
    """Return the rows of ``explore-<collection>/shortcuts.csv`` beside a run's folder, its header first; else None.

    Collections may have the same name, so an audit of other classes is not used; neither is a damaged one.

    Args:
        run: folder of the run.
        collection: ``data.name`` of the run.
        classes: of the run.
    """
    path = run.parent / f"explore-{collection}" / "shortcuts.csv"
    try:
        rows = list(csv.reader(io.StringIO(read_text(path, MAX_CSV), newline="")))
    except (OSError, ValueError, csv.Error):
        return None
    return rows if {row[0] for row in rows[1:] if row} == set(classes) else None
