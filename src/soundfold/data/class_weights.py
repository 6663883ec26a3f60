"""Weights of the classes in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np

from soundfold.errors import ArgumentError

KINDS = ("none", "balanced")


def class_weights(kind: str | Sequence[float], targets: np.ndarray, classes: int) -> np.ndarray | None:
    """Return the weight of each class, with a mean of 1 over the training clips.

    So only ratios of weights matter, and the loss, a mean over clips, has the scale of an unweighted one.

    Args:
        kind: ``none``; ``balanced``, which makes every class count equally, whatever the number of its clips; or one
            positive number per class, in the order of the table's targets.
        targets: int64 (clips,), of the training clips.
        classes: C.

    Returns:
        float64 (C,); 0 for a class without a training clip. None for ``none``.

    Raises:
        ArgumentError: ``kind`` is none of these.
    """
    counts = np.bincount(targets, minlength=classes)
    if isinstance(kind, str) or not isinstance(kind, Sequence):
        if kind not in KINDS:
            raise ArgumentError(
                f"`class_weights`={kind} must be {' or '.join(KINDS)}, or a list with one number per class."
            )
        if kind == "none":
            return None
        weights = 1 / np.maximum(counts, 1)
    else:
        if len(kind) != classes or not all(_is_positive(weight) for weight in kind):
            raise ArgumentError(
                f"`class_weights`={list(kind)} must be one positive number for each of the {classes} classes, in the "
                "order of the table's targets."
            )
        weights = np.array(kind, dtype=np.float64)
    weights = np.where(counts > 0, weights, 0)
    return weights * counts.sum() / (weights * counts).sum()


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0
