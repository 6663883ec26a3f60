"""Batches of clips, indexed from one array of waveforms, and the shard of each batch that a process trains on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from soundfold.data.read_ahead import ClipReader


@dataclass(frozen=True)
class BatchShard:
    """The part of each training batch that one process trains on, in one or more micro-batches.

    Attributes:
        rank, world_size: of the process.
        accumulate: number of micro-batches per optimizer step, to fit the memory of the device.
    """

    rank: int = 0
    world_size: int = 1
    accumulate: int = 1

    @property
    def count(self) -> int:
        """Micro-batches per batch, of all processes."""
        return self.world_size * self.accumulate

    @property
    def slices(self) -> list[slice]:
        """The clips of a batch in each micro-batch of this process."""
        return [slice(self.rank * self.accumulate + i, None, self.count) for i in range(self.accumulate)]


SINGLE_PROCESS = BatchShard()


def seed_generator(generator: torch.Generator, *entropy: int) -> None:
    """Seed a generator from several integers, such as seed, fold and epoch."""
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    generator.manual_seed(int(state >> np.uint64(1)))


class ClipBatches:
    """Batches of clips: (wave int16 (B, N), target int64 (B,), index int64 (B,)).

    With a generator, a batch ends with its random numbers, float32 (numbers,), uniform in [0, 1): those of an epoch are
    drawn at once, because a small draw costs as much time on an accelerator as a large one.

    With a shard, every rank loads the full batch and trains on a slice of it: each batch is repeated for every
    micro-batch of this process, followed by the slice, with the generator in the same state. The draws for a batch are
    therefore the same on any number of devices, and mixing may use clips of another shard.

    Args:
        samples: int16 (clips, N), on the training device, or in host memory to stream batches from there.
        targets: int64 (clips,).
        indices: the clips to load; with `clip_of`, the images to load.
        batch_size: clips in a batch; the last batch may be smaller.
        device: of the batches.
        generator: on `device`. If given, every epoch is shuffled, and the generator is seeded at its start from `seed`
            and the epoch, so that everything drawn from it during the epoch is a function of these two.
        seed: integers that seed an epoch, together with its number.
        clip_of: int64 (images,), the clip of each image, where clips have several.
        balanced: draw equally many clips of each class in an epoch (up to one), instead of every clip once: clips of a
            large class are left out at random, those of a small class repeat, each once before any repeats again.
        shard: of this process.
        least: number of clips in the last batch; if it would have fewer, it takes clips from the one before. Batch norm
            requires two clips in each micro-batch.
        indices_only: yield index and random numbers, for a training step that reads the clips itself, see `read`.
        numbers: number of random numbers for a batch.
        reader: of the same samples, which reads the clips of the next batches in the background; None indexes
            `samples`. The batches are the same.
    """

    batch_sampler = None  # Lightning requires it of a loader that has a sampler

    def __init__(
        self,
        samples: Tensor,
        targets: Tensor,
        indices: np.ndarray,
        batch_size: int,
        device: torch.device,
        generator: torch.Generator | None = None,
        seed: tuple[int, ...] = (),
        clip_of: Tensor | None = None,
        shard: BatchShard | None = None,
        least: int = 1,
        balanced: bool = False,
        indices_only: bool = False,
        numbers: int = 0,
        reader: ClipReader | None = None,
    ) -> None:
        self.reader = reader
        self.indices_only, self.numbers = indices_only, numbers
        self.samples, self.targets, self.device = samples, targets.to(device), device
        self.indices = torch.from_numpy(indices).to(device)
        self.clip_of = None if clip_of is None else clip_of.to(device)
        self.generator, self.seed, self.shard, self.epoch = generator, seed, shard, 0
        self._classes = self._rows_by_class() if balanced else None
        self._bounds = _batch_bounds(len(indices), batch_size, least)

    @property
    def sampler(self) -> ClipBatches:
        """This loader. Lightning calls `set_epoch` of a loader's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that seeds the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._bounds) * (1 if self.shard is None else self.shard.accumulate)

    def __iter__(self) -> Iterator[tuple]:
        order = self._epoch_order()
        numbers = None
        if self.generator is not None:
            shape = len(self._bounds), self.numbers
            numbers = torch.rand(shape, generator=self.generator, device=self.device)
            if self.indices_only:
                yield from ((order[start:end], row) for (start, end), row in zip(self._bounds, numbers, strict=True))
                return
        clips = order if self.clip_of is None else self.clip_of[order]
        # on the device of the samples, so that indexing them needs no synchronization
        rows, targets = clips.to(self.samples.device), self.targets[clips]
        parts = [rows[start:end] for start, end in self._bounds]
        waves = map(self.samples.__getitem__, parts) if self.reader is None else self.reader.batches(parts)
        for step, ((start, end), wave) in enumerate(zip(self._bounds, waves, strict=True)):
            # without the index: `cuda` is `cuda:0`, which has the waves already
            if wave.device.type != self.device.type:
                # memory that the reader has pinned already is not copied
                wave = wave.pin_memory().to(self.device, non_blocking=True)
            batch: tuple[Tensor, ...] = wave, targets[start:end], order[start:end]
            batch = batch if numbers is None else (*batch, numbers[step])
            if self.shard is None:
                yield batch
            else:
                yield from self._micro_batches(batch, self.shard)

    def read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return waveforms and targets of indices, where the samples are on the training device."""
        clips = index if self.clip_of is None else self.clip_of[index]
        return self.samples[clips], self.targets[clips]

    def _epoch_order(self) -> Tensor:
        if self.generator is None:
            return self.indices
        seed_generator(self.generator, *self.seed, self.epoch)
        order = self._permutation(len(self.indices))
        return self.indices[order if self._classes is None else self._balanced(self._classes)[order]]

    def _permutation(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self.generator, device=self.device)

    def _rows_by_class(self) -> list[Tensor]:
        """Return, for each class that occurs, the positions of its clips in `indices`."""
        clips = self.indices if self.clip_of is None else self.clip_of[self.indices]
        targets = self.targets[clips]
        return [torch.nonzero(targets == target).flatten() for target in targets.unique().tolist()]

    def _balanced(self, classes: list[Tensor]) -> Tensor:
        """Draw positions in `indices`, as many of each class; the classes that have one more differ by epoch."""
        share, more = divmod(len(self.indices), len(classes))
        drawn = []
        for number, rows in enumerate(classes):
            n = share + ((number - self.epoch) % len(classes) < more)
            orders = [self._permutation(len(rows)) for _ in range(0, n, len(rows))]
            drawn += [rows[torch.cat(orders)[:n]]] if orders else []
        return torch.cat(drawn)

    def _micro_batches(self, batch: tuple[Any, ...], shard: BatchShard) -> Iterator[tuple]:
        *clips, numbers = batch
        state = self.generator.get_state() if self.generator is not None and shard.accumulate > 1 else None
        for part in shard.slices:
            if self.generator is not None and state is not None:
                self.generator.set_state(state)
            # a transform may change its draws in place
            yield *clips, numbers.clone(), part


def _batch_bounds(n: int, batch_size: int, least: int) -> list[tuple[int, int]]:
    """Return start and end of each batch. The last has ``least`` or more, if the last two together have twice that."""
    bounds = [*range(0, n, batch_size), n]
    if len(bounds) > 2 and n - bounds[-3] >= 2 * least:
        bounds[-2] = min(bounds[-2], n - least)
    return list(pairwise(bounds))
