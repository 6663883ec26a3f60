"""Embeddings under the official folds: the vectors of each test fold, and which clips their model has seen."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd

from soundfold.data.embeddings import EmbeddingFile
from soundfold.data.layouts import TableOptions, find_layout
from soundfold.data.tables import ESC50, ClipTable, read_header, read_table
from soundfold.errors import ArgumentError, InputError


@dataclass(frozen=True)
class ProbeData:
    """The clips of a table with their embeddings.

    Attributes:
        table: of the clips.
        spaces: for each test fold the vectors of all clips, float32 (clips, D), by one model.
        models: the model of each test fold, named by its own fold; empty if the model is unknown.
        seen: for each test fold, bool (clips,): the clip, or one of its source and class, trained or selected the
            model; empty if the training data of the model are unknown.
    """

    table: ClipTable
    spaces: dict[int, np.ndarray]
    models: dict[int, str]
    seen: dict[int, np.ndarray]

    def leaks(self, fold: int) -> int:
        """Return how many test clips of a fold its model has seen."""
        return int(self.seen[fold][self.table.folds == fold].sum()) if self.seen else 0


def read_probe_table(args: Namespace) -> ClipTable | None:
    """Read ``--table``: a CSV in ESC-50's format, or with columns that other options name; None without one.

    Raises:
        InputError: the table cannot be read.
    """
    names = ("file_column", "class_column", "fold_column", "source_column")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    path: Path | None = args.table
    if path is None:
        if given:
            raise InputError(f"--{next(iter(given)).replace('_', '-')} requires --table, the table of clips.")
        return None
    if not given and path.is_file() and {*ESC50.required} <= {*read_header(path)}:
        return read_table(path)
    options = TableOptions(table=path.name, **given)
    return find_layout("csv", options).read(path.parent, path.parent, options)


def read_probe_data(file: EmbeddingFile, table: ClipTable | None) -> ProbeData:
    """Read embeddings and match them with a table.

    The vector of a clip is the mean over its windows. A fold is tested with the embeddings of its own model, which
    trained on the other folds; a file of one model is used for every fold.

    Args:
        file: of embeddings.
        table: of the clips; None takes the columns of the file.

    Raises:
        InputError: there is no table, a clip has no embedding, or its model is ambiguous.
    """
    rows, vectors = file.read()
    if table is None:
        table = _own_table(file, rows)
    clips = _match(table, rows)
    if file.about is None:
        space = _mean_by_clip(table, clips, vectors, file.path)
        return ProbeData(table, dict.fromkeys(table.fold_numbers, space), {}, {})
    available = list(rows["model"].unique())
    spaces: dict[int, np.ndarray] = {}
    models: dict[int, str] = {}
    seen: dict[int, np.ndarray] = {}
    for fold in table.fold_numbers:
        models[fold] = model_of(fold, available, file.path)
        chosen = np.flatnonzero(rows["model"] == models[fold])
        spaces[fold] = _mean_by_clip(table, clips[chosen], vectors[chosen], file.path)
        seen[fold] = np.zeros(len(table), dtype=bool)
        marked = clips[chosen][rows["seen"].to_numpy(dtype=bool)[chosen]]
        seen[fold][marked[marked >= 0]] = True
    return ProbeData(table, spaces, models, seen)


def _own_table(file: EmbeddingFile, rows: pd.DataFrame) -> ClipTable:
    listed = rows.dropna(subset="filename").drop_duplicates("filename") if "filename" in rows else rows[:0]
    if not len(listed):
        raise InputError(
            f"{file.path} does not say which class and fold its sounds belong to. Name a table of them with --table."
        )
    classes = [*(file.about or {}).get("classes", ())] or sorted(listed["target"].unique())
    if unknown := sorted({*listed["target"]} - {*classes}):
        raise InputError(
            f"{file.path} has the class {unknown[0]}, which its model does not know. Write the file again."
        )
    return ClipTable(
        files=tuple(listed["filename"]),
        folds=listed["fold"].to_numpy(dtype=np.int64),
        targets=np.array([classes.index(name) for name in listed["target"]], dtype=np.int64),
        sources=tuple(listed["source"]),
        classes=tuple(classes),
        has_sources=bool((listed["source"] != listed["filename"]).all()),
    )


def _match(table: ClipTable, rows: pd.DataFrame) -> np.ndarray:
    """Return the clip of each row, int64 (n,); -1 for a row that is not in the table."""
    index = {name: clip for clip, name in enumerate(table.files)}
    names = rows["file"] if "filename" not in rows else rows["filename"].fillna(rows["file"])
    clip_of = {name: _find(str(name), index) for name in names.unique()}
    return names.map(clip_of).to_numpy(dtype=np.int64)


def _find(name: str, index: dict[str, int]) -> int:
    parts = PurePath(name.replace("\\", "/")).parts
    candidates = (name, *("/".join(parts[-length:]) for length in range(1, len(parts) + 1)))
    return next((index[candidate] for candidate in candidates if candidate in index), -1)


def _mean_by_clip(table: ClipTable, clips: np.ndarray, vectors: np.ndarray, path: Path) -> np.ndarray:
    listed = clips >= 0
    counts = np.bincount(clips[listed], minlength=len(table))
    if missing := int((counts == 0).sum()):
        first = table.files[int(counts.argmin())]
        raise InputError(
            f"{path} has no embedding of {missing} of the {len(table)} clips of the table by the same model, the first "
            f"is {first}. A probe compares all clips in the space of one model: embed them all, without --unseen."
        )
    sums = np.zeros((len(table), vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, clips[listed], vectors[listed])
    return (sums / counts[:, None]).astype(np.float32)


def model_of(fold: int, available: Sequence[Any], path: Path) -> str:
    """Return the model that tests a fold: its own, or the only one there is.

    Raises:
        ArgumentError: there are several models, and none is the fold's.
    """
    if str(fold) in available:
        return str(fold)
    if len(available) == 1:
        return str(available[0])
    raise ArgumentError(
        f"{path} has the models of folds {', '.join(map(str, available))}, and none of fold {fold}. Train that "
        "fold, or embed with one model, by --fold."
    )
