"""Results of folds and cross-validations, and the files that hold them."""

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

from soundfold.config import migrate, read_stored
from soundfold.data.tables import ClipTable
from soundfold.errors import InputError
from soundfold.io.atomic import dumps_with_checksum, loads_with_checksum, write_text

# keys of `FoldResult.audit` in results of the first edition
RENAMED_AUDIT_KEYS = {"met_before": "seen_before"}
REDO = "Redo the fold: the same command with rerun=true."


@dataclass(frozen=True)
class FoldResult:
    """One fold, trained and scored once.

    Attributes:
        cv_id: id of its cross-validation.
        fold: fold number, or None for a model trained on every clip, which has no scores.
        folds: numbers of all folds of the collection.
        protocol, seed, classes: of the run.
        leaky: the protocol makes the scores too high, see `soundfold.data.splits.Protocol`.
        n: clips scored.
        accuracy, f1, top5: fractions of 1; f1 is the macro average.
        loss: mean cross entropy of the scored clips, nats.
        confusion: counts, rows are true classes.
        val_accuracy: fraction of 1, of the scored weights; None if the protocol has no validation.
        objective: value for a search: the validation metric if there is one, otherwise accuracy.
        epochs, steps: completed at the end of the fold.
        seconds: wall time of the process that finished it; without the earlier time of a resumed fold.
        audit: see `soundfold.data.leakage.Audit`.
        environment: commit, versions of libraries, device.
        predictions: SHA-256 of predictions.csv in the same folder; None without scores, and in early versions.
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
        """Write atomically as JSON with a checksum."""
        write_text(path, dumps_with_checksum(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> FoldResult:
        """Read a file of `save`; files of early versions have no checksum.

        Raises:
            InputError: the file is not a result, or its checksum does not match.
        """
        try:
            values = loads_with_checksum(path.read_text())
            values["audit"] = {RENAMED_AUDIT_KEYS.get(key, key): value for key, value in values["audit"].items()}
            return cls(**values)
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(
                f"{path} is not a fold's result ({error}). Delete it and start the run again; only this fold is redone."
            ) from error


@dataclass(frozen=True)
class CVResult:
    """All folds of one cross-validation.

    Attributes:
        accuracy, f1, loss, objective: mean over folds; ``*_sd`` is the standard deviation over folds (n - 1).
        leaky: the protocol makes the scores too high.
        n, seconds, confusion: sums over folds; see `FoldResult`.
        folds: values of each `FoldResult` without its confusion and classes, ascending.
        interval: 95 % interval of the pooled accuracy, see `source_interval`; None if predictions were not read.
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
        """Write atomically as JSON with a checksum."""
        write_text(path, dumps_with_checksum(asdict(self)))


def summarise(results: Sequence[FoldResult]) -> CVResult:
    """Compute mean and spread over the folds of one cross-validation.

    Raises:
        InputError: a fold is missing, occurs twice, or belongs to another cross-validation.
    """
    if not results:
        raise InputError("There is no finished fold to summarize.")
    first = results[0]
    others = sorted({r.cv_id for r in results} - {first.cv_id})
    if others:
        raise InputError(
            f"These folds belong to different cross-validations ({first.cv_id}, {', '.join(others)}): "
            "their settings, seeds or clips differ. Summarize the folder of one run."
        )
    counts = Counter(r.fold for r in results)
    repeated = [fold for fold, count in counts.items() if count > 1]
    if repeated:
        raise InputError(f"Fold {repeated[0]} of {first.cv_id} occurs twice; each clip may be scored only once.")
    missing = [fold for fold in first.folds if fold not in counts]
    if missing or len(counts) != len(first.folds):
        raise InputError(
            f"Fold(s) {', '.join(map(str, missing))} of {first.cv_id} are not finished. Run the same command with "
            "fold=all: finished folds are reused."
        )
    ordered = sorted(results, key=lambda r: r.fold or 0)

    scores: dict[str, Any] = {}
    for name in ("accuracy", "f1", "loss"):
        values = [getattr(r, name) for r in ordered]
        scores |= {name: mean(values), f"{name}_sd": stdev(values)}
    return CVResult(
        cv_id=first.cv_id,
        protocol=first.protocol,
        leaky=first.leaky,
        seed=first.seed,
        n=sum(r.n for r in ordered),
        objective=mean(r.objective for r in ordered),  # type: ignore[type-var, arg-type]
        seconds=sum(r.seconds for r in ordered),
        classes=first.classes,
        confusion=np.sum([r.confusion for r in ordered], axis=0).tolist(),
        folds=[
            {key: value for key, value in asdict(r).items() if key not in ("confusion", "classes", "folds")}
            for r in ordered
        ],
        **scores,
    )


def load_folds(run: Path) -> list[FoldResult]:
    """Read the finished, scored folds of a run's folder.

    Raises:
        InputError: the folder does not exist, or a result cannot be read.
    """
    if not run.is_dir():
        raise InputError(f"There is no run at {run}. A run's folder is outputs/<name>-<id>; train.py prints it.")
    results = [FoldResult.load(path) for path in sorted(run.glob("fold*/result.json"))]
    return [r for r in results if r.fold is not None]


def load_config(path: Path) -> dict[str, Any]:
    """Read the config.yaml of a fold, with its keys migrated to this version.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return migrate(read_stored(path))
    except (OSError, ValueError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read ({reason}). {REDO}") from None


def load_curves(run: Path, folds: Sequence[int]) -> dict[str, list[np.ndarray]]:
    """Read the learning curves of folds: metric -> one array (epochs,) per fold that logged it; nan if not computed.

    Raises:
        InputError: a metrics.csv is damaged.
    """
    curves: dict[str, list[np.ndarray]] = {}
    for fold in folds:
        path = run / f"fold{fold}" / "metrics.csv"
        if not path.is_file():
            continue
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
            for name in rows[0] if rows else ():
                if name != "leaky":
                    curves.setdefault(name, []).append(np.array([float(row[name] or "nan") for row in rows]))
        except (ValueError, TypeError, csv.Error) as error:
            raise InputError(f"{path} is damaged ({error}). Redo the fold, or delete the file.") from None
    return curves


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
        InputError: the file cannot be read, has other classes, or has another SHA-256.
    """
    index = {name: target for target, name in enumerate(classes)}
    try:
        content = path.read_bytes()
        if digest not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError("it is not the file that result.json refers to")
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
        return Predictions(
            tuple(row["filename"] for row in rows),
            tuple(row["source"] for row in rows),
            np.array([index[row["target"]] for row in rows], dtype=np.int64),
            np.array([row[f"logit_{name}"] for row in rows for name in classes], np.float32).reshape(-1, len(classes)),
        )
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}). {REDO}") from None


def predictions_csv(table: ClipTable, clips: np.ndarray, logits: np.ndarray) -> str:
    """Return a CSV with a row per scored clip: file, fold, source, true and predicted class, and a logit per class.

    Args:
        clips: int64 (n,), indices into the table.
        logits: float32 (n, C); nine digits, so that they are read back exactly.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["filename", "fold", "source", "target", "prediction", *(f"logit_{c}" for c in table.classes)])
    for clip, row in zip(clips, logits, strict=True):
        target, prediction = table.classes[table.targets[clip]], table.classes[int(row.argmax())]
        labels = [table.files[clip], int(table.folds[clip]), table.sources[clip], target, prediction]
        writer.writerow([*labels, *(f"{value:.9g}" for value in row)])
    return out.getvalue()
