"""Tables of clips from plain lists, for readers of other formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from soundfold.data.folds import assign_folds
from soundfold.data.row_registry import plain_path
from soundfold.data.tables import ClipTable
from soundfold.errors import ArgumentError, InputError
from soundfold.io.atomic import escapes_folder, has_control_characters


def build_table(
    files: Sequence[str],
    classes: Sequence[str],
    folds: Sequence[int] | int = 5,
    sources: Sequence[str] | None = None,
) -> ClipTable:
    """Build a table of clips; the classes are in alphabetical order.

    Args:
        files: (clips,), paths of the audio files relative to the folder of the audio.
        classes: (clips,), name of the class of each clip.
        folds: (clips,), number of the fold of each clip, from 1; or how many to make, see `assign_folds`.
        sources: (clips,), identifiers of the source recordings; None if they are unknown.

    Raises:
        ArgumentError: a class has too few sources for the folds.
    """
    names = sorted(set(classes))
    targets = np.array([names.index(name) for name in classes], dtype=np.int64)
    groups = list(files) if sources is None else list(sources)
    numbers = assign_folds(targets, groups, names, folds) if isinstance(folds, int) else np.array(folds, dtype=np.int64)
    return ClipTable(tuple(files), numbers, targets, tuple(groups), tuple(names), has_sources=sources is not None)


def check_table(table: ClipTable, reader: str) -> None:
    """Check the table of a user's reader.

    Args:
        reader: its name, for the error message.

    Raises:
        InputError: the message has the first invalid clip.
    """
    n = len(table.files)
    for name in ("folds", "targets", "sources"):
        if len(getattr(table, name)) != n:
            raise InputError(f"{reader} returned {n} files and {len(getattr(table, name))} {name}.")
    for name in ("folds", "targets"):
        values = getattr(table, name)
        if not isinstance(values, np.ndarray) or values.dtype != np.int64:
            raise InputError(f"{reader}: {name} must be a NumPy array of int64.")
    if len(table.classes) < 2 or len(set(table.classes)) < len(table.classes):
        raise InputError(f"{reader} returned the classes {list(table.classes)}; a classifier needs two, all different.")
    if set(table.targets.tolist()) != set(range(len(table.classes))):
        raise InputError(f"{reader}: targets must be 0 to {len(table.classes) - 1}, each with a clip.")
    seen: set[str] = set()
    for number, (file, fold, source) in enumerate(zip(table.files, table.folds, table.sources, strict=True)):
        where = f"{reader}, clip {number} ({file!r:.60})"
        if not file or escapes_folder(file) or has_control_characters(file) or has_control_characters(source):
            raise InputError(f"{where}: its name must be a path inside the folder of the audio, without line breaks.")
        if plain_path(file) in seen:
            raise InputError(f"{where}: its file occurs twice.")
        if fold < 1:
            raise InputError(f"{where}: its fold is {fold}; folds are numbered from 1.")
        seen.add(plain_path(file))


def select_classes(table: ClipTable, classes: Sequence[str]) -> ClipTable:
    """Return the clips of some classes, with targets 0..C-1 in the order of the table.

    Raises:
        ArgumentError: the table lacks a class, or fewer than two are selected.
    """
    if unknown := [name for name in classes if name not in table.classes]:
        raise ArgumentError(f"`classes` names {', '.join(unknown)}; the collection has {sorted(table.classes)}.")
    names = [name for name in table.classes if name in classes]
    if len(names) < 2:
        raise ArgumentError(f"`classes`={list(classes)} leaves one class; a classifier needs two.")
    rows = table.rows(np.flatnonzero(np.isin(table.targets, [table.classes.index(name) for name in names])))
    targets = np.array([names.index(table.classes[target]) for target in rows.targets], dtype=np.int64)
    return replace(rows, targets=targets, classes=tuple(names))


def leave_out_classes(table: ClipTable, classes: Sequence[str]) -> ClipTable:
    """Return the clips of all other classes, see `select_classes`.

    Raises:
        ArgumentError: the table lacks a class, or fewer than two are left.
    """
    if unknown := [name for name in classes if name not in table.classes]:
        raise ArgumentError(f"`leave_out` names {', '.join(unknown)}; the collection has {sorted(table.classes)}.")
    known = [name for name in table.classes if name not in classes]
    if len(known) < 2:
        raise ArgumentError(f"`leave_out`={list(classes)} leaves fewer than two classes; a classifier needs two.")
    return select_classes(table, known)
