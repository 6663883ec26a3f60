"""What predictions say class by class, group by group, and of their own certainty. Pure functions on arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15
HOTTEST = 20.0


@dataclass(frozen=True)
class ClassMetrics:
    """One entry per class; 0 where nothing was predicted, or nothing there to be found.

    Attributes:
        precision: of the clips predicted as the class, the fraction that belong to it.
        recall: of the class's clips, the fraction predicted as it.
        f1: their harmonic mean.
        clips: how many the class has.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    clips: np.ndarray


def class_metrics(confusion: np.ndarray) -> ClassMetrics:
    """Precision, recall and F1 of a confusion matrix (C, C) whose rows are true classes."""
    right, predicted, clips = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    return ClassMetrics(
        right / np.maximum(predicted, 1),
        right / np.maximum(clips, 1),
        2 * right / np.maximum(predicted + clips, 1),
        clips,
    )


def merge_classes(confusion: np.ndarray, group_of: np.ndarray) -> np.ndarray:
    """The confusion matrix of groups of classes: (C, C) and int (C,) with values below G -> (G, G)."""
    member = np.eye(group_of.max() + 1, dtype=confusion.dtype)[group_of]
    return member.T @ confusion @ member


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax, float64: (n, C) -> (n, C)."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Calibration:
    """How far confidence can be believed.

    Attributes:
        clips: (bins,), predictions whose confidence lies in each of equal parts of (0, 1].
        confidence, accuracy: (bins,), their means; not a number where a part is empty.
        error: expected calibration error, the mean over clips of their part's |accuracy - confidence|.
    """

    clips: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Calibration:
    """Compare confidence with accuracy.

    Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equations 2, 3 and 5.

    Args:
        confidence: (n,), the largest probability of each prediction.
        right: bool (n,).
    """
    part = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    clips = np.bincount(part, minlength=bins)
    # 0 / 0 is what it should be where a part is empty
    with np.errstate(invalid="ignore"):
        mean = np.bincount(part, confidence, bins) / clips
        accuracy = np.bincount(part, right, bins) / clips
    error = np.nansum(clips * np.abs(accuracy - mean)) / len(confidence)
    return Calibration(clips, mean, accuracy, float(error))


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """The number that logits (n, C), divided by it, have the least mean cross entropy with targets int64 (n,) by.

    Between 1 / 20 and 20: where every prediction is right the entropy falls for ever towards 0, and where all are as
    good as random it falls towards infinity.

    Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    own = logits[np.arange(len(targets)), targets].astype(np.float64)
    low, high = -np.log(HOTTEST), np.log(HOTTEST)
    # in 1 / temperature the entropy is convex, so its slope has one change of sign
    while high - low > 1e-10:
        middle = (low + high) / 2
        scaled = probabilities(logits * np.exp(middle))
        slope = ((scaled * logits).sum(axis=1) - own).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-middle))
