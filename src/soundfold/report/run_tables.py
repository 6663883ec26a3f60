"""Tables of a run page, from a finished run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from soundfold.config import compose_config
from soundfold.data.groups import esc50_groups
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.metrics import ClassMetrics, class_metrics, merge_classes
from soundfold.report.config_diff import differing_keys
from soundfold.report.page import display_name

AUDIT_LABELS = {
    "train": "training clips",
    "images": "training images",
    "val": "validation clips",
    "test": "scored clips",
    "same_clip": "scored clips used in training",
    "same_source_and_class": "… sharing source and class with a training clip",
    "same_source": "… sharing a source with a training clip",
    "same_audio": "… with the same audio as a training clip",
    "seen_before": "… that trained or selected the initial weights",
    "unknown_training": "… embedded by a model whose training data are unknown",
    "val_copies": "validation images made from training clips",
}


@dataclass(frozen=True)
class Cell:
    """A nonzero cell of the confusion matrix.

    Attributes:
        id: HTML id, the target of the links in `plots.confusion_matrix`.
        true, predicted: class names.
        rows: file, fold, source and confidence (%) of its clips, most confident first.
    """

    id: str
    true: str
    predicted: str
    rows: list[list[Any]]

    @property
    def title(self) -> str:
        """Return ``dog predicted as rooster: 2 clips``."""
        outcome = "correct" if self.true == self.predicted else f"predicted as {display_name(self.predicted)}"
        return f"{display_name(self.true)} {outcome}: {len(self.rows)} clip{'s' * (len(self.rows) > 1)}"


def confusion_cells(run: RunResult, confidence: np.ndarray) -> list[Cell]:
    """List the nonzero cells, mistakes first."""
    clips: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in np.argsort(-confidence, kind="stable"):
        clips[int(run.targets[i]), int(run.predictions[i])].append(int(i))
    classes = run.total.classes
    return [
        Cell(
            f"cell-{true}-{predicted}",
            classes[true],
            classes[predicted],
            [[run.clips[i][1], run.clips[i][0], run.sources[i], f"{100 * confidence[i]:.1f}"] for i in indices],
        )
        for (true, predicted), indices in sorted(clips.items(), key=lambda cell: (cell[0][0] == cell[0][1], cell[0]))
    ]


def most_confused(cells: Sequence[Cell], run: RunResult, limit: int = 10) -> list[tuple[Cell, int]]:
    """Return the mistakes of the most frequent class pairs, each with the number of clips of the true class."""
    clips = dict(zip(run.total.classes, np.sum(run.total.confusion, axis=1), strict=True))
    mistakes = [cell for cell in cells if cell.true != cell.predicted]
    return [(cell, int(clips[cell.true])) for cell in sorted(mistakes, key=lambda cell: -len(cell.rows))[:limit]]


def class_rows(confusion: np.ndarray, classes: Sequence[str]) -> list[list[Any]]:
    """Return name, precision, recall, F1 (%) and clips of each class."""
    return _metric_rows([display_name(name) for name in classes], class_metrics(confusion))


def group_rows(confusion: np.ndarray, classes: Sequence[str]) -> list[list[Any]]:
    """Return metrics of ESC-50's major groups and the mean F1 (%) of each group's classes; none for other classes."""
    grouped = esc50_groups(classes)
    if grouped is None:
        return []
    names, group_of = grouped
    rows = _metric_rows(names, class_metrics(merge_classes(confusion, group_of)))
    f1 = class_metrics(confusion).f1
    return [[*row, f"{100 * f1[group_of == group].mean():.1f}"] for group, row in enumerate(rows)]


def _metric_rows(names: Sequence[str], metrics: ClassMetrics) -> list[list[Any]]:
    columns = (metrics.precision, metrics.recall, metrics.f1)
    return [
        [name, *(f"{100 * column[i]:.1f}" for column in columns), int(metrics.clips[i])] for i, name in enumerate(names)
    ]


def audit_rows(run: RunResult) -> list[list[Any]]:
    """Return a row per count of the split's audit, a column per fold."""
    audits = [fold["audit"] for fold in run.total.folds]
    return [[label, *(_count(audit.get(key, "—")) for audit in audits)] for key, label in AUDIT_LABELS.items()]


def _count(value: Any) -> Any:
    return "unknown" if value is None else value


def changed_settings(config: dict[str, Any]) -> list[list[str]]:
    """Return key, default and value of the settings that affect results and differ from the default configuration."""
    default: Any = OmegaConf.to_container(compose_config(), resolve=True)
    return [[key, *values] for key, values in sorted(differing_keys([default, config]).items())]


def commands(run: RunResult) -> list[tuple[str, list[int]]]:
    """Return the distinct commands that trained the folds, each with its folds; none of results without a command."""
    folds: dict[str, list[int]] = defaultdict(list)
    for fold in run.total.folds:
        if fold["command"] is not None:
            folds[fold["command"]].append(fold["fold"])
    return list(folds.items())


def environments(run: RunResult) -> list[dict[str, Any]]:
    """Return the distinct environments that trained the folds: property rows, folds, total seconds."""
    distinct: dict[str, dict[str, Any]] = {}
    for fold in run.total.folds:
        environment = {**fold["environment"], **fold["computed"]}
        rows = [[key, value] for key, value in environment.items() if key != "versions"]
        rows += [[name, version] for name, version in environment.get("versions", {}).items()]
        entry = distinct.setdefault(repr(environment), {"rows": rows, "folds": [], "seconds": 0.0})
        entry["folds"].append(fold["fold"])
        entry["seconds"] += fold["seconds"]
    return list(distinct.values())
