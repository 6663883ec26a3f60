"""Scores per class and group, and calibration. Pure functions on arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15
MAX_TEMPERATURE = 20.0


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics per class, (C,) each; 0 if the denominator is 0.

    Attributes:
        precision: fraction of the clips predicted as the class that belong to it.
        recall: fraction of the class's clips that are predicted as it.
        f1: harmonic mean of precision and recall.
        clips: number of clips of the class.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    clips: np.ndarray


def class_metrics(confusion: np.ndarray) -> ClassMetrics:
    """Compute precision, recall and F1 of a confusion matrix (C, C) whose rows are true classes.

    >>> class_metrics(np.array([[3, 1], [0, 4]])).recall
    array([0.75, 1.  ])
    """
    correct, predicted, clips = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    return ClassMetrics(
        correct / np.maximum(predicted, 1),
        correct / np.maximum(clips, 1),
        2 * correct / np.maximum(predicted + clips, 1),
        clips,
    )


def confusion_matrix(targets: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Count the clips of each true and predicted class: int64 (n,) and (n,) -> int64 (C, C), rows are true classes.

    >>> confusion_matrix(targets=np.array([0, 0, 1]), predictions=np.array([0, 1, 1]), classes=2)
    array([[1, 1],
           [0, 1]])
    """
    return np.bincount(targets * classes + predictions, minlength=classes**2).reshape(classes, classes)


def merge_classes(confusion: np.ndarray, group_of: np.ndarray) -> np.ndarray:
    """Compute the confusion matrix of groups of classes: (C, C) and group indices int (C,) -> (G, G).

    >>> merge_classes(np.array([[3, 1, 0], [0, 4, 0], [1, 0, 3]]), np.array([0, 0, 1]))
    array([[8, 0],
           [1, 3]])
    """
    member = np.eye(group_of.max() + 1, dtype=confusion.dtype)[group_of]
    return member.T @ confusion @ member


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Compute the softmax in float64: (n, C) -> (n, C).

    >>> probabilities(np.array([[0.0, 0.0], [0.0, np.log(3)]])).round(2)
    array([[0.5 , 0.5 ],
           [0.25, 0.75]])
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Calibration:
    """Agreement of confidence and accuracy.

    Attributes:
        clips: (bins,), number of predictions in each of equally wide bins of confidence in (0, 1].
        confidence, accuracy: (bins,), mean of each bin; nan for an empty bin.
        error: expected calibration error, the mean over clips of the difference of accuracy and confidence in their
            bin, without its sign.
    """

    clips: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def calibration(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Calibration:
    """Compare confidence with accuracy.

    >>> round(calibration(confidence=np.full(4, 0.9), correct=np.array([True, True, True, False])).error, 3)
    0.15

    Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equations 2, 3 and 5.

    Args:
        confidence: (n,), the largest probability of each prediction.
        correct: bool (n,).
    """
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    clips = np.bincount(index, minlength=bins)
    # empty bins are meant to be nan
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, confidence, bins) / clips
        accuracy = np.bincount(index, correct, bins) / clips
    error = np.nansum(clips * np.abs(accuracy - mean)) / len(confidence)
    return Calibration(clips, mean, accuracy, float(error))


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Fit the temperature T that minimizes the cross entropy of softmax(logits / T).

    T is limited to [1 / 20, 20]: the minimum is at 0 if every prediction is correct, and at infinity if the logits are
    no better than chance.

    >>> logits, targets = np.array([[8.0, 0.0]] * 4), np.array([0, 0, 0, 1])
    >>> round(fit_temperature(logits, targets), 2)  # three of four are correct: the odds should be 3, not e^8
    7.28

    Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.

    Args:
        logits: (n, C).
        targets: int64 (n,).
    """
    from scipy.optimize import brentq  # imported here: it takes half a second

    target_logits = logits[np.arange(len(targets)), targets].astype(np.float64)

    def slope(log_scale: float) -> float:
        """Derivative of the cross entropy with respect to 1 / T; it rises with 1 / T, as the entropy is convex."""
        expected = (probabilities(logits * np.exp(log_scale)) * logits).sum(axis=1)
        return float((expected - target_logits).mean())

    bound = np.log(MAX_TEMPERATURE)
    if slope(bound) <= 0:
        return 1 / MAX_TEMPERATURE
    if slope(-bound) >= 0:
        return MAX_TEMPERATURE
    return float(np.exp(-brentq(slope, -bound, bound, xtol=1e-12)))
