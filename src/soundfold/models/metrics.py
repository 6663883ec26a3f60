"""Scores of clips by metrics of torchmetrics."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score


def default_metrics(classes: int) -> dict[str, Metric]:
    """Return macro F1 over all classes, also those without a clip, and top-5 accuracy."""
    return {
        "f1": MulticlassF1Score(classes, average="macro"),
        "top5": MulticlassAccuracy(classes, average="micro", top_k=min(5, classes)),
    }


@torch.no_grad()
def score_clips(metrics: Mapping[str, Metric], logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Score clips by their accuracy and by each metric; nan for one that cannot be computed, after a warning.

    Metrics see all clips at once, as probabilities on the CPU, so that a score depends neither on the batches nor on
    the number of devices, and is the same when it is computed from stored logits.

    Args:
        metrics: by name, see `compute_metric`.
        logits: (n, C).
        targets: int64 (n,).

    Returns:
        ``accuracy``, then the metrics in their order, with the precision of float32.
    """
    # float64, in which probabilities near 1 do not become equal
    probabilities, targets = logits.cpu().double().softmax(dim=1), targets.cpu()
    scores = {"accuracy": float((probabilities.argmax(dim=1) == targets).float().mean())}
    for name, metric in metrics.items():
        try:
            scores[name] = compute_metric(metric, probabilities, targets)
        except Exception as error:  # of an arbitrary class; the weights that it scores took hours to train
            scores[name] = float("nan")
            warnings.warn(f"The metric {name} of {len(targets)} clips cannot be computed: {error}", stacklevel=2)
    return scores


def compute_metric(metric: Metric, probabilities: Tensor, targets: Tensor) -> float:
    """Compute a metric of probabilities, float64 (n, C), and targets, int64 (n,), both on the CPU.

    Raises:
        ValueError: the metric is not a single number. It may raise other errors.
    """
    # each process has the clips of all devices, which torchmetrics would gather again
    metric.distributed_available_fn = _not_distributed
    metric.reset()
    metric.update(probabilities, targets)
    value: Any = torch.as_tensor(metric.compute())
    metric.reset()
    if value.numel() != 1:
        raise ValueError(f"it has the shape {tuple(value.shape)}, not that of a single number")
    return float(value.float())


def _not_distributed() -> bool:
    return False
