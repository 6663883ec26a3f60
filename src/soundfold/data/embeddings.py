"""Embeddings of sounds in a file, Parquet or NumPy's npz: a row per window and model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np

from soundfold.config import install_command
from soundfold.errors import ArgumentError, InputError
from soundfold.io.atomic import atomic_file, explain_write_errors

FORMATS = (".parquet", ".npz")
# rows of a row group: a file of many short clips would have one per clip
GROUP = 4096
# columns beside the vector, with the value of npz for a missing one, and Parquet's type
COLUMNS: dict[str, tuple[Any, str]] = {
    "file": ("", "string"),
    "start": (0.0, "float64"),
    "end": (0.0, "float64"),
    "model": ("", "string"),
    "seen": (False, "bool_"),
    "filename": ("", "string"),
    "fold": (0, "int64"),
    "target": ("", "string"),
    "source": ("", "string"),
}
OPTIONAL = ("filename", "fold", "target", "source")
# of the metadata in Parquet, and of the array in npz
ABOUT = "soundfold"


@dataclass(frozen=True)
class EmbeddingBatch:
    """Some rows of a file of embeddings.

    Attributes:
        rows: a list of n values for each of `COLUMNS`: the file; start and end of the window, seconds; the model, named
            by its fold; whether the clip, or one of its source and class, trained or selected the model; and for clips
            of the model's collection their row of the table of clips: filename, fold, target (class name) and source,
            otherwise None.
        vectors: float32 (n, D).
    """

    rows: Mapping[str, list[Any]]
    vectors: np.ndarray


def write_embeddings(path: Path, batches: Iterable[EmbeddingBatch], about: Mapping[str, Any]) -> tuple[int, int]:
    """Write a file of embeddings atomically: Parquet in bounded memory, or npz, which holds all rows in memory.

    Args:
        path: ends with one of `FORMATS`.
        batches: with vectors of one size. Nothing is written if there are none.
        about: values for JSON: the models, see `soundfold.inference.embed`.

    Returns:
        Number of rows, and of values of a vector.

    Raises:
        InputError: pyarrow is not installed.
        ArgumentError: the path has another suffix or cannot be written.
    """
    check_suffix(path)
    with explain_write_errors(path.parent, "Free some space, or name another file."):
        path.parent.mkdir(parents=True, exist_ok=True)
        write = _write_parquet if path.suffix == ".parquet" else _write_npz
        return write(path, _grouped(batches), json.dumps(about))


def check_suffix(path: Path) -> None:
    """Raise if a name is not that of a file of embeddings, or pyarrow is missing for it."""
    if path.suffix not in FORMATS:
        raise ArgumentError(f"{path} must be a file of embeddings, and end with {' or '.join(FORMATS)}.")
    if path.suffix == ".parquet":
        parquet()


def parquet() -> Any:
    """Return ``pyarrow.parquet``.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        # imported here: it is an extra, and takes a quarter of a second
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"Parquet requires pyarrow, which is not installed: {install_command('embeddings')}. Or name a file .npz."
        ) from error
    return pyarrow.parquet


def _grouped(batches: Iterable[EmbeddingBatch]) -> Iterator[EmbeddingBatch]:
    """Join batches to at least `GROUP` rows, except the last."""
    waiting: list[EmbeddingBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(len(part.vectors) for part in waiting) >= GROUP:
            yield _join(waiting)
            waiting = []
    if waiting:
        yield _join(waiting)


def _join(batches: list[EmbeddingBatch]) -> EmbeddingBatch:
    rows = {name: [value for batch in batches for value in batch.rows[name]] for name in COLUMNS}
    return EmbeddingBatch(rows, np.concatenate([batch.vectors for batch in batches]))


def _write_parquet(path: Path, batches: Iterator[EmbeddingBatch], about: str) -> tuple[int, int]:
    import pyarrow

    first = next(batches, None)
    if first is None:
        return 0, 0
    size = first.vectors.shape[1]
    fields = [(name, getattr(pyarrow, kind)()) for name, (_, kind) in COLUMNS.items()]
    schema = pyarrow.schema([*fields, ("vector", pyarrow.list_(pyarrow.float32(), size))], {ABOUT: about})
    n_rows = 0
    with atomic_file(path) as stream, parquet().ParquetWriter(stream, schema) as writer:
        batch: EmbeddingBatch | None = first
        while batch is not None:
            vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(batch.vectors.ravel()), size)
            writer.write_table(pyarrow.table({**batch.rows, "vector": vectors}, schema))
            n_rows += len(batch.vectors)
            batch = next(batches, None)
    return n_rows, size


def _write_npz(path: Path, batches: Iterator[EmbeddingBatch], about: str) -> tuple[int, int]:
    parts = list(batches)
    if not parts:
        return 0, 0
    batch = _join(parts)
    arrays: dict[str, np.ndarray] = {
        name: np.array([missing if value is None else value for value in batch.rows[name]])
        for name, (missing, _) in COLUMNS.items()
    }
    arrays |= {"vector": batch.vectors, ABOUT: np.array(about)}
    # np.savez cannot name an array "file"
    with atomic_file(path) as stream, ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    n_rows, size = batch.vectors.shape
    return n_rows, size
