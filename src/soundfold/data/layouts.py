"""Layouts of collections: where the table of clips and the audio are, and how the table is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any

from soundfold.config.targets import build_target, find_target
from soundfold.data.folder import read_folder
from soundfold.data.table_building import check_table, leave_out_classes, select_classes
from soundfold.data.tables import ESC50, URBANSOUND8K, ClipTable, Columns, read_header, read_table
from soundfold.errors import ArgumentError


@dataclass(frozen=True)
class TableOptions:
    """Options of a table of clips. A layout ignores those that do not apply to it.

    Attributes:
        subset: of a table in ESC-50's format: select the rows marked ``True`` in this column, see `read_table`.
        classes: select these classes; None selects all.
        leave_out: leave out these of the selected classes; None leaves out none. Folds do not depend on it.
        folds: number of folds that are made where the collection has none, see `assign_folds`.
        source_pattern: of ``folder``, see `read_folder`.
        table: of ``csv``: path of the table, relative to the folder of the collection.
        audio: of ``csv`` and a reader: folder of the audio, relative to the folder of the collection. None is the
            folder of the table, or of the collection.
        file_column, class_column: of ``csv``: names of the columns of file and class.
        fold_column, source_column: of ``csv``: the same of fold and source. None is ``fold`` or ``source`` where the
            table has this column; otherwise folds are made, and sources are unknown.
        reader: ``_target_`` of a function that returns the table of clips, and its options; it replaces the layout.
    """

    subset: str | None = None
    classes: list[str] | None = None
    leave_out: list[str] | None = None
    folds: int = 5
    source_pattern: str | None = None
    table: str | None = None
    audio: str | None = None
    file_column: str = "filename"
    class_column: str = "category"
    fold_column: str | None = None
    source_column: str | None = None
    reader: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """The files of a collection. `LAYOUTS` has one by each value of ``data.layout``.

    >>> sorted(LAYOUTS)
    ['csv', 'esc50', 'folder', 'urbansound8k']
    >>> LAYOUTS["esc50"].table, LAYOUTS["esc50"].audio
    ('meta/esc50.csv', 'audio')

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


def _read_csv(root: Path, cache: Path, options: TableOptions) -> ClipTable:
    if options.table is None:
        raise ArgumentError("The layout csv requires `table`, the path of a CSV file with a row per clip.")
    path = root / options.table
    if not path.exists():
        raise ArgumentError(f"There is no table of clips at {path}. Set `table` to the path of a CSV file.")
    header = read_header(path)
    for key in ("file_column", "class_column", "fold_column", "source_column"):
        if (column := getattr(options, key)) is not None and column not in header:
            raise ArgumentError(
                f"`{key}`={column} is not a column of {path}, which has {', '.join(header) or 'none'}. Set `{key}` to "
                "one of these."
            )
    columns = Columns(
        filename=options.file_column,
        category=options.class_column,
        target=None,
        fold=options.fold_column or ("fold" if "fold" in header else None),
        source=options.source_column or "source",
        requires_source=options.source_column is not None,
    )
    return read_table(path, None, options.classes, columns, options.folds)


def _read_custom(root: Path, cache: Path, options: TableOptions) -> ClipTable:
    takes = signature(find_target("data.reader", options.reader["_target_"], ClipTable)).parameters
    given = {"root": root, "folds": options.folds}
    arguments = {name: value for name, value in given.items() if name in takes}
    table = build_target("data.reader", options.reader, ClipTable, **arguments)
    check_table(table, f"data.reader._target_={options.reader['_target_']}")
    return table if options.classes is None else select_classes(table, options.classes)


LAYOUTS: dict[str, Layout] = {
    "esc50": _csv_layout("meta/esc50.csv", ESC50),
    "urbansound8k": _csv_layout("metadata/UrbanSound8K.csv", URBANSOUND8K),
    "folder": Layout(_read_folder, "."),
    "csv": Layout(_read_csv, "."),
}


def find_layout(name: str, options: TableOptions) -> Layout:
    """Return the layout of this name with its options, or that of the reader of the options.

    Args:
        name: one of `LAYOUTS`.
        options: of the table of clips.
    """
    layout = _find_layout(name, options)
    if not options.leave_out:
        return layout

    def read(root: Path, cache: Path, options: TableOptions) -> ClipTable:
        return leave_out_classes(layout.read(root, cache, options), options.leave_out or ())

    return replace(layout, read=read)


def _find_layout(name: str, options: TableOptions) -> Layout:
    if options.reader:
        return Layout(_read_custom, options.audio or ".")
    if name == "csv" and options.table is not None:
        folder = str(Path(options.table).parent) if options.audio is None else options.audio
        return Layout(_read_csv, folder, options.table)
    return LAYOUTS[name]
