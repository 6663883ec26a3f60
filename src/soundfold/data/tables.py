"""The table of clips: read, validate, filter."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from soundfold.errors import InputError
from soundfold.io.atomic import escapes_folder


@dataclass(frozen=True)
class Columns:
    """What a format calls its columns.

    Attributes:
        filename, fold, target, category: of ESC-50's meaning.
        source: the recording that a clip was cut from; where a table lacks it, every clip is its own source.
        fold_folders: whether a clip lies in a folder ``fold<k>``.
    """

    filename: str = "filename"
    fold: str = "fold"
    target: str = "target"
    category: str = "category"
    source: str = "src_file"
    fold_folders: bool = False


ESC50 = Columns()
# J. Salamon, C. Jacoby and J. P. Bello, A Dataset and Taxonomy for Urban Sound Research, ACM Multimedia 2014
URBANSOUND8K = Columns("slice_file_name", "fold", "classID", "class", "fsID", fold_folders=True)


@dataclass(frozen=True)
class ClipTable:
    """Clips of a labelled collection, one entry per clip, in the table's order.

    Attributes:
        files: names of the audio files.
        folds: int64 (clips,), the official fold of each clip, numbered as in the table.
        targets: int64 (clips,), classes 0..C-1.
        sources: names of the recordings that the clips were cut from; clips of one source are not independent.
        classes: class names, indexed by target.
    """

    files: tuple[str, ...]
    folds: np.ndarray
    targets: np.ndarray
    sources: tuple[str, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fold_numbers(self) -> tuple[int, ...]:
        """The folds that occur, ascending."""
        return tuple(int(k) for k in np.unique(self.folds))

    def rows(self, clips: Sequence[int] | np.ndarray) -> ClipTable:
        """Some of the clips, in the given order; the classes keep their numbers, also those without a clip left."""
        index = np.asarray(clips, dtype=np.int64)
        return ClipTable(
            files=tuple(self.files[i] for i in index),
            folds=self.folds[index],
            targets=self.targets[index],
            sources=tuple(self.sources[i] for i in index),
            classes=self.classes,
        )


def read_table(
    path: Path, subset: str | None = None, classes: list[str] | None = None, columns: Columns = ESC50
) -> ClipTable:
    """Read and validate a table of clips.

    Columns, as ESC-50 calls them: ``filename, fold, target, category``; optionally ``src_file`` (without it every clip
    is its own source) and any boolean column. Targets may be any integers; the classes that remain are numbered 0..C-1
    in their order.

    Args:
        path: the CSV file.
        subset: name of a boolean column; only its ``True`` rows are kept (``esc10`` in ESC-50's table).
        classes: only these categories are kept.
        columns: what the table's format calls them.

    Raises:
        InputError: the file, a column, or a row breaks the format.
    """
    try:
        if not path.exists():
            raise InputError(
                f"There is no table of clips at {path}. A collection has {path.parent.name}/{path.name} and audio/ "
                "under data.root; give data.root=DIRECTORY, or try data=synthetic, which needs no files."
            )
        if not path.is_file():  # a pipe or a device might never answer
            raise InputError(f"The table of clips {path} is no file. Give a data.root whose table is one.")
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header = reader.fieldnames or []
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The table of clips {path} cannot be read as UTF-8 CSV: {error}.") from error
    required = (columns.filename, columns.fold, columns.target, columns.category)
    needed = (*required, *([subset] if subset else []))
    missing = [name for name in needed if name not in header]
    if missing:
        raise InputError(
            f"The table of clips {path} lacks the column(s) {', '.join(missing)}; "
            f"it has {', '.join(header) or 'none'}. Its format needs {', '.join(required)}."
        )
    if twice := [name for name in (*needed, columns.source) if header.count(name) > 1]:
        raise InputError(f"The table of clips {path} has more than one column {twice[0]}; leave one of that name.")
    parsed = [_parse(path, number, row, columns) for number, row in enumerate(rows, start=2)]
    _validate(path, parsed)
    if subset:
        marks = [_mark(path, number, row, subset) for number, row in enumerate(rows, start=2)]
        parsed = [clip for clip, marked in zip(parsed, marks, strict=True) if marked]
    if classes is not None:
        known = {clip.category for clip in parsed}
        unknown = [name for name in classes if name not in known]
        if unknown:
            raise InputError(f"data.classes names {', '.join(unknown)}, which {path} lacks; it has {sorted(known)}.")
        parsed = [clip for clip in parsed if clip.category in classes]
    if not parsed:
        raise InputError(f"The table of clips {path} has no rows{f' marked True in {subset}' if subset else ''}.")
    kept = sorted({clip.target for clip in parsed})
    number_of = {target: number for number, target in enumerate(kept)}
    if len(kept) < 2:
        raise InputError(
            f"The table of clips {path} has one class only{' left' if subset or classes else ''}, "
            f"{parsed[0].category!r}; a classifier needs two. Name more in data.classes, or give another table."
        )
    names = {clip.target: clip.category for clip in parsed}
    return ClipTable(
        files=tuple(clip.filename for clip in parsed),
        folds=np.array([clip.fold for clip in parsed], dtype=np.int64),
        targets=np.array([number_of[clip.target] for clip in parsed], dtype=np.int64),
        sources=tuple(clip.source for clip in parsed),
        classes=tuple(names[target] for target in kept),
    )


@dataclass(frozen=True)
class _Row:
    filename: str
    fold: int
    target: int
    category: str
    source: str


def _mark(path: Path, number: int, row: dict[str, str | None], subset: str) -> bool:
    value = (row[subset] or "").strip().lower()
    if value not in ("true", "false"):
        raise InputError(f"{path}, line {number}: {subset} must be True or False, not {_short(row[subset])}.")
    return value == "true"


def _parse(path: Path, number: int, row: dict[Any, Any], columns: Columns) -> _Row:
    # an unquoted comma in a name moves all cells behind it
    if any(cell.strip() for cell in row.get(None, ())):
        raise InputError(f"{path}, line {number}: more cells than the header has; quote a cell that holds a comma.")
    filename, category = (row[columns.filename] or "").strip(), (row[columns.category] or "").strip()
    if not filename or not category:
        raise InputError(f"{path}, line {number}: {columns.filename} and {columns.category} must not be empty.")
    if not _inside(filename):
        raise InputError(
            f"{path}, line {number}: {columns.filename} {_short(filename)} must lie inside the folder audio/."
        )
    try:
        # the array's whole numbers have 64 bits
        fold, target = (int(np.int64(int(row[column] or ""))) for column in (columns.fold, columns.target))
    except (ValueError, OverflowError):
        raise InputError(
            f"{path}, line {number}: {columns.fold} and {columns.target} must be whole numbers of at most 18 digits, "
            f"not {_short(row[columns.fold])} and {_short(row[columns.target])}."
        ) from None
    if fold < 1:
        raise InputError(f"{path}, line {number}: fold is {fold}; folds are numbered from 1.")
    source = (row.get(columns.source) or "").strip() or filename
    return _Row(f"fold{fold}/{filename}" if columns.fold_folders else filename, fold, target, category, source)


def _inside(filename: str) -> bool:
    """Whether a name stays in its folder, on Windows too, and can be a file's anywhere."""
    return bool(PurePosixPath(filename).parts) and not escapes_folder(filename) and "\0" not in filename


def _short(value: str | None) -> str:
    """A cell as it is told: it may be thousands of characters long."""
    return repr(value) if value is None or len(value) <= 60 else f"{value[:60]!r}..."


def _validate(path: Path, rows: list[_Row]) -> None:
    seen: set[PurePosixPath] = set()
    category_of: dict[int, str] = {}
    target_of: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        # ./a.wav is a.wav
        file = PurePosixPath(row.filename)
        if file in seen:
            raise InputError(f"{path}, line {number}: {row.filename} occurs twice; a clip may have one row only.")
        seen.add(file)
        if category_of.setdefault(row.target, row.category) != row.category:
            raise InputError(
                f"{path}, line {number}: target {row.target} is named {row.category!r} here and "
                f"{category_of[row.target]!r} before; one target has one class name."
            )
        if target_of.setdefault(row.category, row.target) != row.target:
            raise InputError(
                f"{path}, line {number}: class {row.category!r} has target {row.target} here and "
                f"{target_of[row.category]} before; one class name has one target."
            )
