"""The search for near duplicates in a store, bounded for large collections."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from soundfold.data.store import Waveforms
from soundfold.eda.duplicates import Pair, fingerprints, near_pairs
from soundfold.eda.progress import Progress

# clips whose pairs are all compared, which takes time with their square, and about 0.2 MB for each clip of 5 s
MAX_COMPARED = 10_000


def find_near_duplicates(
    waves: Waveforms, rows: np.ndarray, targets: np.ndarray, progress: Progress
) -> tuple[list[Pair], int | None]:
    """Search clips of a store for near duplicates, see `near_pairs`.

    Args:
        waves: the store.
        rows: int64 (n,), the clips to compare.
        targets: int64 (n,), their classes.
        progress: wraps each loop, called with a description, the items and their number.

    Returns:
        Pairs of indices into ``rows``, most similar first; and the number of clips that were compared if they were
        compared within groups, see `groups_to_compare`, else None.
    """
    groups = groups_to_compare(targets, MAX_COMPARED)
    pairs: list[Pair] = []
    for number, group in enumerate(groups, start=1):
        part = f", group {number} of {len(groups)}" if len(groups) > 1 else ""
        # one by one: indexing with an array would copy the store into memory
        samples = (waves.samples[row] for row in rows[group])
        prints = fingerprints(
            samples, waves.lengths[rows[group]], waves.sample_rate, partial(progress, f"Fingerprinting{part}")
        )
        found = near_pairs(prints, progress=partial(progress, f"Comparing clips{part}"))
        pairs += [replace(pair, first=int(group[pair.first]), second=int(group[pair.second])) for pair in found]
    pairs.sort(key=lambda pair: -pair.similarity)
    return pairs, None if len(rows) <= MAX_COMPARED else sum(map(len, groups))


def groups_to_compare(targets: np.ndarray, limit: int) -> list[np.ndarray]:
    """Divide clips into groups whose pairs are compared: all clips, or, of more than ``limit``, those of each class.

    Copies mostly have the class of their original. Of a class with more clips than the limit, a random sample is
    compared, so that the time grows with the number of clips.

    Args:
        targets: int64 (clips,), the class of each clip.
        limit: number of clips in a group.

    Returns:
        Indices of the clips of each group, ascending.
    """
    if len(targets) <= limit:
        return [np.arange(len(targets))]
    rng = np.random.default_rng(0)
    members = np.split(np.argsort(targets, kind="stable"), np.cumsum(np.bincount(targets))[:-1])
    return [
        np.sort(rng.choice(group, limit, replace=False)) if len(group) > limit else group
        for group in members
        if len(group) > 1
    ]
