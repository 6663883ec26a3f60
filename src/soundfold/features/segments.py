"""Segments of rows of samples, read without an index for every sample."""

from __future__ import annotations

import torch
from torch import Tensor

from soundfold.features.readable import is_readable


def read_segments(rows: Tensor, row: Tensor, start: Tensor, length: int) -> Tensor:
    """Read a segment of a row for each clip: (R, N), row and start int64 (B,) -> (B, length).

    An index for every sample would take several times the memory, and the time, of the samples.
    """
    if is_readable(rows):
        return torch.stack([rows[r, s : s + length] for r, s in zip(row.tolist(), start.tolist(), strict=True)])
    return index_segments(rows, row, start, length)


def index_segments(rows: Tensor, row: Tensor, start: Tensor, length: int) -> Tensor:
    """Read segments as `read_segments`, without reading a value from the device: index a view of all segments."""
    return rows.unfold(1, length, 1)[row, start]
