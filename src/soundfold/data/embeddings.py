"""Embeddings of sounds in a file, Parquet or NumPy's npz: a row per window and model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import pandas as pd

from soundfold.config import install_command
from soundfold.errors import ArgumentError, InputError
from soundfold.io.atomic import atomic_file, explain_write_errors

FORMATS = (".parquet", ".npz")
# rows of a row group, at least: a file of many short clips would have one per clip
GROUP = 4096
# rows that are read at a time
BLOCK = 16_384
# usual names of the columns in files of other programs
NAME_COLUMNS = ("filename", "file", "file_name", "path", "name")
VECTOR_COLUMNS = ("embedding", "embeddings", "vector", "vectors", "features")
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


class EmbeddingFile:
    """A file of embeddings that `write_embeddings` wrote, or another program.

    One of another program has a column (Parquet) or array (npz) of file names and one of vectors. Several rows may have
    the same file name.

    Args:
        path: ends with one of `FORMATS`.
        names: of the column of file names; None looks for one of `NAME_COLUMNS`.
        vectors: of the column of vectors; None looks for one of `VECTOR_COLUMNS`.

    Attributes:
        path: the argument.
        about: see `write_embeddings`; None in files of other programs.
        columns: of the file, which `blocks` reads, without the vector.

    Raises:
        InputError: the file is absent or damaged, or lacks a column.
        ArgumentError: the path has another suffix, or a column that an argument names is absent.
    """

    def __init__(self, path: Path, names: str | None = None, vectors: str | None = None) -> None:
        check_suffix(path)
        if not path.is_file():
            raise InputError(f"There is no file of embeddings at {path}. `soundfold embed` writes one.")
        self.path = path
        with self._explained():
            found, about = _parquet_header(path) if path.suffix == ".parquet" else _npz_header(path)
            self.about: dict[str, Any] | None = None if about is None else json.loads(about)
        self.columns = tuple(COLUMNS) if self.about is not None else (self._find("names", names, NAME_COLUMNS, found),)
        self._vector = "vector" if self.about is not None else self._find("vectors", vectors, VECTOR_COLUMNS, found)

    def _find(self, argument: str, name: str | None, usual: tuple[str, ...], found: list[str]) -> str:
        if name is not None and name not in found:
            raise ArgumentError(f"`{argument}`={name} is not in {self.path}, which has {', '.join(found)}.")
        matches = [name] if name is not None else [column for column in usual if column in found]
        if not matches:
            raise InputError(
                f"{self.path} has {', '.join(found) or 'no column'}: name the one of its {argument} with --{argument}."
            )
        return matches[0]

    def blocks(self) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        """Yield some rows at a time: ``columns`` and the vectors float32 (n, D).

        ``file`` is the first column. Parquet is read in bounded memory.

        Raises:
            InputError: the file is damaged, or a vector has a value that is not finite.
        """
        read = _parquet_blocks if self.path.suffix == ".parquet" else _npz_blocks
        with self._explained():
            for rows, vectors in read(self.path, self.columns, self._vector):
                if not np.isfinite(vectors).all():
                    raise ValueError("a vector has a value that is not finite")
                rows = rows.rename(columns={self.columns[0]: "file"})
                yield rows, vectors.astype(np.float32, copy=False)

    def read(self) -> tuple[pd.DataFrame, np.ndarray]:
        """Return all rows, see `blocks`."""
        blocks = list(self.blocks())
        if not blocks:
            raise InputError(f"{self.path} has no rows. Write it again.")
        rows, vectors = zip(*blocks, strict=True)
        return pd.concat(rows, ignore_index=True), np.concatenate(vectors)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        # Arrow's errors are a ValueError, an OSError or a KeyError, too
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise InputError(
                f"{self.path} cannot be read as embeddings ({reason}). It has a row per window: a file name and a "
                "vector of finite numbers. Write it again."
            ) from error


def _parquet_header(path: Path) -> tuple[list[str], str | None]:
    with parquet().ParquetFile(path) as file:
        about = (file.schema_arrow.metadata or {}).get(ABOUT.encode())
        return list(file.schema_arrow.names), None if about is None else about.decode()


def _npz_header(path: Path) -> tuple[list[str], str | None]:
    with np.load(path) as arrays:
        return list(arrays), str(arrays[ABOUT]) if ABOUT in arrays else None


def _parquet_blocks(path: Path, columns: Sequence[str], vector: str) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    file_type = parquet().ParquetFile
    from pyarrow.compute import list_value_length  # of the same extra

    with file_type(path) as file:
        for group in range(file.num_row_groups):
            # several groups at once would be read ahead, into memory
            for batch in file.iter_batches(BLOCK, [group], [*columns, vector]):
                column = batch.column(vector)
                lengths = list_value_length(column)
                if lengths.null_count or len(lengths.unique()) > 1:
                    raise ValueError(f"vectors of {vector} are missing, or of several lengths")
                flat = column.flatten().to_numpy(zero_copy_only=False)
                yield batch.select([*columns]).to_pandas(), flat.reshape(len(batch), -1)


def _npz_blocks(path: Path, columns: Sequence[str], vector: str) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    with np.load(path) as arrays:
        rows = pd.DataFrame({name: arrays[name] for name in columns})
        vectors = arrays[vector]
    if vectors.ndim != 2 or len(vectors) != len(rows):
        raise ValueError(f"{vector} has the shape {vectors.shape}, and must be ({len(rows)}, D)")
    if ABOUT in arrays and "filename" in rows:
        absent = rows["filename"] == ""
        rows = rows.astype({"fold": "Int64"})
        rows.loc[absent, list(OPTIONAL)] = None
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK], vectors[start : start + BLOCK]
