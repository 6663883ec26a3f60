"""Offline augmentation: copies of every clip, augmented once before training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soundfold.data.splits import Protocol, Split
from soundfold.errors import ArgumentError

MAX_COPIES = 1000


@dataclass(frozen=True)
class OfflineCopies:
    """Number of copies per clip, drawn uniformly from [low, high], and the first epoch that trains on them.

    Epochs count from 0; those before `after` train on the clips without copies.
    """

    low: int
    high: int
    after: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high or not 1 <= self.high <= MAX_COPIES:
            raise ArgumentError(
                f"`low`={self.low} and `high`={self.high} must satisfy 0 <= low <= high, with high between 1 and "
                f"{MAX_COPIES}."
            )
        if self.after < 0:
            raise ArgumentError(f"`after`={self.after} must be at least 0, which uses copies from the first epoch.")


@dataclass(frozen=True)
class Copies:
    """Images made before training: first one per clip, in the order of the table, then the augmented copies.

    Attributes:
        clips: int64 (images,), the clip of each image.
        train, val: int64, indices of the images that train and that validate.
    """

    clips: np.ndarray
    train: np.ndarray
    val: np.ndarray

    @property
    def augmented(self) -> np.ndarray:
        """bool (images,), False for the plain images of the clips."""
        n_clips = self.clips.max() + 1
        return np.arange(len(self.clips)) >= n_clips


def make_copies(number: OfflineCopies, split: Split, protocol: Protocol, n_clips: int, seed: int, fold: int) -> Copies:
    """Draw the number of copies of each clip, and split the images into training and validation images.

    Args:
        number: of copies per clip.
        split: of the clips.
        protocol: with ``image_val`` the images of all training and validation clips are split at random. Without it
            copies train if their clip does, and validation uses no copies.
        n_clips: in the table.
    """
    rng = np.random.default_rng([seed, fold, 1])
    plain = np.arange(n_clips)
    clips = np.concatenate([plain, np.repeat(plain, rng.integers(number.low, number.high + 1, n_clips))])
    train_clips = [split.train, split.test] if protocol.test_in_training else [split.train]
    if protocol.image_val is None:
        return Copies(clips, np.flatnonzero(np.isin(clips, np.concatenate(train_clips))), split.val)
    pool = rng.permutation(np.flatnonzero(np.isin(clips, np.concatenate([*train_clips, split.val]))))
    n_val = round(protocol.image_val * len(pool))
    return Copies(clips, np.sort(pool[n_val:]), np.sort(pool[:n_val]))
