"""Names and texts of scores in tables."""

from __future__ import annotations

from collections.abc import Iterable

from soundfold.evaluation.cv_result import CVResult
from soundfold.evaluation.results import FoldResult

# in %; any other metric has its own name, and its value as it is
PERCENT = {
    "accuracy": "accuracy",
    "f1": "macro F1",
    "top3": "top-3 accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "map": "mAP",
    "auroc": "AUROC",
}


def metric_names(scored: Iterable[FoldResult | CVResult]) -> list[str]:
    """Return the names of the metrics of any of them: folds and runs may have been scored by different ones."""
    return [*dict.fromkeys(name for result in scored for name in result.metrics)]


def score_label(name: str, unit: str = " %") -> str:
    """Return the header of a score's column, with its unit if it is shown in %."""
    return f"{PERCENT[name]}{unit}" if name in PERCENT else name


def score_text(name: str, value: float | None) -> str:
    """Return a score for a cell: in % with two digits, others with four; empty if it is missing."""
    if value is None:
        return ""
    return f"{100 * value:.2f}" if name in PERCENT else f"{value:.4f}"


def mean_and_sd(total: CVResult, name: str) -> str:
    """Return mean ± standard deviation over folds of ``accuracy``, ``loss`` or a metric; no deviation of one fold."""
    if name in total.metrics:
        values = total.metrics[name], total.metrics_sd[name]
    else:
        values = getattr(total, name), getattr(total, f"{name}_sd")
    return " ± ".join(score_text(name, value) for value in values if value is not None)
