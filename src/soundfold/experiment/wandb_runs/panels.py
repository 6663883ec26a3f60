"""Panels of W&B over the runs that this package logs; they need the extra ``workspace``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr

from soundfold.experiment.wandb_runs.cv_tables import HEAT_MAP, RECALL_FIELDS

CURVES = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
# of folds, with the name of the axis
FOLD_METRICS = {
    "train/loss": "Training loss of an epoch",
    "val/loss": "Validation loss",
    "val/accuracy": "Validation accuracy",
    "train/loss_step": "Training loss of a step",
    "train/grad_norm": "Norm of the gradient",
    "train/lr": "Learning rate",
    "time/clips_per_second": "Training clips per second",
    "device/memory_gib": "Peak memory of the device, GiB",
}


def leaderboard_panels() -> list[Any]:
    """Return accuracies of cross-validations with their interval, and the settings in which they differ."""
    interval: list[Any] = ["cv/accuracy", "cv/accuracy_low", "cv/accuracy_high"]
    return [
        wr.BarPlot(title="Accuracy: mean over folds, and 95 % interval", metrics=interval),
        wr.BarPlot(title="Accuracy: standard deviation over folds", metrics=["cv/accuracy_sd"]),
        wr.BarPlot(title="Expected calibration error", metrics=["cv/calibration_error"]),
        wr.RunComparer(diff_only="split"),
    ]


def band_panels() -> list[Any]:
    """Return curves of cross-validations: mean over folds, minimum and maximum."""
    return [
        wr.LinePlot(
            title=f"{metric}: mean, minimum and maximum over folds",
            x="cv/epoch",
            y=[f"cv/{band}/{metric}" for band in ("mean", "low", "high")],
            title_x="epoch",
        )
        for metric in CURVES
    ]


def fold_panels() -> list[Any]:
    """Return curves of folds, grouped by cross-validation."""
    return [
        wr.LinePlot(
            title=title,
            x="trainer/global_step",
            y=[metric],
            groupby="Group",
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            title_x="step",
        )
        for metric, title in FOLD_METRICS.items()
    ]


def sweep_panels(keys: Sequence[str]) -> list[Any]:
    """Return parallel coordinates of settings and objective, and the importance of each setting.

    Args:
        keys: dotted keys of the configuration.
    """
    columns = [wr.ParallelCoordinatesPlotColumn(wr.Config(key), display_name=key) for key in keys]
    columns.append(wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric("cv/objective"), display_name="objective"))
    return [
        wr.ParallelCoordinatesPlot(title="Settings and objective", columns=columns),
        wr.ParameterImportancePlot(with_respect_to="cv/objective"),
    ]


def class_panels() -> list[Any]:
    """Return recall by class and fold, the confusion matrix, and the calibration."""
    # W&B names the columns of its own confusion matrix by the fields
    counts = {name: name for name in RECALL_FIELDS}
    lines = {"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"}
    return [
        _chart("cv/recall_table", HEAT_MAP, RECALL_FIELDS, "Recall by class and fold"),
        _chart("cv/confusion_table", HEAT_MAP, counts, "Confusion matrix, all folds"),
        _chart("cv/calibration_table", "wandb/lineseries/v0", lines, "Accuracy by confidence"),
        wr.WeavePanelSummaryTable(table_name="cv/classes"),
    ]


def mistake_panels() -> list[Any]:
    """Return the table of all predictions, mistakes first, and the audits."""
    return [wr.WeavePanelSummaryTable(table_name=f"cv/{name}") for name in ("predictions", "audit", "shortcuts")]


def _chart(table: str, chart: str, fields: dict[str, str], title: str) -> Any:
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": table}},
        chart_name=chart,
        chart_fields=fields,
        chart_strings={"title": title},
    )
