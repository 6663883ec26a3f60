"""Layouts of collections: where the table of clips and the audio are. To support another one, add it to `LAYOUTS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from soundfold.data.folder import read_folder
from soundfold.data.tables import ESC50, URBANSOUND8K, ClipTable, Columns, read_table


@dataclass(frozen=True)
class TableOptions:
    """Options of a table of clips. A layout ignores those that do not apply to it.

    Attributes:
        subset: of a CSV table: select the rows marked ``True`` in this column, see `read_table`.
        classes: select these classes; None selects all.
        folds, source_pattern: of ``folder``: how its folds are made, see `read_folder`.
    """

    subset: str | None = None
    classes: list[str] | None = None
    folds: int = 5
    source_pattern: str | None = None


@dataclass(frozen=True)
class Layout:
    """The files of a collection.

    Attributes:
        read: returns the table of clips, given the folder of the collection, the cache folder and the options.
        audio: the folder of the audio, relative to the folder of the collection.
        table: the path of the table, relative to the folder of the collection; None where the table is derived from
            the audio files.
    """

    read: Callable[[Path, Path, TableOptions], ClipTable]
    audio: str
    table: str | None = None

    def lacks_audio(self, root: Path) -> bool:
        """Return whether the collection consists of its table only."""
        return self.table is not None and (root / self.table).is_file() and not (root / self.audio).is_dir()


def _csv_layout(table: str, columns: Columns) -> Layout:
    def read(root: Path, cache: Path, options: TableOptions) -> ClipTable:
        return read_table(root / table, options.subset, options.classes, columns)

    return Layout(read, "audio", table)


def _read_folder(root: Path, cache: Path, options: TableOptions) -> ClipTable:
    return read_folder(root, cache, options.folds, options.source_pattern, options.classes)


LAYOUTS: dict[str, Layout] = {
    "esc50": _csv_layout("meta/esc50.csv", ESC50),
    "urbansound8k": _csv_layout("metadata/UrbanSound8K.csv", URBANSOUND8K),
    "folder": Layout(_read_folder, "."),
}
