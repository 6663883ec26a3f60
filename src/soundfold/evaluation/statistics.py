"""What a score can bear: intervals, paired tests, several seeds. Pure functions on arrays.

Clips that were cut from one recording are not independent, so what is resampled is always the source, with all its
clips; clip by clip an interval would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
LEVEL = 0.95


def source_interval(
    values: np.ndarray, sources: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a mean over clips, by a percentile bootstrap over sources.

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13; clusters resampled whole, as in
    A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.

    Args:
        values: (n,), one per clip: 1 where it was classified right and 0 elsewhere, or a difference of two runs.
        sources: the n clips' sources.
        draws: resamplings.
        seed: of the resampling; the same clips give the same interval.
    """
    _, cluster = np.unique(np.asarray(sources), return_inverse=True)
    sums, sizes = np.bincount(cluster, values), np.bincount(cluster)
    rng = np.random.default_rng(seed)
    # how often each source is drawn; some at a time, or 2,000 sources would take 160 MB
    means = []
    for part in np.array_split(np.arange(draws), max(1, draws * len(sizes) // 2_000_000)):
        times = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=len(part))
        means.append((times @ sums) / (times @ sizes))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def accuracy_interval(right: np.ndarray, sources: Sequence[str]) -> tuple[float, float]:
    """95 % interval of an accuracy: `source_interval`, or where every clip is right, or none, the exact one.

    Resampling nothing but right answers gives an interval of no width, which is not what they prove; the exact one is
    C. Clopper's and E. Pearson's, Biometrika 26, 1934, with as many trials as there are sources.

    Args:
        right: bool (n,).
        sources: the n clips' sources.
    """
    if len(set(right.tolist())) > 1:
        return source_interval(right, sources)
    most = ((1 - LEVEL) / 2) ** (1 / len(set(sources)))
    return (most, 1.0) if right[0] else (0.0, 1 - most)


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p value of the exact McNemar test that two runs are right equally often: bool (n,), (n,), same clips.

    Source: Q. McNemar, Psychometrika 12, 1947; the binomial form, which needs no large numbers.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    discordant = only_a + only_b
    tail = sum(math.comb(discordant, k) for k in range(min(only_a, only_b) + 1))
    # whole numbers until the end: 2^2000 is no float
    return min(1.0, float(2 * tail / 2**discordant)) if discordant else 1.0


@dataclass(frozen=True)
class SeedSummary:
    """Several cross-validations that differ by their seed only.

    Attributes:
        seeds: how many.
        accuracy: mean over seeds of the mean over folds.
        seed_sd: standard deviation over seeds of the mean over folds (n - 1); None for one seed.
        fold_sd: standard deviation over folds (n - 1), averaged over seeds.
        interval: 95 % interval of the accuracy over seeds, by Student's t; None for one seed. It speaks of other seeds
            on these clips, not of other clips.
    """

    seeds: int
    accuracy: float
    seed_sd: float | None
    fold_sd: float
    interval: tuple[float, float] | None


def over_seeds(accuracies: np.ndarray) -> SeedSummary:
    """Sum up accuracies (seeds, folds)."""
    means = accuracies.mean(axis=1)
    seeds, mean = len(means), float(means.mean())
    fold_sd = float(accuracies.std(axis=1, ddof=1).mean())
    if seeds == 1:
        return SeedSummary(seeds, mean, None, fold_sd, None)
    seed_sd = float(means.std(ddof=1))
    half = student_t(seeds - 1) * seed_sd / math.sqrt(seeds)
    return SeedSummary(seeds, mean, seed_sd, fold_sd, (mean - half, mean + half))


def student_t(freedom: int) -> float:
    """The t that 95 % of Student's distribution with ``freedom`` degrees lies within, to six digits, by bisection."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_within(middle, freedom) < LEVEL else (low, middle)
    return (low + high) / 2


def _student_within(t: float, freedom: int) -> float:
    """Probability of [-t, t]: the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    term = total = cosine if freedom % 2 else 1.0
    first = 3 if freedom % 2 else 2
    for k in range(first, freedom - 1, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    if freedom % 2 == 0:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + (math.sin(angle) * total if freedom > 1 else 0.0))
