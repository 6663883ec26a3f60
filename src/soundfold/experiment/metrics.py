"""Metrics of the configuration: building and checking them, and computing those that a finished fold lacks."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torchmetrics import Metric

from soundfold.config.targets import build_target, check_target, find_target
from soundfold.errors import InputError
from soundfold.evaluation.cv_result import RESERVED_NAMES
from soundfold.evaluation.predictions import load_fold_predictions
from soundfold.evaluation.results import FoldResult
from soundfold.experiment.user_modules import file_digests
from soundfold.io.console import console
from soundfold.models.metrics import compute_metric, score_clips
from soundfold.validation import metric_entries


def build_metrics(cfg: DictConfig, classes: int) -> dict[str, Metric]:
    """Build from ``metrics``: metrics by name.

    ``num_classes`` is set where the class takes it and the entry does not; ``top_k`` is at most the number of classes.

    Raises:
        InputError: a name is reserved, or an entry does not build a torchmetrics.Metric.
    """
    metrics = {}
    for name, entry in metric_entries(cfg).items():
        key = f"metrics.{name}"
        if name in RESERVED_NAMES:
            raise InputError(f"{key}: results have a field of this name. Give the metric another one.")
        arguments = _class_count(key, entry, classes)
        if isinstance(entry.get("top_k"), int) and arguments:
            entry = {**entry, "top_k": min(entry["top_k"], classes)}
        metrics[name] = build_target(key, entry, Metric, **arguments)
    return metrics


def _class_count(key: str, entry: dict[str, Any], classes: int) -> dict[str, int]:
    takes = signature(find_target(key, entry["_target_"], Metric)).parameters
    return {"num_classes": classes} if "num_classes" in takes else {}


def check_targets(cfg: DictConfig) -> None:
    """Refuse entries whose ``_target_`` is not a torchmetrics.Metric with these options; nothing is called.

    Raises:
        InputError: see `check_target`.
    """
    for name, entry in metric_entries(cfg).items():
        key = f"metrics.{name}"
        check_target(key, entry, Metric, **_class_count(key, entry, classes=2))


def check_metrics(cfg: DictConfig, classes: int) -> None:
    """Compute each metric of made-up probabilities, two clips of each class.

    Raises:
        InputError: see `build_metrics`; or a metric cannot be computed, or is not a single number.
    """
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.randn(2 * classes, classes, generator=generator, dtype=torch.float64).softmax(dim=1)
    targets = torch.arange(2 * classes) % classes
    for name, metric in build_metrics(cfg, classes).items():
        try:
            compute_metric(metric, probabilities, targets)
        except Exception as error:  # of an arbitrary class
            raise InputError(
                f"metrics.{name}: {cfg.metrics[name]._target_} cannot score probabilities of {classes} classes: "
                f"{str(error).rstrip('.')}. A metric takes probabilities (n, C) and targets (n,), and computes one "
                "number."
            ) from error


def monitor_mode(cfg: DictConfig) -> str:
    """Return whether the smallest (``min``) or largest (``max``) value of ``selection.monitor`` is best.

    Raises:
        InputError: a metric's class does not tell.
    """
    name = cfg.selection.monitor.removeprefix("val/")
    if name in ("loss", "accuracy"):
        return "min" if name == "loss" else "max"
    # of the class, else of an object: torchmetrics.Accuracy chooses its class when it is called
    target = find_target(f"metrics.{name}", cfg.metrics[name]._target_, Metric)
    higher_is_better = getattr(target, "higher_is_better", None)
    if higher_is_better is None:
        higher_is_better = build_metrics(cfg, classes=2)[name].higher_is_better
    if higher_is_better is None:
        raise InputError(
            f"selection.monitor={cfg.selection.monitor}: {cfg.metrics[name]._target_} does not tell whether larger or "
            "smaller values are better. Set its attribute higher_is_better."
        )
    return "max" if higher_is_better else "min"


def flip_objective(cfg: DictConfig, value: float) -> float:
    """Convert a value of ``selection.monitor`` to an objective, which is maximized, or back."""
    return -value if monitor_mode(cfg) == "min" else value


def add_metrics(cfg: DictConfig, folder: Path, result: FoldResult) -> FoldResult:
    """Compute the metrics that a finished fold lacks, or that were defined otherwise, from its predictions.

    The fold's ``result.json`` is written again with them.

    Args:
        cfg: configuration with the metrics that are wanted.
        folder: of the run.
        result: of the finished fold.

    Raises:
        InputError: the fold's predictions cannot be read, or do not match its result.
    """
    definitions = {name: new for name, new in metric_definitions(cfg).items() if result.definitions.get(name) != new}
    if result.accuracy is None or not definitions:
        return result
    predictions = load_fold_predictions(folder, result)
    metrics = build_metrics(cfg, len(result.classes))
    scores = score_clips(
        {name: metrics[name] for name in definitions},
        torch.from_numpy(predictions.logits),
        torch.from_numpy(predictions.targets),
    )
    result = replace(
        result,
        metrics={**result.metrics, **metric_values(scores)},
        definitions={**result.definitions, **definitions},
    )
    result.save(folder / f"fold{result.fold}" / "result.json")
    console.print(f"Computed from its predictions: {', '.join(definitions)}.")
    return result


def metric_definitions(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """Return the entries of ``metrics``, with the SHA-256 of the user's modules that they name."""
    entries = metric_entries(cfg)
    digests = {name: file_digests({name: entry}) for name, entry in entries.items()}
    return {name: {**entry, "modules": digests[name]} if digests[name] else entry for name, entry in entries.items()}


def metric_values(scores: dict[str, float]) -> dict[str, Any]:
    """Return the metrics of `score_clips` without the accuracy, as in a result: None for a value that is not finite."""
    return {name: value if isfinite(value) else None for name, value in scores.items() if name != "accuracy"}
