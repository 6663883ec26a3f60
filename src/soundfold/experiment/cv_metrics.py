"""The numbers of a cross-validation that loggers show: scores with their spread, and curves over folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.metrics import calibration, probabilities
from soundfold.evaluation.results import load_curves

Curves = Mapping[str, Mapping[int, np.ndarray]]


def cv_scores(run: RunResult) -> dict[str, float]:
    """Return the mean of each score over folds, its standard deviation, and the interval of the pooled accuracy.

    A score that a fold lacks is omitted, and so is the standard deviation of one fold.
    """
    total = run.total
    scores = {name: getattr(total, name) for name in ("accuracy", "accuracy_sd", "loss", "loss_sd", "objective")}
    scores |= {name: getattr(total, name) for name in ("n", "seconds")}
    scores |= total.metrics | {f"{name}_sd": value for name, value in total.metrics_sd.items()}
    scores["accuracy_low"], scores["accuracy_high"] = run.interval
    confidence = probabilities(run.logits).max(axis=1)
    scores["calibration_error"] = calibration(confidence, run.correct).error
    return {f"cv/{name}": value for name, value in scores.items() if value is not None}


def fold_curves(folder: Path, folds: Sequence[int]) -> Curves:
    """Read the learning curves of a run: metric -> fold -> (epochs,), nan for an epoch without the metric."""
    curves: dict[str, dict[int, np.ndarray]] = {}
    for fold in folds:
        for metric, (values,) in load_curves(folder, [fold]).items():
            if "/" in metric:
                curves.setdefault(metric, {})[fold] = values
    return curves


def curve_rows(curves: Curves) -> Iterator[dict[str, float]]:
    """Yield a row per epoch, with mean, minimum and maximum of each metric over the folds that have it.

    The names are such as ``cv/mean/train/loss``, ``cv/low/train/loss`` and ``cv/high/train/loss``; ``cv/epoch`` is the
    epoch, from 1.
    """
    epochs = max((len(values) for lines in curves.values() for values in lines.values()), default=0)
    for epoch in range(epochs):
        row: dict[str, float] = {}
        for metric, lines in curves.items():
            values = [line[epoch] for line in lines.values() if epoch < len(line) and np.isfinite(line[epoch])]
            if values:
                row[f"cv/mean/{metric}"] = float(np.mean(values))
                row[f"cv/low/{metric}"], row[f"cv/high/{metric}"] = float(min(values)), float(max(values))
        if row:
            yield {"cv/epoch": epoch + 1, **row}
