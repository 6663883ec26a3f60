"""Batches of clips by indexing one array of waveforms, and the shard of a batch that one process trains on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchShard:
    """How training batches are divided: among processes, each with a device, and in parts that fit a device's memory.

    Attributes:
        rank, world_size: number of this process, from 0, and how many there are.
        accumulate: one after the other, their gradients summed.
    """

    rank: int = 0
    world_size: int = 1
    accumulate: int = 1

    @property
    def count(self) -> int:
        return self.world_size * self.accumulate

    @property
    def slices(self) -> list[slice]:
        """Which clips of a batch this process trains on, part by part."""
        return [slice(self.rank * self.accumulate + part, None, self.count) for part in range(self.accumulate)]


SINGLE_PROCESS = BatchShard()


class ClipBatches:
    """Batches of clips by indexing one array: (wave int16 (B, N), target int64 (B,), clip index int64 (B,)).

    Every process of a group has the whole of each batch, and is told its share of it: (..., slice). Whatever is drawn
    for a batch is the same on any number of devices, and a clip's partner in mixing may be another's.

    Args:
        samples: int16 (clips, N), on the device that trains or, to stream, in host memory.
        targets: int64 (clips,).
        clips: the indices of the clips to give; with `owners`, of their images.
        batch_size: clips in a batch; the last may be smaller.
        device: where the batches go.
        generator: on `device`; given, every epoch is shuffled, and the generator is seeded at its start from `seed` and
            the epoch, so that whatever is drawn from it afterwards is a function of these two.
        seed: whole numbers that the epoch's seed is made of.
        owners: int64 (images,), the clip of each image; None where every clip is its one image. The index in a batch is
            then the image's.
        shard: given, a batch comes once for each of this process's parts, with the generator as it was before the
            first, followed by which of its clips the part is. One clip has no batch statistics: a last batch too small
            for two in each part takes clips from the one before.
    """

    batch_sampler = None  # Lightning asks every loader that has a sampler

    def __init__(
        self,
        samples: Tensor,
        targets: Tensor,
        clips: np.ndarray,
        batch_size: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        seed: tuple[int, ...] = (),
        owners: Tensor | None = None,
        shard: BatchShard | None = None,
    ) -> None:
        self.samples, self.targets, self.clips = samples, targets.to(device), torch.from_numpy(clips).to(device)
        self.batch_size, self.device, self.generator, self.seed = batch_size, device, generator, seed
        self.owners = None if owners is None else owners.to(device)
        self.shard, self.epoch = shard, 0
        bounds = [*range(0, len(clips), batch_size), len(clips)]
        least = 2 * shard.count if shard is not None else 1
        if len(bounds) > 2 and len(clips) - bounds[-3] >= 2 * least:
            bounds[-2] = min(bounds[-2], len(clips) - least)
        self._bounds = list(pairwise(bounds))

    @property
    def sampler(self) -> ClipBatches:
        """Itself: Lightning tells a loader's sampler the epoch by `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next order is of."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._bounds) * (1 if self.shard is None else self.shard.accumulate)

    def __iter__(self) -> Iterator[tuple]:
        order = self.clips
        if self.generator is not None:
            state = np.random.SeedSequence([*self.seed, self.epoch]).generate_state(1, np.uint64)[0]
            self.generator.manual_seed(int(state >> np.uint64(1)))
            order = order[torch.randperm(len(order), generator=self.generator, device=self.device)]
        owners = order if self.owners is None else self.owners[order]
        # nothing is waited for where the waveforms are on_device
        rows, targets = owners.to(self.samples.device), self.targets[owners]
        for start, end in self._bounds:
            wave = self.samples[rows[start:end]]
            if wave.device != self.device:
                wave = wave.pin_memory().to(self.device, non_blocking=True)
            batch = wave, targets[start:end], order[start:end]
            if self.shard is None:
                yield batch
                continue
            state = self.generator.get_state() if self.generator is not None and self.shard.accumulate > 1 else None
            for part in self.shard.slices:
                if self.generator is not None and state is not None:
                    self.generator.set_state(state)
                yield *batch, part
