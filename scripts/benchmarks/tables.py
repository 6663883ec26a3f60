"""Write the results of a benchmark as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from soundfold.io.atomic import write_text


def measured_on(header: Mapping[str, Any]) -> str:
    """Describe device, threads, date and commit of a header made by `soundfold.experiment.environment.describe`."""
    load = f"load {header['load']}, " if "load" in header else ""
    return f"{header['device']}, {header['threads']} threads, {load}{header['date']}, commit {header['commit']}"


def write_results(path: Path, content: dict[str, Any], table: str, width: int) -> Path:
    """Print a table, write it to ``.md`` and the figures to ``.json``, and return the table's path.

    Args:
        path: of both files, without suffix; the folder is created if missing.
        content: of the JSON file.
        table: Markdown.
        width: of the printed table, in columns.
    """
    write_files(path, content, table)
    Console(width=width).print(table, markup=False)
    return path.with_suffix(".md")


def write_files(path: Path, content: dict[str, Any], table: str) -> None:
    """Write a table to ``.md`` and the figures to ``.json``, in place of earlier ones; see `write_results`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path.with_suffix(".json"), json.dumps(content, indent=1))
    write_text(path.with_suffix(".md"), table)
