"""What every benchmark ends with: where it was measured, and its figures as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from soundfold.io.atomic import write_text


def measured_on(header: Mapping[str, Any]) -> str:
    """Device, threads, date and commit of a header that `soundfold.experiment.environment.describe` begins."""
    load = f"load {header['load']}, " if "load" in header else ""
    return f"{header['device']}, {header['threads']} threads, {load}{header['date']}, commit {header['commit']}"


def keep(path: Path, content: dict[str, Any], table: str, width: int) -> Path:
    """Print a table so many columns wide, write it and its figures beside each other, and return the table's path.

    Args:
        path: of both, without a suffix; its folder is made.
        content: what ``.json`` holds.
        table: what ``.md`` holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path.with_suffix(".json"), json.dumps(content, indent=1))
    write_text(path.with_suffix(".md"), table)
    Console(width=width).print(table, markup=False)
    return path.with_suffix(".md")
