"""Results of folds, and the files that hold them."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from soundfold.config import migrate, read_stored
from soundfold.config.frozen import first_metrics
from soundfold.errors import InputError
from soundfold.io.atomic import dumps_with_checksum, loads_with_checksum, write_text
from soundfold.io.reading import check_types, read_text

# bytes; a thousand classes have a confusion matrix of 8 MB
MAX_JSON = 64_000_000
# keys of `FoldResult.audit` in results of the first edition
RENAMED_AUDIT_KEYS = {"met_before": "seen_before"}
FOLD_FOLDER = re.compile("fold([1-9][0-9]*|none)")
REDO = "Redo the fold: the same command with rerun=true."


@dataclass(frozen=True)
class FoldResult:
    """One fold, trained and scored once; in a trial of a search it is validated only, and ``accuracy`` is None.

    Attributes:
        cv_id: id of its cross-validation.
        fold: fold number, or None for a model trained on every clip, which has no scores.
        folds: numbers of all folds of the collection.
        protocol, seed, classes: of the run.
        leaky: the protocol makes the scores too high, see `soundfold.data.splits.Protocol`.
        n: clips scored.
        accuracy: fraction of 1.
        loss: mean cross entropy of the scored clips, nats.
        metrics: the other scores by name; None if one could not be computed. In files they are beside ``accuracy``.
        confusion: counts, rows are true classes.
        val_accuracy: fraction of 1, of the scored weights; None if the protocol has no validation.
        objective: value for a search: with ``nested``, ``selection.monitor``, negated if lower is better; otherwise
            accuracy.
        epochs, steps: completed at the end of the fold.
        seconds: wall time of the process that finished it; without the earlier time of a resumed fold.
        audit: see `soundfold.data.leakage.Audit`.
        environment: commit, versions of libraries, device.
        chosen_epoch: the epoch whose weights were scored, from 1; None if it was the last.
        predictions: SHA-256 of predictions.csv in the same folder; None without scores.
        config: SHA-256 of config.yaml in the same folder; None in results of the first edition.
        command: that trained it, as typed; None outside of the command line, and in results of older versions.
        modules: SHA-256 of the user's modules that the configuration names; None in results of older versions.
        definitions: entry of the configuration that each of the metrics was computed by.
        computed: properties that its configuration leaves open, see `soundfold.evaluation.computed`; older results lack
            some.
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
    metrics: dict[str, float | None]
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
    config: str | None = None
    chosen_epoch: int | None = None
    command: str | None = None
    modules: dict[str, str] | None = None
    definitions: dict[str, Any] = field(default_factory=first_metrics)
    computed: dict[str, Any] = field(default_factory=dict)

    @property
    def correct(self) -> int:
        """Number of scored clips that are classified correctly; older results have an accuracy in float32."""
        return round((self.accuracy or 0.0) * self.n)

    def save(self, path: Path) -> None:
        """Write atomically as JSON with a checksum."""
        write_text(path, dumps_with_checksum(self.as_dict()))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, with the metrics in place of ``metrics``."""
        return with_metrics(asdict(self))

    @classmethod
    def load(cls, path: Path) -> FoldResult:
        """Read a file of `save`, and check its checksum and that of config.yaml.

        Raises:
            InputError: the file is not a result, or the values or the configuration are not as they were written.
        """
        try:
            values = loads_with_checksum(read_text(path, MAX_JSON))
            values["audit"] = {RENAMED_AUDIT_KEYS.get(key, key): value for key, value in values["audit"].items()}
            definitions = values.setdefault("definitions", first_metrics())
            values["metrics"] = {name: values.pop(name) for name in definitions}
            check_types(cls, values)
            result = cls(**values)
            result._check_values()
            if result.config is not None:
                content = read_text(path.parent / "config.yaml", MAX_JSON)
                if hashlib.sha256(content.encode()).hexdigest() != result.config:
                    raise ValueError("config.yaml in its folder was changed since")
            return result
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(
                f"{path} is not a fold's result ({error}). Delete it and start the run again; only this fold is redone."
            ) from error

    def _check_values(self) -> None:
        """Raise `ValueError` for values that no fold has, and that would fail in tables and figures."""
        if not all(type(self.audit.get(key, 0)) in (int, NoneType) for key in ("train", *self.audit)):
            raise ValueError("its audit has a value that is not a count")
        if "train" not in self.audit or not isinstance(self.environment.get("versions", {}), dict):
            raise ValueError("its audit or its environment is incomplete")
        if self.fold is None:
            return
        if self.accuracy is None and not self.n:
            # of a trial
            if self.fold not in self.folds or self.objective is None or not isfinite(self.objective):
                raise ValueError("its fold or its objective is missing, or not finite")
            return
        # the comparison is false for nan
        if self.accuracy is None or not -1e-6 <= self.accuracy <= 1 + 1e-6:
            raise ValueError("the accuracy is missing, or not between 0 and 1")
        if not all(value is None or isfinite(value) for value in self.metrics.values()):
            raise ValueError("a metric is not a finite number")
        numbers = (self.loss, self.objective)
        if not all(number is not None and isfinite(number) for number in numbers) or not 0 <= self.seconds < 1e10:
            raise ValueError("its loss, objective or seconds is missing, or not a finite number")
        sizes = {len(self.confusion), *map(len, self.confusion)}
        if self.fold not in self.folds or len(self.folds) < 2 or self.n < 1 or sizes != {len(self.classes)}:
            raise ValueError("its fold, folds, n, classes or confusion do not match")


def with_metrics(values: dict[str, Any]) -> dict[str, Any]:
    """Replace ``metrics`` and ``metrics_sd`` by their entries."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if key == "metrics":
            flat |= value
        elif key == "metrics_sd":
            flat |= {f"{name}_sd": sd for name, sd in value.items()}
        else:
            flat[key] = value
    return flat


def fold_folders(run: Path) -> dict[str, Path]:
    """Return the folders of a run's folds by name: ``1``, ``2``, ..., ascending, and last ``none``.

    Other folders, such as the copies ``fold1.bak``, ``fold1 (copy)`` and ``fold01``, are not part of the run.
    """
    found = {path.name.removeprefix("fold"): path for path in run.glob("fold*/") if FOLD_FOLDER.fullmatch(path.name)}
    return dict(sorted(found.items(), key=lambda item: (item[0] == "none", len(item[0]), item[0])))


def load_folds(run: Path) -> list[FoldResult]:
    """Read the finished, scored folds of a run's folder, ascending.

    Raises:
        InputError: the folder does not exist, or a result cannot be read or is that of another fold.
    """
    if not run.is_dir():
        raise InputError(
            f"There is no run at {run}. A run's folder is outputs/<name>-<id>; `soundfold train` prints it."
        )
    results = []
    for name, folder in fold_folders(run).items():
        if (path := folder / "result.json").exists():  # a folder of that name is an error, not a missing fold
            result = FoldResult.load(path)
            if name != str(result.fold or "none"):
                raise InputError(
                    f"{path} is the result of fold {result.fold or 'none'}, so {folder.name} is a copy. Remove it."
                )
            results.append(result)
    return [r for r in results if r.accuracy is not None]


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
    """Read the learning curves of folds: metric -> one array (epochs,) per fold that logged it.

    A value is nan before the first one. Later epochs without validation repeat the last one.

    Raises:
        InputError: a metrics.csv is damaged.
    """
    curves: dict[str, list[np.ndarray]] = {}
    for fold in folds:
        path = run / f"fold{fold}" / "metrics.csv"
        if not path.is_file():
            continue
        try:
            rows = list(csv.DictReader(io.StringIO(read_text(path, MAX_JSON), newline="")))
            for name in rows[0] if rows else ():
                if name != "leaky":
                    curves.setdefault(name, []).append(np.array([float(row[name] or "nan") for row in rows]))
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise InputError(f"{path} is damaged ({error}). Redo the fold, or delete the file.") from None
    return curves
