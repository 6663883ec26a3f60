"""The table of clips of a collection: read, check, select."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from soundfold.data.folds import assign_folds
from soundfold.data.row_registry import RowRegistry, plain_path
from soundfold.errors import ArgumentError, InputError
from soundfold.io.atomic import escapes_folder, has_control_characters

# a row takes about 60
MAX_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Columns:
    """Column names of a table format.

    Attributes:
        filename: name of the audio file, relative to the folder of the audio.
        fold: integer; None where folds are made.
        target: integer; None where classes are numbered in alphabetical order.
        category: class name.
        source: identifier of the source recording. Where a row has none, its clip is its own source.
        requires_source: whether the table must have the column of sources.
        fold_folders: whether the files of fold k are in the folder ``fold<k>``.
    """

    filename: str = "filename"
    fold: str | None = "fold"
    target: str | None = "target"
    category: str = "category"
    source: str = "src_file"
    fold_folders: bool = False
    requires_source: bool = False

    @property
    def required(self) -> tuple[str, ...]:
        names = self.filename, self.fold, self.target, self.category, self.source if self.requires_source else None
        return tuple(name for name in names if name is not None)


ESC50 = Columns()
# J. Salamon, C. Jacoby and J. P. Bello, A Dataset and Taxonomy for Urban Sound Research, ACM Multimedia 2014
URBANSOUND8K = Columns("slice_file_name", "fold", "classID", "class", "fsID", fold_folders=True)


@dataclass(frozen=True)
class ClipTable:
    """Clips of a labelled collection, one entry per clip, in the order of the table.

    A function that returns one is a reader for ``data.reader``.

    >>> table = ClipTable(
    ...     files=("a.wav", "b.wav", "c.wav"),
    ...     folds=np.array([1, 2, 2]),
    ...     targets=np.array([0, 1, 0]),
    ...     sources=("yard", "street", "street"),
    ...     classes=("dog", "rain"),
    ... )
    >>> len(table), table.fold_numbers, table.source_numbers.tolist()
    (3, (1, 2), [0, 1, 1])
    >>> table.rows([2]).files
    ('c.wav',)

    Attributes:
        files: names of the audio files.
        folds: int64 (clips,), the official fold of each clip, numbered as in the table.
        targets: int64 (clips,), classes 0..C-1.
        sources: identifiers of the source recordings. Clips of one source are not independent.
        classes: class names, indexed by target.
        has_sources: whether the source of every clip is known; otherwise clips of one recording may be in several
            folds, which no audit can find.
    """

    files: tuple[str, ...]
    folds: np.ndarray
    targets: np.ndarray
    sources: tuple[str, ...]
    classes: tuple[str, ...]
    has_sources: bool = True

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def fold_numbers(self) -> tuple[int, ...]:
        """The distinct folds, ascending."""
        return tuple(int(k) for k in np.unique(self.folds))

    @cached_property
    def source_numbers(self) -> np.ndarray:
        """int64 (clips,), equal for the clips of one source; from 0, in the order of the table."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(source, len(numbers)) for source in self.sources], dtype=np.int64)

    @cached_property
    def pair_numbers(self) -> np.ndarray:
        """int64 (clips,), equal for the clips of one source and class; from 0."""
        return np.unique(self.source_numbers * len(self.classes) + self.targets, return_inverse=True)[1]

    def rows(self, clips: Sequence[int] | np.ndarray) -> ClipTable:
        """Return the table of some clips, in the given order. All classes are retained, with their targets."""
        index = np.asarray(clips, dtype=np.int64)
        return ClipTable(
            files=tuple(self.files[i] for i in index),
            folds=self.folds[index],
            targets=self.targets[index],
            sources=tuple(self.sources[i] for i in index),
            classes=self.classes,
            has_sources=self.has_sources,
        )


def read_table(
    path: Path,
    subset: str | None = None,
    classes: list[str] | None = None,
    columns: Columns = ESC50,
    folds: int = 5,
) -> ClipTable:
    """Read and check a table of clips.

    Targets may be any 64-bit integers. The selected classes are renumbered 0..C-1 in the order of their targets.

    Args:
        path: the CSV file, UTF-8 with or without a byte order mark.
        subset: name of a boolean column; select the rows marked ``True`` (``esc10`` in ESC-50's table).
        classes: select these categories; None selects all.
        columns: column names of the format.
        folds: number of folds to make where the format has none, see `assign_folds`.

    Raises:
        InputError: the file cannot be read, or a column or a row is invalid.
        ArgumentError: there is no table at the path, `classes` is invalid, or a class has too few sources for `folds`.
    """
    clips = _read_clips(path, columns, subset)
    if classes is not None:
        known = {clip.category for clip in clips}
        if unknown := [name for name in classes if name not in known]:
            raise ArgumentError(f"`classes` names {', '.join(unknown)}, not in {path}, which has {sorted(known)}.")
        clips = [clip for clip in clips if clip.category in classes]
    if not clips:
        raise InputError(f"The table of clips {path} has no rows{f' marked True in {subset}' if subset else ''}.")
    names = {clip.category: None for clip in sorted(clips, key=lambda clip: (clip.target or 0, clip.category))}
    if len(names) < 2:
        raise ArgumentError(
            f"The table of clips {path} has one class only{' left' if subset or classes else ''}, "
            f"{clips[0].category!r}; a classifier needs two. Add classes to `classes`, or use another table."
        )
    number_of = {name: number for number, name in enumerate(names)}
    targets = np.array([number_of[clip.category] for clip in clips], dtype=np.int64)
    sources = tuple(clip.source or clip.filename for clip in clips)
    given = np.array([clip.fold for clip in clips], dtype=np.int64)
    return ClipTable(
        files=tuple(clip.filename for clip in clips),
        folds=given if columns.fold else assign_folds(targets, sources, [*names], folds),
        targets=targets,
        sources=sources,
        classes=tuple(names),
        has_sources=all(clip.source for clip in clips),
    )


def read_header(path: Path) -> list[str]:
    """Return the column names of a table.

    Raises:
        InputError, ArgumentError: see `read_table`.
    """
    with _open_csv(path) as reader:
        return next(reader, [])


class _Clip(NamedTuple):
    filename: str
    fold: int
    target: int | None
    category: str
    source: str


@contextmanager
def _open_csv(path: Path) -> Iterator[Any]:
    """Open a table; yield its `csv.reader`.

    pandas is not used: it drops surplus cells of the first row and renames duplicate columns, without an error.
    """
    try:
        if not path.exists():
            download = ", or set `download`=esc50 to download ESC-50" if path.name == "esc50.csv" else ""
            raise ArgumentError(
                f"There is no table of clips at {path}. A collection of this layout has {path.parent.name}/{path.name} "
                f"and audio/ under `root`. Set `root` to its folder{download}."
            )
        if not path.is_file():  # reading a pipe or a device might block forever
            raise ArgumentError(f"The table of clips {path} is not a regular file. Set `root` to another folder.")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"The table of clips {path} is larger than {MAX_BYTES / 1e6:.0f} MB. Split the collection."
            )
        with path.open(newline="", encoding="utf-8-sig") as stream:
            yield csv.reader(stream)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The table of clips {path} cannot be read as UTF-8 CSV: {error}.") from error


def _read_clips(path: Path, columns: Columns, subset: str | None) -> list[_Clip]:
    """Return the checked rows, of the subset if there is one. Rows are not stored, which doubles the speed."""
    clips: list[_Clip] = []
    registry = RowRegistry()
    with _open_csv(path) as reader:
        header: list[str] = next(reader, [])
        _check_header(path, header, columns, subset)
        for cells in filter(None, reader):
            row: dict[Any, Any] = dict(zip(header, cells, strict=False))
            if len(cells) != len(header):
                row = {**dict.fromkeys(header), **row, None: cells[len(header) :]}
            try:
                clip = _parse_clip(row, columns)
                registry.add(clip.filename, clip.target, clip.category)
                if not subset or _is_marked(row, subset):
                    clips.append(clip)
            except InputError as error:
                # the line number of the row's end
                raise InputError(f"{path}, line {reader.line_num}: {error}") from None
    return clips


def _check_header(path: Path, header: Sequence[str], columns: Columns, subset: str | None) -> None:
    if missing := [name for name in columns.required if name not in header]:
        raise InputError(
            f"The table of clips {path} lacks the column(s) {', '.join(missing)}; "
            f"it has {', '.join(header) or 'none'}. Its format requires {', '.join(columns.required)}."
        )
    if subset and subset not in header:
        raise ArgumentError(
            f"`subset`={subset} is not a column of {path}, which has {', '.join(header)}. Set a column of True and "
            "False."
        )
    needed = (*columns.required, subset)
    if duplicates := [name for name in (*needed, columns.source) if header.count(name) > 1]:
        raise InputError(f"The table of clips {path} has more than one column {duplicates[0]}. Remove all but one.")


def _is_marked(row: dict[str, str | None], subset: str) -> bool:
    value = (row[subset] or "").strip().lower()
    if value not in ("true", "false"):
        raise InputError(f"{subset} must be True or False, not {_abbreviate(row[subset])}.")
    return value == "true"


def _parse_clip(row: dict[Any, Any], columns: Columns) -> _Clip:
    # an unquoted comma in a name shifts all cells after it
    if None in row and any(cell.strip() for cell in row[None]):
        raise InputError("more cells than the header has; quote a cell that contains a comma.")
    filename, category = (row[columns.filename] or "").strip(), (row[columns.category] or "").strip()
    if not filename or not category:
        raise InputError(f"{columns.filename} and {columns.category} must not be empty.")
    if not plain_path(filename) or escapes_folder(filename):
        raise InputError(f"{columns.filename} {_abbreviate(filename)} must be a file inside the folder of the audio.")
    fold = 1 if columns.fold is None else _integer(columns.fold, row[columns.fold])
    target = None if columns.target is None else _integer(columns.target, row[columns.target])
    if fold < 1:
        raise InputError(f"{columns.fold} is {fold}; folds are numbered from 1.")
    source = (row.get(columns.source) or "").strip()
    for column, name in ((columns.filename, filename), (columns.category, category), (columns.source, source)):
        if has_control_characters(name):
            raise InputError(f"{column} {_abbreviate(name)} has a control character or a line break. Rename it.")
    return _Clip(f"fold{fold}/{filename}" if columns.fold_folders else filename, fold, target, category, source)


@lru_cache  # a table has few folds and targets
def _integer(column: str, text: str | None) -> int:
    try:
        # int() also accepts 1_0, and digits of other scripts
        if not re.fullmatch(r"\s*[+-]?[0-9]+\s*", text or ""):
            raise ValueError
        return int(np.int64(int(text or "")))  # NumPy refuses what int64 cannot hold
    except (ValueError, OverflowError):
        raise InputError(f"{column} must be an integer of at most 18 digits, not {_abbreviate(text)}.") from None


def _abbreviate(value: str | None) -> str:
    return repr(value) if value is None or len(value) <= 60 else f"{value[:60]!r}..."
