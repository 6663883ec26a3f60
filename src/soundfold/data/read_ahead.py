"""Clips of a packed store that does not fit into memory, read in the background before they are needed."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from soundfold.data.store import Waveforms
from soundfold.errors import InputError
from soundfold.io.memory import available_memory
from soundfold.io.parallel import map_ahead

# batches that are read before they are needed, each by one thread: a disk is fastest with several requests at once
BATCHES_AHEAD = 4


class ClipReader:
    """Reads batches of clips in background threads, at most `BATCHES_AHEAD` before they are needed.

    Clips of a memory-mapped store are read from its file, not from the mapping: a page fault blocks for 4 to 128 kB,
    and mapped pages stay in memory for longer than read ones. So the memory in use is that of the batches,
    whatever the size of the store.

    Args:
        waves: the store; one in memory is indexed.
        pin: read into page-locked memory, from which a CUDA device copies while the host goes on. PyTorch reuses it.
    """

    def __init__(self, waves: Waveforms, pin: bool = False) -> None:
        self.samples, self.pin = waves.samples, pin
        self._descriptor = None
        filename = getattr(waves.samples, "filename", None)
        if filename is not None and hasattr(os, "preadv"):
            # opened once, so that a store that is removed or rebuilt meanwhile can still be read
            self._descriptor = os.open(filename, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)
            if hasattr(os, "posix_fadvise"):
                # clips are read in a random order: reading beyond them is wasted
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def batches(self, clips: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the clips of each batch, int16 (B, N), on the host.

        Args:
            clips: int64 (B,) per batch, on the host: indices into the store.

        Raises:
            InputError: the file of the store is shorter than when it was opened.
        """
        yield from map_ahead(self._read, clips, BATCHES_AHEAD, BATCHES_AHEAD)

    def _read(self, clips: Tensor) -> Tensor:
        batch = torch.empty((len(clips), self.samples.shape[1]), dtype=torch.int16, pin_memory=self.pin)
        rows = batch.numpy()
        if self._descriptor is None:
            rows[:] = self.samples[clips.numpy()]
            return batch
        assert isinstance(self.samples, np.memmap)
        for row, clip in zip(rows, clips.tolist(), strict=True):
            self._read_row(self._descriptor, row, self.samples.offset + clip * row.nbytes)
        return batch

    def _read_row(self, descriptor: int, row: np.ndarray, offset: int) -> None:
        view = row.data.cast("B")
        while view:
            count = os.preadv(descriptor, [view], offset)
            if not count:
                raise InputError(
                    f"The packed store {self.samples.filename} was cut off while it was read. Start the command again, "  # type: ignore[attr-defined]
                    "which rebuilds it."
                )
            view, offset = view[count:], offset + count


def make_reader(waves: Waveforms, samples: Tensor, device: torch.device, read_ahead: bool | None) -> ClipReader | None:
    """Return a reader for a store, or None if batches are indexed from its samples.

    Args:
        waves: the store.
        samples: of the store, see `place_samples`. Those on an accelerator are indexed there.
        device: of the batches.
        read_ahead: None reads ahead if the samples are streamed to an accelerator, or take more than half of the memory
            that is available; on a CPU, the page cache holds others after the first epoch.
    """
    if samples.device.type != "cpu":
        return None
    is_streamed = device.type != "cpu"
    if read_ahead is None:
        available = available_memory()
        read_ahead = is_streamed or (available is not None and waves.samples.nbytes > available / 2)
    return ClipReader(waves, pin=device.type == "cuda") if read_ahead else None
