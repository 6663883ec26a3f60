"""The finished folds of one cross-validation, with mean and spread of their scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from soundfold.errors import InputError
from soundfold.evaluation.computed import check_alike
from soundfold.evaluation.results import FoldResult, with_metrics
from soundfold.io.atomic import dumps_with_checksum, write_text

# fields of `FoldResult` that a summary holds once, or not at all
NOT_IN_SUMMARY = ("confusion", "classes", "folds", "config", "definitions")


@dataclass(frozen=True)
class CVResult:
    """The finished folds of one cross-validation.

    Attributes:
        accuracy, loss, objective: mean over folds; ``*_sd`` is the standard deviation over folds (n - 1), None for a
            single fold.
        metrics, metrics_sd: the same of each metric that a fold has; None if another fold lacks it. In ``cv.json`` they
            are beside ``accuracy``.
        leaky: the protocol makes the scores too high.
        n, seconds, confusion: sums over folds; see `FoldResult`.
        folds: values of each `FoldResult` without those in `NOT_IN_SUMMARY`, ascending. ``accuracy`` is the exact ratio
            of the counts ``correct`` and ``n``.
        correct: number of clips classified correctly, of ``n``.
        all_folds: number of folds of the collection, finished or not.
        interval: 95 % interval of the pooled accuracy, see `accuracy_interval`; None if predictions were not read.
    """

    cv_id: str
    protocol: str
    leaky: bool
    seed: int
    n: int
    accuracy: float
    accuracy_sd: float | None
    metrics: dict[str, float | None]
    metrics_sd: dict[str, float | None]
    loss: float
    loss_sd: float | None
    objective: float
    seconds: float
    classes: list[str]
    confusion: list[list[int]]
    folds: list[dict[str, Any]]
    correct: int
    all_folds: int
    interval: tuple[float, float] | None = None

    def save(self, path: Path) -> None:
        """Write atomically as JSON with a checksum, unless the file has this content."""
        text = dumps_with_checksum(with_metrics(asdict(self)))
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)

    @property
    def is_complete(self) -> bool:
        """Return whether all folds are finished."""
        return len(self.folds) == self.all_folds

    @property
    def part(self) -> str:
        """Return ``1 of 5 folds`` for an incomplete cross-validation, else an empty string."""
        return "" if self.is_complete else f"{len(self.folds)} of {self.all_folds} folds"


# names that a metric cannot have: results and summaries hold metrics beside their fields
RESERVED_NAMES = {field.name for cls in (FoldResult, CVResult) for field in fields(cls)} | {"correct", "interval"}


def summarise(results: Sequence[FoldResult]) -> CVResult:
    """Compute mean and spread over the finished folds of one cross-validation.

    Raises:
        InputError: no fold is finished, one occurs twice, or one belongs to another cross-validation or was computed
            in another way.
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
    ordered = sorted(results, key=lambda r: r.fold or 0)
    check_alike(first.cv_id, {r.fold or 0: r.computed for r in ordered})

    accuracy, accuracy_sd = _mean_and_sd([Fraction(r.correct, r.n) for r in ordered])
    loss, loss_sd = _mean_and_sd([r.loss for r in ordered])
    metrics = {name: _mean_and_sd([r.metrics.get(name) for r in ordered]) for r in ordered for name in r.metrics}
    return CVResult(
        cv_id=first.cv_id,
        protocol=first.protocol,
        leaky=first.leaky,
        seed=first.seed,
        n=sum(r.n for r in ordered),
        accuracy=accuracy,
        accuracy_sd=accuracy_sd,
        metrics={name: value for name, (value, _) in metrics.items()},
        metrics_sd={name: sd for name, (_, sd) in metrics.items()},
        loss=loss,
        loss_sd=loss_sd,
        objective=mean(r.objective for r in ordered),  # type: ignore[type-var, arg-type]
        seconds=sum(r.seconds for r in ordered),
        classes=first.classes,
        confusion=np.sum([r.confusion for r in ordered], axis=0).tolist(),
        folds=[
            {key: value for key, value in r.as_dict().items() if key not in NOT_IN_SUMMARY}
            | {"correct": r.correct, "accuracy": r.correct / r.n}
            for r in ordered
        ],
        correct=sum(r.correct for r in ordered),
        all_folds=len(first.folds),
    )


def _mean_and_sd(values: Sequence[Any]) -> tuple[Any, Any]:
    """Return mean and standard deviation (n - 1) over folds; None for both if a value is missing."""
    if None in values:
        return None, None
    return float(mean(values)), float(stdev(values)) if len(values) > 1 else None
