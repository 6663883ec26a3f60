"""Uncertainty of scores: intervals, paired tests and several seeds. Pure functions on arrays.

Clips cut from one recording are not independent, so the bootstrap resamples sources with all their clips. An interval
that resamples clips would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
# with more sources, those with equal clips are drawn together: a draw of each would take minutes
MAX_DRAWN = 5_000
LEVEL = 0.95


def source_interval(
    values: np.ndarray, sources: Sequence[str], draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Compute the 95 % interval of a mean over clips by a percentile bootstrap over sources.

    SciPy's bootstrap has no clusters.

    >>> correct, sources = np.array([1, 1, 1, 1, 0, 0, 1, 1]), ["a", "a", "a", "a", "b", "b", "c", "d"]
    >>> low, high = source_interval(correct, sources)
    >>> round(low, 3), high
    (0.143, 1.0)

    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13; resampling of clusters as in
    A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.

    Args:
        values: (n,), one per clip, from -1 to 1: 1 if it was classified correctly and 0 if not, or the difference of
            two runs. Clips of a single source say nothing on other sources: the interval is -1 to 1.
        sources: (n,), source of each clip.
        draws: number of bootstrap samples.
        seed: of the bootstrap; the same clips give the same interval.
    """
    _, cluster = np.unique(np.asarray(sources), return_inverse=True)
    sums, sizes = np.bincount(cluster, values), np.bincount(cluster)
    if len(sizes) == 1:
        return -1.0, 1.0
    number = np.ones(len(sizes), dtype=np.int64)
    if len(sizes) > MAX_DRAWN:
        # sources of the same sum and size are exchangeable, so the distribution is the same
        (sums, sizes), number = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    rng = np.random.default_rng(seed)
    means = []
    # in chunks: the counts of 2,000 sources in all draws would take 160 MB
    for chunk in np.array_split(np.arange(draws), max(1, draws * len(sizes) // 2_000_000)):
        counts = rng.multinomial(number.sum(), number / number.sum(), size=len(chunk))
        means.append((counts @ sums) / (counts @ sizes))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def accuracy_interval(correct: np.ndarray, sources: Sequence[str]) -> tuple[float, float]:
    """Compute the 95 % interval of an accuracy: `source_interval`, or an exact one if all clips agree.

    >>> [round(end, 3) for end in accuracy_interval(np.array([True] * 10), [*"abcdefghij"])]
    [0.692, 1.0]

    If all clips are correct, or none is, a bootstrap interval has no width. The exact interval is that of C. Clopper
    and E. Pearson, Biometrika 26, 1934, with one trial per source.

    Args:
        correct: bool (n,).
        sources: (n,), source of each clip.
    """
    if len(set(correct.tolist())) > 1:
        low, high = source_interval(correct, sources)
        return max(0.0, low), high
    from scipy.stats import binomtest  # imported here: it takes half a second

    trials = len(set(sources))
    interval = binomtest(trials if correct[0] else 0, trials).proportion_ci(LEVEL, method="exact")
    return float(interval.low), float(interval.high)


def draws_interval(hits: np.ndarray, sources: Sequence[str], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Compute the 95 % interval of a mean over repetitions and clips, by a bootstrap over both.

    If all hits agree, it is the exact one of `accuracy_interval`.

    Repetitions and sources are resampled at the same time, so the interval covers other training clips and other test
    clips. Source: A. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007.

    Args:
        hits: (repetitions, n), 1 if a clip was classified correctly.
        sources: (n,), source of each clip.
        draws: number of bootstrap samples.
        seed: of the bootstrap.
    """
    if hits.min() == hits.max():
        return accuracy_interval(hits[0].astype(bool), sources)
    _, cluster = np.unique(np.asarray(sources), return_inverse=True)
    sums = np.stack([np.bincount(cluster, row) for row in hits])
    repetitions, clusters = sums.shape
    rng = np.random.default_rng(seed)
    means = []
    for chunk in np.array_split(np.arange(draws), max(1, draws * clusters // 2_000_000)):
        rows = rng.multinomial(repetitions, np.full(repetitions, 1 / repetitions), size=len(chunk))
        columns = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=len(chunk))
        total = ((rows @ sums) * columns).sum(axis=1)
        means.append(total / (repetitions * (columns @ np.bincount(cluster))))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the two-sided p value of the exact McNemar test of two runs' accuracies.

    >>> mcnemar(np.array([True] * 10), np.array([True] * 4 + [False] * 6))  # 6 clips are correct in the first run only
    0.03125

    Source: Q. McNemar, Psychometrika 12, 1947; as a binomial test on the discordant clips, without approximation.

    Args:
        a, b: bool (n,), whether each run classified each clip correctly.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values of several tests, so that the chance of any false rejection stays at its level.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Source: S. Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True)
class SeedSummary:
    """Cross-validations that differ only in their seed.

    Attributes:
        seeds: number of cross-validations.
        accuracy: mean over seeds of the mean over folds.
        seed_sd: standard deviation over seeds of the mean over folds (n - 1); None for one seed.
        fold_sd: standard deviation over folds (n - 1), averaged over seeds; None for one fold.
        interval: 95 % interval of the accuracy over seeds, by Student's t; None for one seed. It covers other seeds on
            the same clips, not other clips.
    """

    seeds: int
    accuracy: float
    seed_sd: float | None
    fold_sd: float | None
    interval: tuple[float, float] | None


def over_seeds(accuracies: np.ndarray) -> SeedSummary:
    """Summarize accuracies (seeds, folds).

    >>> summary = over_seeds(np.array([[0.80, 0.84], [0.82, 0.86]]))
    >>> round(summary.accuracy, 2), round(summary.seed_sd, 4)
    (0.83, 0.0141)
    """
    means = accuracies.mean(axis=1)
    seeds, mean = len(means), float(means.mean())
    fold_sd = float(accuracies.std(axis=1, ddof=1).mean()) if accuracies.shape[1] > 1 else None
    if seeds == 1:
        return SeedSummary(seeds, mean, None, fold_sd, None)
    from scipy.stats import t

    seed_sd = float(means.std(ddof=1))
    half = float(t.ppf((1 + LEVEL) / 2, seeds - 1)) * seed_sd / math.sqrt(seeds)
    return SeedSummary(seeds, mean, seed_sd, fold_sd, (mean - half, mean + half))
