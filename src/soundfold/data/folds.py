"""Folds for a collection that has none: classes spread evenly, and each source in one fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soundfold.errors import ArgumentError


def assign_folds(
    targets: np.ndarray, sources: Sequence[str], classes: Sequence[str], folds: int, seed: int = 0
) -> np.ndarray:
    """Assign clips to folds, each class spread evenly and each source in one fold.

    Greedy: sources are assigned in descending order of their number of clips, ties in an order drawn from ``seed``.
    Each goes to the fold for which the sum over classes of the squared share of the class in the fold grows least.

    Args:
        targets: (clips,), indices into ``classes``.
        sources: (clips,).

    Returns:
        int64 (clips,), numbers from 1 to ``folds``.

    Raises:
        ArgumentError: a class has fewer sources than there are folds.
    """
    unique, source_of = np.unique(sources, return_inverse=True)
    # sparse: a table of sources and classes would take gigabytes
    pairs, counts = np.unique(source_of * len(classes) + targets, return_counts=True)
    pair_class = pairs % len(classes)
    first = np.searchsorted(pairs // len(classes), np.arange(len(unique) + 1))
    _check_sources(np.bincount(pair_class, minlength=len(classes)), classes, folds)
    order = np.random.default_rng(seed).permutation(len(unique))
    order = order[np.argsort(-np.bincount(source_of)[order], kind="stable")]
    totals = np.bincount(targets, minlength=len(classes))
    fold_share = np.zeros((folds, len(classes)))
    fold_of = np.zeros(len(unique), dtype=np.int64)
    for source in order:
        own = slice(first[source], first[source + 1])
        share = np.zeros(len(classes))
        share[pair_class[own]] = counts[own] / totals[pair_class[own]]
        growth = ((fold_share + share) ** 2 - fold_share**2).sum(axis=1)
        # break ties by size, so that classes of equal size do not fill the same folds first
        fold = np.lexsort((fold_share.sum(axis=1), growth.round(12)))[0]
        fold_share[fold] += share
        fold_of[source] = fold
    return fold_of[source_of] + 1


def _check_sources(numbers: np.ndarray, classes: Sequence[str], folds: int) -> None:
    """Refuse classes with fewer sources than folds, given the number of sources of each class."""
    short = [f"{name!r} ({number})" for name, number in zip(classes, numbers, strict=True) if number < folds]
    if not short:
        return
    most = int(numbers.min())
    remedy = (
        f"The largest number that works is `folds`={most}. Or"
        if most > 1
        else "No number of folds works for a class with one source, so"
    )
    raise ArgumentError(
        f"{len(short)} of {len(classes)} classes have fewer sources than `folds`={folds}, and a source must be in one "
        f"fold only: {', '.join(short)}. {remedy} add recordings, or exclude these classes (`classes`)."
    )
