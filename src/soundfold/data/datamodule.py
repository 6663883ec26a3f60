"""One fold of a collection as batches of images on the training device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from soundfold.data.collection import Collection
from soundfold.data.copies import Copies, OfflineCopies, make_copies
from soundfold.data.device_cache import place_samples
from soundfold.data.leakage import NOTHING_SEEN, Audit, SeenClips, audit, check_leakage, seen_clips
from soundfold.data.loader import BatchShard, ClipBatches, seed_generator
from soundfold.data.read_ahead import make_reader
from soundfold.data.recordings import check_recordings
from soundfold.data.splits import BENCHMARK, Protocol, Split, make_split
from soundfold.errors import ArgumentError
from soundfold.features.augment_params import AugmentParams, ParamSampler
from soundfold.features.batch_transform import FULL_BATCH, BatchTransform
from soundfold.features.crops import Crops
from soundfold.features.mixing import Mixing
from soundfold.features.pipeline import FrontEnd
from soundfold.models.compilation import compile_function

SAMPLERS = ("shuffle", "balanced")


class SoundDataModule(pl.LightningDataModule):
    """One fold of a collection, as images on the training device.

    Evaluation batches are (image float32 (B * K, 1, M, T), target int64 (B,), index int64 (B,)) for K test crops.
    Training batches are (image (B, 1, M, T), target, index, weight of the mean loss), with soft targets (B, C) if
    clips are mixed, else int64 (B,). The weight is 1 unless a batch is not evenly divisible into micro-batches. Only
    training clips are augmented, and only they set the statistics that normalize images.

    With several devices, each rank trains on its slice of every batch and evaluates its share of the clips.

    Args:
        collection: see `open_collection`; or a function that returns it, called by `prepare_data` and `setup`.
        front_end: from waveforms to images; its augmentation is applied to training clips.
        fold: the test fold; None trains on every clip and tests none.
        protocol: see `Protocol`.
        crops: of clips for training and evaluation; None uses full clips.
        mixing: of training clips; None disables it.
        copies: augment once, before training; None augments in every epoch. The trainer then requires
            ``reload_dataloaders_every_n_epochs=1``.
        batch_size: clips in a training batch, over all devices.
        accumulate_grad_batches: parts of a batch that a device trains on one after the other, to fit its memory. The
            trainer requires the same number: each part is a batch of its loader.
        sampler: ``shuffle`` loads every training clip once an epoch; ``balanced`` as many clips of each class, see
            `ClipBatches`.
        seed: all randomness is a function of the seed, the fold and the epoch.
        on_device: see `place_samples`.
        read_ahead: see `make_reader`.
        seen: clips that trained or selected the initial weights; included in the audit.
        compile: how training images are compiled on an accelerator, see `compile_function`. Not used on a CPU, which
            processes clips one by one.

    Attributes:
        split, audit: of this fold, after `setup`.
        seen: after `setup`, the clips that train or select the model, including those behind its initial weights.
        generator: after `setup`, on the training device. All random numbers of training batches come from it: uniform
            ones are drawn for an epoch by `ClipBatches`, others in each step.
    """

    split: Split
    audit: Audit
    generator: torch.Generator

    def __init__(
        self,
        collection: Collection | Callable[[], Collection],
        front_end: FrontEnd,
        fold: int | None,
        protocol: Protocol = BENCHMARK,
        crops: Crops | None = None,
        mixing: Mixing | None = None,
        copies: OfflineCopies | None = None,
        batch_size: int = 64,
        accumulate_grad_batches: int = 1,
        sampler: str = "shuffle",
        seed: int = 0,
        on_device: bool | None = None,
        read_ahead: bool | None = None,
        seen: SeenClips = NOTHING_SEEN,
        compile: str = "none",
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ArgumentError(f"`batch_size`={batch_size} must be at least 1.")
        if copies and front_end.augmentation is None:
            raise ArgumentError("`copies` requires an augmentation to apply to the copies.")
        if sampler not in SAMPLERS:
            raise ArgumentError(f"`sampler`={sampler} is unknown. Set one of {', '.join(SAMPLERS)}.")
        self.sampler = sampler
        self._open = collection if callable(collection) else lambda: collection
        self.front_end, self.fold, self.protocol, self.crops, self.mixing = front_end, fold, protocol, crops, mixing
        self.copies, self.batch_size, self.seed = copies, batch_size, seed
        self.accumulate_grad_batches = accumulate_grad_batches
        self.on_device, self.read_ahead, self.seen, self.compile = on_device, read_ahead, seen, compile
        self._is_set_up = self._indices_only = False
        self._train_loader: ClipBatches | None = None

    def prepare_data(self) -> None:
        self._open()

    def setup(self, stage: str | None = None) -> None:
        if self._is_set_up:
            return
        collection = self._open()
        table, waves = collection.table, collection.waves
        self._files = table.files
        self.split = make_split(table, self.protocol, self.fold, self.seed)
        self._copies = self._make_copies(len(table))
        self.audit = audit(table, self.split, waves.hashes, self._copies, self.seen)
        check_leakage(self.audit, self.protocol, self.fold)
        recordings = self.front_end.augmentation.recordings.values() if self.front_end.augmentation else ()
        if not self.protocol.leaky:
            check_recordings(recordings, table, self.split, waves.hashes, self.fold)
        heard = SeenClips(self.seen.hashes.union(*(r.hashes for r in recordings)), self.seen.sources)
        self.seen = seen_clips(table, self.split, waves.hashes, self._copies, heard)
        self.device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        self.generator = torch.Generator(self.device)
        # on the device once, so that all loaders and a captured step use the same memory
        self._clip_of = None if self._copies is None else torch.from_numpy(self._copies.clips).to(self.device)
        self._copy_params = None if self._copies is None else self._draw_copies(self._copies)
        self._samples = place_samples(waves, self.device, self.on_device)
        self._reader = make_reader(waves, self._samples, self.device, self.read_ahead)
        self._targets = torch.from_numpy(table.targets).to(self.device)
        self.front_end.to(self.device)
        self.front_end.fit(self._test_crops(wave) for wave, _, _ in self._loader(self.split.train, self._eval_batch))
        self._batch_transform = BatchTransform(self.front_end, len(table.classes), self.crops, self.mixing)
        self._numbers = self._batch_transform.count_numbers(
            self.batch_size, self.device, self._copy_rows(torch.zeros(self.batch_size, dtype=torch.int64))
        )
        self._transform = compile_function(self._batch_transform, "none" if self.device.type == "cpu" else self.compile)
        self._is_set_up = True

    def train_dataloader(self) -> ClipBatches:
        self._train_loader = self._training_loader(
            self.batch_size,
            seed=self._stream(),
            shard=self._shard,
            least=2 * self._shard.count,
            indices_only=self._indices_only,
        )
        return self._train_loader

    def val_dataloader(self) -> list[ClipBatches]:
        val = self._indices.val
        return [self._eval_loader(val)] if len(val) else []

    def test_dataloader(self) -> ClipBatches:
        return self._eval_loader(self.split.test)

    def on_after_batch_transfer(self, batch: tuple, dataloader_idx: int) -> tuple:
        # validation runs within `fit`, where `training` is False
        if self.trainer and self.trainer.training:
            return batch if self._indices_only else self.augment(*batch)
        wave, target, index = batch
        return self.front_end(self._test_crops(wave), self._copy_rows(index)), target, index

    def yield_indices(self, enabled: bool) -> None:
        """Make training batches (index, random numbers), for a step that calls `training_batch`; or restore them."""
        self._indices_only = enabled
        if self._train_loader is not None:
            self._train_loader.indices_only = enabled

    def training_batch(self, index: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and targets of a training batch, from the indices of its clips and its random numbers.

        If the samples are on the device, this is a function of tensors and of `generator` that reads no value from it.
        """
        assert self._train_loader is not None
        image, target, *_ = self.augment(*self._train_loader.read(index), index, numbers)
        return image, target

    @property
    def reads_on_device(self) -> bool:
        """Whether the samples are on the training device, after `setup`."""
        return self._samples.device == self.device

    def augment(
        self, wave: Tensor, target: Tensor, index: Tensor, numbers: Tensor, part: slice = FULL_BATCH
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """Crop, augment and mix a slice of a training batch.

        Random numbers are drawn for the full batch, so that the image of a clip does not depend on the number of
        devices.

        Returns:
            Images, targets and indices of the slice, and the weight of its mean loss.
        """
        sampler = ParamSampler(len(wave), self.generator, numbers=numbers)
        params = self._batch_transform.draw(sampler, self._copy_rows(index))
        image, target = self._transform(wave, target, params, part)
        return image, target, index[part], len(image) * self._shard.count / len(wave)

    def training_images(self, batches: int = 20) -> Iterator[Tensor]:
        """Yield images (B, 1, M, T) of some batches, cropped, augmented and mixed as in training, always the same.

        Averaged weights recompute batch norm statistics from them, as a mean over batches. Batches are as small as a
        device's micro-batches, and the last has half of their clips or more.
        """
        size = max(1, self.batch_size // self._shard.count)
        loader = self._training_loader(size, seed=self._stream(4), least=max(1, size // 2))
        for number in range(batches * self._shard.count):
            if number % len(loader) == 0:
                loader.set_epoch(number)
                epoch = iter(loader)
            yield self.augment(*next(epoch))[0]

    def files(self, indices: Tensor) -> list[str]:
        """Return the audio files of the indices in a batch."""
        clips = indices if self._clip_of is None else self._clip_of.cpu()[indices.cpu()]
        return [self._files[clip] for clip in clips.tolist()]

    @property
    def _shard(self) -> BatchShard:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return BatchShard(rank, world_size, self.accumulate_grad_batches)

    @property
    def _indices(self) -> Split | Copies:
        """Indices of training and validation: clips, or images from epoch `copies.after` on."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        return self._copies if self._copies and self.copies and epoch >= self.copies.after else self.split

    @property
    def _eval_batch(self) -> int:
        """Clips in an evaluation batch, whose crops are at most as many images as in a training micro-batch."""
        crops = 1 if self.crops is None else self.crops.per_clip
        return max(1, self.batch_size // (self._shard.count * crops))

    def _stream(self, *number: int) -> tuple[int, ...]:
        """Return the seed of a stream of random numbers of this fold.

        numpy pads seeds with zeros, so that the streams (s, f) and (s, f, 0) are the same.
        """
        return self.seed, self.fold or 0, *number

    def _make_copies(self, n_clips: int) -> Copies | None:
        if self.copies is None:
            return None
        return make_copies(self.copies, self.split, self.protocol, n_clips, *self._stream())

    def _draw_copies(self, copies: Copies) -> AugmentParams:
        assert self.front_end.augmentation is not None
        seed_generator(self.generator, *self._stream(2))
        augmented = torch.from_numpy(copies.augmented).to(self.device)
        return self.front_end.augmentation.draw(ParamSampler(len(augmented), self.generator, augmented))

    def _copy_rows(self, index: Tensor) -> AugmentParams | None:
        return None if self._copy_params is None else self._copy_params.rows(index)

    def _loader(self, indices: np.ndarray, batch_size: int, **options: Any) -> ClipBatches:
        options |= {"clip_of": self._clip_of, "reader": self._reader}
        return ClipBatches(self._samples, self._targets, indices, batch_size, self.device, **options)

    def _training_loader(self, batch_size: int, **options: Any) -> ClipBatches:
        options |= {"generator": self.generator, "numbers": self._numbers, "balanced": self.sampler == "balanced"}
        return self._loader(self._indices.train, batch_size, **options)

    def _eval_loader(self, indices: np.ndarray) -> ClipBatches:
        return self._loader(indices[self._shard.rank :: self._shard.world_size], self._eval_batch)

    def _test_crops(self, wave: Tensor) -> Tensor:
        """Return the test crops of clips: (B, N) -> (B * K, L)."""
        return wave if self.crops is None else self.crops.tta_crops(wave)
