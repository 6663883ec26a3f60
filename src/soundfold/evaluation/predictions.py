"""The predictions of a fold's scored clips, ``predictions.csv``."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soundfold.data.tables import ClipTable
from soundfold.errors import InputError
from soundfold.evaluation.results import REDO, FoldResult
from soundfold.io.csv_text import csv_text
from soundfold.io.reading import read_bytes

# bytes; a million clips of fifty classes have 600 MB, 400,000 clips of 527 classes 2.7 GB
MAX_CSV = 4_000_000_000


@dataclass(frozen=True)
class Predictions:
    """The scored clips of a fold, in the order of the file.

    Attributes:
        files, sources: (n,).
        targets: int64 (n,), indices into the classes.
        logits: float32 (n, C).
    """

    files: tuple[str, ...]
    sources: tuple[str, ...]
    targets: np.ndarray
    logits: np.ndarray


def load_fold_predictions(run: Path, result: FoldResult) -> Predictions:
    """Read the predictions of a finished fold and check them against its result.

    Raises:
        InputError: the file cannot be read, or does not match the result.
    """
    path = run / f"fold{result.fold}" / "predictions.csv"
    if result.predictions is None:
        raise InputError(f"{path} is not bound to its result.json, which has no SHA-256 of it. {REDO}")
    predictions = load_predictions(path, result.classes, result.predictions)
    correct = predictions.logits.argmax(axis=1) == predictions.targets
    if len(correct) != result.n or result.accuracy is None or abs(correct.mean() - result.accuracy) > 1e-4:
        raise InputError(f"{path} does not match the accuracy in result.json. One of the two was changed. {REDO}")
    return predictions


def load_predictions(path: Path, classes: Sequence[str], digest: str | None = None) -> Predictions:
    """Read a file of `predictions_csv`.

    Args:
        digest: expected SHA-256, `FoldResult.predictions`; None skips the check.

    Raises:
        InputError: the file cannot be read, has other classes, another SHA-256, or a logit that is not finite.
    """
    index = {name: target for target, name in enumerate(classes)}
    try:
        content = read_bytes(path, MAX_CSV)
        if digest not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError("it is not the file that result.json refers to")
        # StringIO would take four bytes for a character
        reader = csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8", newline=""))
        header = next(reader, [])
        names = ["filename", "source", "target", *(f"logit_{name}" for name in classes)]
        if missing := [name for name in names if name not in header]:
            raise ValueError(f"it lacks the column {missing[0]}")
        file, source, target, *values = map(header.index, names)
        # row by row: a dictionary of texts per row takes ten times the memory of the file
        files, sources, targets, logits = [], [], [], []
        for row in filter(None, reader):
            if len(row) != len(header):
                raise ValueError("a row does not have the columns of the header")
            files.append(row[file])
            sources.append(row[source])
            targets.append(index[row[target]])
            logits.append(np.array([row[value] for value in values], np.float32))
        matrix = np.array(logits, np.float32).reshape(-1, len(classes))
        if not np.isfinite(matrix).all():
            raise ValueError("a logit is not a finite number")
        return Predictions(tuple(files), tuple(sources), np.array(targets, dtype=np.int64), matrix)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}). {REDO}") from None


def predictions_csv(table: ClipTable, clips: np.ndarray, logits: np.ndarray) -> str:
    """Return a CSV with a row per scored clip: file, fold, source, true and predicted class, and a logit per class.

    Args:
        clips: int64 (n,), indices into the table.
        logits: float32 (n, C); nine digits, so that they are read back exactly.
    """

    def rows() -> Iterator[list[object]]:
        yield ["filename", "fold", "source", "target", "prediction", *(f"logit_{c}" for c in table.classes)]
        for clip, row in zip(clips, logits, strict=True):
            target, prediction = table.classes[table.targets[clip]], table.classes[int(row.argmax())]
            labels = [table.files[clip], int(table.folds[clip]), table.sources[clip], target, prediction]
            yield [*labels, *(f"{value:.9g}" for value in row)]

    return csv_text(rows())
