"""A collection: its table of clips and their waveforms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import track

from soundfold.data import store
from soundfold.data.download import fetch_esc50
from soundfold.data.layouts import TableOptions, find_layout
from soundfold.data.synthetic import render
from soundfold.data.tables import ClipTable
from soundfold.errors import ArgumentError
from soundfold.io.console import console

DOWNLOADERS: dict[str, Callable[[Path], None]] = {"esc50": fetch_esc50, "synthetic": render}


@dataclass(frozen=True)
class Collection:
    """A table of clips and their waveforms, in the same order."""

    table: ClipTable
    waves: store.Waveforms


def open_table(root: Path, cache: Path, download: str | None, layout: str, options: TableOptions) -> ClipTable:
    """Read the table of clips of a collection, which is downloaded unless that is done already.

    Args:
        root, cache, download, layout, options: see `open_collection`.

    Raises:
        InputError: the collection is not available, or its table is invalid.
    """
    if download is not None:
        DOWNLOADERS[download](root)
    return find_layout(layout, options).read(root, cache, options)


def _peek_table(root: Path, download: str | None, layout: str, options: TableOptions) -> ClipTable:
    """Read the table of clips without writing a file that stays."""
    path = find_layout(layout, options).table
    if download is not None and path is not None and not (root / path).is_file():
        raise ArgumentError(
            f"There is no table of clips at {root / path} yet, so its folds are unknown: the command would get the "
            f"collection first (`download`={download}). `soundfold prepare` with the same data settings gets it now."
        )
    # the layout folder stores its table in the cache
    with TemporaryDirectory() as scratch:
        return open_table(root, Path(scratch), None, layout, options)


def open_collection(
    root: Path,
    cache: Path,
    *,
    seconds: float,
    sample_rate: int,
    download: str | None = None,
    layout: str = "esc50",
    options: TableOptions | None = None,
    build: bool = True,
) -> Collection:
    """Open a collection. Download it and decode its audio into a packed store, unless that is done already.

    Args:
        root: folder of the collection; may be read-only.
        cache: folder of the packed stores.
        seconds: length of the stored clips.
        sample_rate: of the stored clips, Hz.
        download: where to get a collection that is not in `root`, one of `DOWNLOADERS`.
        layout: one of `LAYOUTS`; not used with `options.reader`.
        options: of the table of clips.
        build: if false, nothing is written: a missing collection is an error, and a missing store has no clips.

    Raises:
        InputError: the collection is not available, or its table or audio is invalid.
    """
    options = options or TableOptions()
    table = (
        open_table(root, cache, download, layout, options) if build else _peek_table(root, download, layout, options)
    )
    waves = store.open_store(
        root / find_layout(layout, options).audio,
        table.files,
        seconds=seconds,
        sample_rate=sample_rate,
        cache=cache,
        build=build,
        progress=lambda items, total: track(items, f"Decoding {root.resolve().name}", total, console=console),
    )
    return Collection(table, waves)
