"""Scores of how familiar a sound is to a model, and how well they separate known from unknown classes.

All scores are higher for sounds that are more familiar. Pure functions on arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from soundfold.evaluation.statistics import LEVEL

# of the clips of known classes that a fitted threshold reports as unknown
QUANTILE = 0.05
NEIGHBORS = 5
DRAWS = 2000


def max_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the largest probability of each clip: (n, C) -> float64 (n,), in (0, 1].

    Source: D. Hendrycks and K. Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution Examples in
    Neural Networks, ICLR 2017; with temperature 1.
    """
    scaled = logits.astype(np.float64) / temperature
    return 1 / np.exp(scaled - scaled.max(axis=1, keepdims=True)).sum(axis=1)


def energy(logits: np.ndarray) -> np.ndarray:
    """Return the negative energy of each clip, the log of the sum of exponentials: (n, C) -> float64 (n,).

    Unlike a probability it depends on the size of the logits: evidence for no class gives low energy scores.

    Source: W. Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020; with temperature 1.
    """
    largest = logits.max(axis=1).astype(np.float64)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors to length 1: float32 (n, D); zero vectors stay."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def neighbor_distance(vectors: np.ndarray, training: np.ndarray, neighbors: int = NEIGHBORS) -> np.ndarray:
    """Return the negative distance of each vector to its k-th nearest training vector: (n, D) -> float64 (n,).

    Source: Y. Sun et al., Out-of-distribution Detection with Deep Nearest Neighbors, ICML 2022.

    Args:
        vectors, training: (n, D) and (m, D), of length 1, see `unit_vectors`.
        neighbors: k; at most m.
    """
    k = min(neighbors, len(training))
    similarity = np.partition(vectors @ training.T, -k, axis=1)[:, -k]
    return -np.sqrt(np.maximum(0, 2 - 2 * similarity.astype(np.float64)))


def separation(known: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Compare every known clip with every unknown one: 1 if it scores higher, 0.5 if equal, else 0: (n, m).

    The mean is the area under the ROC curve (AUROC).

    >>> float(separation(np.array([0.9, 0.8, 0.4]), np.array([0.5, 0.1])).mean())
    0.8333333333333334
    """
    return (known[:, None] > unknown) + 0.5 * (known[:, None] == unknown)


class Separation(NamedTuple):
    """AUROC, the mean over folds, and its 95 % interval by bootstrap over sources."""

    auroc: float
    low: float
    high: float


class FoldScores(NamedTuple):
    """Scores of the clips that a fold's model did not see.

    Attributes:
        known, unknown: (n,) and (m,), of clips of known and of left-out classes.
        known_sources, unknown_sources: of these clips.
    """

    known: np.ndarray
    unknown: np.ndarray
    known_sources: Sequence[str]
    unknown_sources: Sequence[str]


def mean_auroc(folds: Sequence[FoldScores], draws: int = DRAWS, seed: int = 0) -> Separation:
    """Compute the mean over folds of the AUROC, since scores of different models need not have one scale.

    Args:
        folds: each with known and unknown clips.
        draws: number of bootstrap samples, each of sources with all their clips, over all folds.
        seed: of the bootstrap.
    """
    names = sorted({source for fold in folds for source in (*fold.known_sources, *fold.unknown_sources)})
    number = {name: i for i, name in enumerate(names)}
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws).astype(np.float64)
    means, sampled = [], []
    for fold in folds:
        wins = separation(fold.known, fold.unknown)
        known, unknown = (
            counts[:, [number[source] for source in sources]] for sources in (fold.known_sources, fold.unknown_sources)
        )
        weights = known.sum(axis=1) * unknown.sum(axis=1)
        means.append(wins.mean())
        # a draw without a known or an unknown clip of the fold has no AUROC there
        won = ((known @ wins) * unknown).sum(axis=1)
        sampled.append(np.divide(won, weights, out=np.full(draws, np.nan), where=weights > 0))
    values = np.array(sampled)
    values = np.nanmean(values[:, ~np.isnan(values).all(axis=0)], axis=0)
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Separation(float(np.mean(means)), float(low), float(high))
