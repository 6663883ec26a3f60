"""Importance of the parts of a log-mel by occlusion: the drop of a score when a block is replaced."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from soundfold.errors import ArgumentError

# log-mels (B, 1, M, T), dB -> (B,), such as the probability of a class
Score = Callable[[Tensor], Tensor]
FILLS = ("mean", "floor")
BATCH = 16


def block_labels(bands: int, frames: int, rows: int = 8, columns: int = 16) -> Tensor:
    """Divide a log-mel into blocks of about equal size: int64 (bands, frames), from 0, row by row.

    >>> block_labels(4, 6, rows=2, columns=3)[:, 0].tolist(), block_labels(4, 6, rows=2, columns=3)[0].tolist()
    ([0, 0, 3, 3], [0, 0, 1, 1, 2, 2])

    Args:
        bands, frames: of the log-mel.
        rows, columns: of blocks; at most one per band and frame.

    Raises:
        ArgumentError: there is no row or column.
    """
    if min(rows, columns) < 1:
        raise ArgumentError(f"`rows`={rows} and `columns`={columns} must be at least 1.")
    rows, columns = min(rows, bands), min(columns, frames)
    row = torch.arange(bands) * rows // bands
    column = torch.arange(frames) * columns // frames
    return row[:, None] * columns + column


def block_means(values: Tensor, labels: Tensor) -> Tensor:
    """Average a map over each block: (M, T) -> (blocks,)."""
    labels = labels.flatten()
    sums = torch.zeros(int(labels.max()) + 1, dtype=values.dtype, device=values.device)
    return sums.index_add(0, labels, values.flatten()) / torch.bincount(labels)


def fill_level(log_mel: Tensor, fill: str) -> Tensor:
    """Return the level, dB, that replaces a block of a log-mel: a scalar tensor.

    ``mean`` is the clip's mean: the level that is 0 in an image normalized by its clip, and near 0 in one normalized by
    the training clips, to which masks of training are set. ``floor`` is the clip's lowest level, silence; its edge
    beside a loud block is a sharp contrast that no training clip may have.

    Raises:
        ArgumentError: ``fill`` is unknown.
    """
    if fill not in FILLS:
        raise ArgumentError(f"`fill`={fill} is unknown. Set one of {', '.join(FILLS)}.")
    return log_mel.mean() if fill == "mean" else log_mel.amin()


def score_filled(score: Score, log_mel: Tensor, labels: Tensor, replaced: Tensor, level: Tensor) -> Tensor:
    """Score copies of a log-mel with some of their blocks replaced, in batches: (n,).

    Args:
        score: of log-mels.
        log_mel: (1, 1, M, T), dB.
        labels: block of each cell, see `block_labels`.
        replaced: bool (n, blocks), the blocks of each copy that are replaced.
        level: dB, see `fill_level`.
    """
    batches = (torch.where(chunk[:, labels][:, None], level, log_mel) for chunk in replaced.split(BATCH))
    return torch.cat([score(batch) for batch in batches])


def occlusion(score: Score, log_mel: Tensor, labels: Tensor, fill: str = "mean") -> Tensor:
    """Return by how much replacing each block lowers the score: (blocks,); negative where it raises the score.

    Unlike class activation, it uses nothing of the network but its outputs.

    Source: M. Zeiler and R. Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014.

    Args:
        score, log_mel, labels: see `score_filled`.
        fill: see `fill_level`.
    """
    n_blocks = int(labels.max()) + 1
    # the first copy is the log-mel itself
    replaced = torch.eye(n_blocks + 1, n_blocks, dtype=torch.bool, device=log_mel.device).roll(1, dims=0)
    scores = score_filled(score, log_mel, labels, replaced, fill_level(log_mel, fill))
    return scores[0] - scores[1:]
