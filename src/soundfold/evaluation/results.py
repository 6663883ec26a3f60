"""What a fold leaves behind, and what a set of folds says together. Pure but for the files."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from soundfold.config import migrate
from soundfold.data.tables import ClipTable
from soundfold.errors import InputError
from soundfold.io.atomic import dumps_with_checksum, loads_with_checksum, write_text


@dataclass(frozen=True)
class FoldResult:
    """One fold, trained and scored once.

    Attributes:
        cv_id: identity of the cross-validation that it belongs to.
        fold: its number, or None for a model trained on every clip, which has no scores.
        folds: numbers of all folds of the collection.
        protocol, seed, classes: of the run.
        leaky: its scores are too high by protocol, see `soundfold.data.splits.Protocol`.
        n: clips scored.
        accuracy, f1, top5: fractions of 1; f1 is the macro average.
        loss: mean cross entropy of the scored clips, nats.
        val_accuracy: fraction of 1, of the weights that were scored; None where the protocol does not validate.
        confusion: counts, rows are true classes.
        objective: what a search may optimise: the validation figure where there is one, else accuracy.
        epochs, steps: done when the fold ended.
        seconds: wall time of the start that finished it.
        audit: of the split, see `soundfold.data.splits.Audit`.
        environment: commit, versions of libraries, device.
        predictions: SHA-256 of the predictions.csv beside it; None where there is none, or an earlier version wrote it.
    """

    cv_id: str
    fold: int | None
    folds: list[int]
    protocol: str
    leaky: bool
    seed: int
    classes: list[str]
    n: int
    accuracy: float | None
    f1: float | None
    top5: float | None
    loss: float | None
    confusion: list[list[int]]
    val_accuracy: float | None
    objective: float | None
    epochs: int
    steps: int
    seconds: float
    audit: dict[str, Any]
    environment: dict[str, Any]
    predictions: str | None = None

    def save(self, path: Path) -> None:
        """Write as JSON with a checksum, whole or not at all."""
        write_text(path, dumps_with_checksum(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> FoldResult:
        """Read what `save` wrote; what an earlier version wrote has no checksum, and is taken as it is.

        Raises:
            InputError: the file is not a result, or its values are not those that were written.
        """
        try:
            return cls(**loads_with_checksum(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{path} is not a fold's result ({error}). Delete it and start the run again; only that fold is redone."
            ) from error


@dataclass(frozen=True)
class CVResult:
    """Several folds of one cross-validation.

    Attributes:
        accuracy, f1, loss, objective: mean over folds; `*_sd` the standard deviation over folds (n - 1).
        leaky: the scores are too high by protocol.
        n: clips scored; seconds: their sum; confusion: their sum, rows are true classes.
        folds: one entry per fold, ascending.
        interval: 95 % of the pooled accuracy, resampling sources; None where the predictions were not read.
    """

    cv_id: str
    protocol: str
    leaky: bool
    seed: int
    n: int
    accuracy: float
    accuracy_sd: float
    f1: float
    f1_sd: float
    loss: float
    loss_sd: float
    objective: float
    seconds: float
    classes: list[str]
    confusion: list[list[int]]
    folds: list[dict[str, Any]]
    interval: tuple[float, float] | None = None

    def save(self, path: Path) -> None:
        """Write as JSON with a checksum, whole or not at all."""
        write_text(path, dumps_with_checksum(asdict(self)))


def summarise(results: Sequence[FoldResult]) -> CVResult:
    """Mean and spread over the folds of one cross-validation.

    Raises:
        InputError: a fold is missing, comes twice, or belongs to another cross-validation.
    """
    if not results:
        raise InputError("There is no finished fold to sum up.")
    first = results[0]
    others = sorted({r.cv_id for r in results} - {first.cv_id})
    if others:
        raise InputError(
            f"These folds belong to different cross-validations ({first.cv_id}, {', '.join(others)}): "
            "their settings, seeds or clips differ. Sum up one run's folder at a time."
        )
    counts = Counter(r.fold for r in results)
    twice = [k for k, count in counts.items() if count > 1]
    if twice:
        raise InputError(f"Fold {twice[0]} of {first.cv_id} comes twice; a clip may be scored once only.")
    missing = [k for k in first.folds if k not in counts]
    if missing or len(counts) != len(first.folds):
        raise InputError(
            f"Fold(s) {', '.join(map(str, missing))} of {first.cv_id} are not finished. Run the same command with "
            "fold=all: finished folds are reused."
        )
    ordered = sorted(results, key=lambda r: r.fold or 0)

    def over_folds(name: str) -> tuple[float, float]:
        values = [getattr(r, name) for r in ordered]
        return mean(values), stdev(values)

    accuracy, accuracy_sd = over_folds("accuracy")
    f1, f1_sd = over_folds("f1")
    loss, loss_sd = over_folds("loss")
    return CVResult(
        cv_id=first.cv_id,
        protocol=first.protocol,
        leaky=first.leaky,
        seed=first.seed,
        n=sum(r.n for r in ordered),
        accuracy=accuracy,
        accuracy_sd=accuracy_sd,
        f1=f1,
        f1_sd=f1_sd,
        loss=loss,
        loss_sd=loss_sd,
        objective=over_folds("objective")[0],
        seconds=sum(r.seconds for r in ordered),
        classes=first.classes,
        confusion=np.sum([r.confusion for r in ordered], axis=0).tolist(),
        folds=[
            {key: value for key, value in asdict(r).items() if key not in ("confusion", "classes", "folds")}
            for r in ordered
        ],
    )


def load_folds(run: Path) -> list[FoldResult]:
    """The finished, scored folds in a run's folder.

    Raises:
        InputError: the folder does not exist, or a result cannot be read.
    """
    if not run.is_dir():
        raise InputError(f"There is no run at {run}. A run's folder is outputs/<name>-<id>; train.py prints it.")
    results = [FoldResult.load(path) for path in sorted(run.glob("fold*/result.json"))]
    return [r for r in results if r.fold is not None]


def load_config(path: Path) -> dict[str, Any]:
    """Read a fold's ``config.yaml``, nested, with the keys of this version.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        stored: Any = OmegaConf.to_container(OmegaConf.load(path))
        return migrate(stored)
    except (OSError, OmegaConfBaseException, YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} cannot be read ({reason}). Redo the fold: the same command with rerun=true."
        ) from None


def load_curves(run: Path, folds: Sequence[int]) -> dict[str, list[np.ndarray]]:
    """What was logged at the end of every epoch: metric -> one array per fold; as many epochs as the fold had.

    A fold without metrics, or without one of them, is left out of it.

    Raises:
        InputError: a file of metrics is damaged.
    """
    curves: dict[str, list[np.ndarray]] = {}
    for fold in folds:
        path = run / f"fold{fold}" / "metrics.csv"
        if not path.is_file():
            continue
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
            for name in (name for name in (rows[0] if rows else ()) if name != "leaky"):
                # a metric that began later has empty cells before
                curves.setdefault(name, []).append(np.array([float(row[name] or "nan") for row in rows]))
        except (ValueError, TypeError, csv.Error) as error:
            raise InputError(f"{path} is damaged ({error}). Redo the fold, or delete it to do without.") from None
    return curves


@dataclass(frozen=True)
class Predictions:
    """The scored clips of a fold, in the file's order.

    Attributes:
        files, sources: (n,).
        targets: int64 (n,), as indices into the classes.
        logits: float32 (n, C).
    """

    files: tuple[str, ...]
    sources: tuple[str, ...]
    targets: np.ndarray
    logits: np.ndarray


def load_predictions(path: Path, classes: Sequence[str], digest: str | None = None) -> Predictions:
    """Read what `predictions_csv` wrote.

    Args:
        digest: `FoldResult.predictions` of the same fold; None compares nothing.

    Raises:
        InputError: the file cannot be read, is of other classes, or is not the one that the result is of.
    """
    number = {name: target for target, name in enumerate(classes)}
    try:
        content = path.read_bytes()
        if digest not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError("it is not the file that the result.json beside it is of")
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
        return Predictions(
            tuple(row["filename"] for row in rows),
            tuple(row["source"] for row in rows),
            np.array([number[row["target"]] for row in rows], dtype=np.int64),
            np.array([[row[f"logit_{name}"] for name in classes] for row in rows], dtype=np.float32),
        )
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}). Redo the fold: the same command with rerun=true.") from None


def predictions_csv(table: ClipTable, clips: np.ndarray, logits: np.ndarray) -> str:
    """A row per scored clip: file, fold, source, true and predicted class, then a logit per class.

    Args:
        clips: int64 (n,), indices into the table.
        logits: float32 (n, C); written so that reading gives the same float32.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["filename", "fold", "source", "target", "prediction", *(f"logit_{c}" for c in table.classes)])
    for clip, row in zip(clips, logits, strict=True):
        writer.writerow(
            [
                table.files[clip],
                int(table.folds[clip]),
                table.sources[clip],
                table.classes[table.targets[clip]],
                table.classes[int(row.argmax())],
                *(f"{value:.9g}" for value in row),
            ]
        )
    return out.getvalue()
