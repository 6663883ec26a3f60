"""Batches on the training device: a collection opened once, its fold's clips by index, the front end after transfer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from soundfold.data.collection import Collection
from soundfold.data.loader import BatchShard, ClipBatches
from soundfold.data.splits import (
    BENCHMARK,
    NOTHING_SEEN,
    Audit,
    Copies,
    Protocol,
    SeenClips,
    Split,
    audit,
    check_leakage,
    make_copies,
    make_split,
    seen_clips,
)
from soundfold.errors import InputError
from soundfold.features.batch_transform import FULL_BATCH, BatchTransform
from soundfold.features.crops import Crops
from soundfold.features.mixing import Mixing
from soundfold.features.pipeline import FrontEnd
from soundfold.models.compilation import compile_function

# of one clip, made before training
MOST_COPIES = 1000


@dataclass(frozen=True)
class OfflineCopies:
    """A number of copies of every clip, evenly drawn from [low, high], varied once before training.

    Epochs count from 0; those before `after` train on the clips themselves.
    """

    low: int
    high: int
    after: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high or not 1 <= self.high <= MOST_COPIES:
            raise InputError(
                f"augment.copies: low={self.low} and high={self.high} must be 0 <= low <= high, and high from 1 to "
                f"{MOST_COPIES}."
            )
        if self.after < 0:
            raise InputError(
                f"augment.copies.after={self.after} must not be negative; 0 has the copies from the start."
            )


class SoundDataModule(pl.LightningDataModule):
    """One fold of a collection, as images on the training device.

    Batches are (image float32 (B, 1, M, T), target, clip index int64 (B,)); of clips that are scored by K crops,
    (B * K, 1, M, T). Training targets are soft, (B, C), where clips are mixed, and hard, int64 (B,), elsewhere; and a
    training batch has a fourth, the weight of its mean loss: 1 but where a batch is not divided evenly. Only training
    clips are varied, and only they set the statistics that images are normalize by.

    A trainer of several devices has each train on its share of every batch, and score its share of the clips.

    Args:
        collection: see `open_collection`; or a function that opens it, called by `prepare_data` and `setup`.
        front_end: from waveforms to images; its augmentation varies training clips.
        fold: the fold to score; None trains on every clip and scores none.
        protocol: see `Protocol`.
        crops: what part of a clip is trained and scored on; None takes all of it.
        mixing: how training clips are mixed; None leaves them.
        copies: vary before training, once, as the published notebook does; None varies anew in every epoch. The trainer
            then needs ``reload_dataloaders_every_n_epochs=1``.
        batch_size: clips in a training batch, of all devices together.
        micro_batches: in so many parts, one after the other, a device trains on its share of a batch, to fit its
            memory. The trainer then needs ``accumulate_grad_batches`` of the same number.
        seed: all randomness is a function of it, the fold and the epoch.
        on_device: keep the waveforms on the device; None does so where they take less than half of its free memory.
        seen: the clips behind the weights that training starts from; the audit counts them.
        compile: how training images are made on an accelerator, see `compile_function`; a processor makes them clip by
            clip, and has nothing to gain.

    Attributes:
        split, audit: of this fold, after `setup`.
        seen: after `setup`, the clips that train or choose the model, those behind its first weights included.
    """

    def __init__(
        self,
        collection: Any,
        front_end: FrontEnd,
        fold: int | None,
        protocol: Protocol = BENCHMARK,
        crops: Crops | None = None,
        mixing: Mixing | None = None,
        copies: OfflineCopies | None = None,
        batch_size: int = 64,
        micro_batches: int = 1,
        seed: int = 0,
        on_device: bool | None = None,
        seen: SeenClips = NOTHING_SEEN,
        compile: str = "none",
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"data.batch_size={batch_size} must be at least 1.")
        self._open = collection if callable(collection) else lambda: collection
        self.front_end, self.fold, self.protocol = front_end, fold, protocol
        self.mixing, self.batch_size, self.seed, self.on_device = mixing, batch_size, seed, on_device
        if copies and front_end.augmentation is None:
            raise InputError("augment.copies needs something to vary the copies by; give an augmentation.")
        self.copies, self.seen, self.crops = copies, seen, crops
        self.micro_batches, self.compile = micro_batches, compile
        self._copies: Copies | None = None
        self._owners: Tensor | None = None
        self.split: Split | None = None
        self.audit: Audit | None = None

    def prepare_data(self) -> None:
        self._open()

    def setup(self, stage: str | None = None) -> None:
        if self.split is not None:
            return
        collection: Collection = self._open()
        table, waves = collection.table, collection.waves
        self.classes, self._names = table.classes, table.files
        self.split = make_split(table, self.protocol, self.fold, self.seed)
        if self.copies:
            options = {"low": self.copies.low, "high": self.copies.high, "seed": self.seed, "fold": self.fold or 0}
            self._copies = make_copies(self.split, self.protocol, len(table), **options)
        self.audit = audit(table, self.split, waves.hashes, self._copies, self.seen)
        check_leakage(self.audit, self.protocol, self.fold)
        self.seen = seen_clips(table, self.split, waves.hashes, self._copies, self.seen)
        self.device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        self._generator = torch.Generator(self.device)
        if self._copies is not None:
            self._draw_copies(self._copies, len(table))
        fits = collection.on_device(self.device) or self._fits(waves.samples.nbytes)
        self._samples = collection.samples(self.device if fits else torch.device("cpu"))
        self._targets = torch.from_numpy(table.targets)
        self.front_end.to(self.device)
        self.front_end.fit(self._test_crops(wave) for wave, _, _ in self._batches(self.split.train, self._at_once))
        self._batch_transform = BatchTransform(self.front_end, len(self.classes), self.crops, self.mixing)
        self._transform = compile_function(self._batch_transform, "none" if self.device.type == "cpu" else self.compile)

    def _draw_copies(self, copies: Copies, clips: int) -> None:
        assert self.front_end.augmentation is not None
        seed = np.random.SeedSequence([self.seed, self.fold or 0, 2]).generate_state(1, np.uint64)[0]
        self._generator.manual_seed(int(seed >> np.uint64(1)))
        images = len(copies.clips)
        varied = torch.arange(images, device=self.device) >= clips
        self._drawn = self.front_end.augmentation.draw(images, self._generator, varied)
        self._owners = torch.from_numpy(copies.clips)

    def _joined(self) -> Copies | None:
        """The copies, once they train."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        return self._copies if self.copies and epoch >= self.copies.after else None

    def _fits(self, size: int) -> bool:
        if self.on_device is not None or self.device.type != "cuda":
            return self.on_device is not False
        free, _ = torch.cuda.mem_get_info(self.device)
        return size < free / 2

    def _batches(self, clips: np.ndarray, batch_size: int, **options: Any) -> ClipBatches:
        return ClipBatches(self._samples, self._targets, clips, batch_size, self.device, owners=self._owners, **options)

    def train_dataloader(self) -> ClipBatches:
        assert self.split is not None
        seed = (self.seed, self.fold or 0)
        clips = (self._joined() or self.split).train
        return self._batches(clips, self.batch_size, generator=self._generator, seed=seed, shard=self._shard)

    @property
    def _shard(self) -> BatchShard:
        world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return BatchShard(*world, self.micro_batches)

    def val_dataloader(self) -> list[ClipBatches]:
        assert self.split is not None
        clips = (self._joined() or self.split).val
        return [self._scored(clips)] if len(clips) else []

    def test_dataloader(self) -> ClipBatches:
        assert self.split is not None
        return self._scored(self.split.test)

    def _scored(self, clips: np.ndarray) -> ClipBatches:
        return self._batches(clips[self._shard.rank :: self._shard.world_size], self._at_once)

    @property
    def _at_once(self) -> int:
        """Of how many clips the images are seen at once: as many images as a device trains on, or a clip's."""
        images = self._shard.count * (1 if self.crops is None else self.crops.per_clip)
        return max(1, self.batch_size // images)

    def _test_crops(self, wave: Tensor) -> Tensor:
        """What is scored of clips: (B, N) -> (B * K, L)."""
        return wave if self.crops is None else self.crops.tta_crops(wave)

    def training_images(self, batches: int = 20) -> Iterator[Tensor]:
        """Images (B, 1, M, T) of so many batches, cropped, varied and mixed as in training; the same each time.

        What an average of weights measures its batch statistics on. No more at once than a device trains on.
        """
        assert self.split is not None
        batches *= self._shard.count
        loader = self._batches(
            (self._joined() or self.split).train,
            max(1, self.batch_size // self._shard.count),
            generator=self._generator,
            seed=(self.seed, self.fold or 0, 4),
        )
        for number in range(batches):
            if number % len(loader) == 0:
                loader.set_epoch(number)
                drawn = iter(loader)
            yield self.augment(*next(drawn))[0]

    def files(self, images: Tensor) -> list[str]:
        """The audio files of what batches number."""
        clips = images if self._owners is None else self._owners[images.cpu()]
        return [self._names[clip] for clip in clips.tolist()]

    def on_after_batch_transfer(self, batch: tuple, dataloader_idx: int) -> tuple:
        # validation runs inside fit: `training` tells the two apart
        if self.trainer and self.trainer.training:
            return self.augment(*batch)
        wave, target, image = batch
        return self.front_end(self._test_crops(wave), self._drawn.rows(image) if self.copies else None), target, image

    def augment(
        self, wave: Tensor, target: Tensor, number: Tensor, part: slice = FULL_BATCH
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """What a part of a training batch trains on: images, cropped, varied, then mixed; their targets and numbers;
        and the weight of their mean loss.

        Everything is drawn for the whole batch, so that a clip's image does not depend on who trains on it.
        """
        drawn = self._batch_transform.draw(
            len(wave), self._generator, self._drawn.rows(number) if self.copies else None
        )
        image, soft = self._transform(wave, target, drawn, part)
        return image, soft, number[part], len(image) * self._shard.count / len(wave)
