"""Batches on the training device: a collection opened once, its fold's clips by index, the front end after transfer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from soundfold.compilation import compiled
from soundfold.data import waveforms
from soundfold.data.download import fetch_esc50
from soundfold.data.folder import read_folder
from soundfold.data.folds import (
    BENCHMARK,
    NOBODY,
    Audit,
    Copies,
    Met,
    Protocol,
    Split,
    audit,
    clips_met,
    make_copies,
    make_split,
    refuse_leak,
)
from soundfold.data.metadata import URBANSOUND8K, ClipTable, read_table
from soundfold.data.synthetic import render
from soundfold.errors import InputError
from soundfold.frontend.crop import Crops
from soundfold.frontend.front_end import FrontEnd
from soundfold.frontend.mixing import Mixing
from soundfold.frontend.variation import WHOLE, Variation

FETCH: dict[str, Callable[[Path], None]] = {"esc50": fetch_esc50, "synthetic": render}
# where the names of a layout's files start, below its root
AUDIO = {"esc50": "audio", "urbansound8k": "audio", "folder": "."}
# of one clip, made before training
MOST_COPIES = 1000
# what lies on a device: of the process, as each job of a sweep opens its collection anew
_RESIDENT: dict[tuple, Tensor] = {}


@dataclass(frozen=True)
class Collection:
    """A table of clips and their waveforms, in the same order."""

    table: ClipTable
    waves: waveforms.Waveforms

    def resident(self, device: torch.device) -> bool:
        """Whether the waveforms are on the device already."""
        return self._key(device) in _RESIDENT

    def samples(self, device: torch.device) -> Tensor:
        """int16 (clips, samples) on the device: brought there once, for all folds and jobs that a process trains."""
        if device.type == "cpu":
            return torch.from_numpy(self.waves.samples)  # mapped, not copied
        key = self._key(device)
        if key not in _RESIDENT:
            _RESIDENT.clear()  # one collection at a time: what it takes is the device's memory
            _RESIDENT[key] = torch.from_numpy(self.waves.samples).to(device)
        return _RESIDENT[key]

    def _key(self, device: torch.device) -> tuple:
        return (self.waves.digest, self.waves.sample_rate, self.waves.samples.shape, device)


def open_collection(
    root: Path,
    cache: Path,
    *,
    seconds: float,
    sample_rate: int,
    fetch: str | None = None,
    layout: str = "esc50",
    subset: str | None = None,
    classes: list[str] | None = None,
    folds: int = 5,
    source_pattern: str | None = None,
) -> Collection:
    """Open a collection, fetching it and building its packed store where they do not exist.

    Args:
        root: folder of the collection; it may be read-only.
        cache: folder of the packed stores.
        seconds, sample_rate: of the stored clips, s and Hz.
        fetch: how to get a collection that is not there: ``esc50`` downloads, ``synthetic`` renders.
        layout: ``esc50`` has meta/esc50.csv and audio/; ``urbansound8k`` has metadata/UrbanSound8K.csv and
            audio/fold<k>/; ``folder`` has one folder of audio per class, and folds are made.
        subset: of ``esc50``, see `read_table`.
        classes: only these are kept.
        folds, source_pattern: of ``folder``, see `read_folder`.

    Raises:
        InputError: the collection cannot be had, or its table or audio breaks a rule.
    """
    if fetch is not None:
        FETCH[fetch](root)
    table, audio = read_clips(
        root, cache, layout, subset=subset, classes=classes, folds=folds, source_pattern=source_pattern
    )
    progress = partial(_decoding, description=f"Decoding {root.name}")
    waves = waveforms.load(audio, table.files, seconds=seconds, sample_rate=sample_rate, cache=cache, progress=progress)
    return Collection(table, waves)


def read_clips(
    root: Path,
    cache: Path,
    layout: str = "esc50",
    *,
    subset: str | None = None,
    classes: list[str] | None = None,
    folds: int = 5,
    source_pattern: str | None = None,
) -> tuple[ClipTable, Path]:
    """The table of clips and the folder that its files' names start from; see `open_collection`."""
    audio = root / AUDIO[layout]
    if layout == "folder":
        return read_folder(root, cache, folds, source_pattern, classes), audio
    if layout == "urbansound8k":
        return read_table(root / "metadata" / "UrbanSound8K.csv", None, classes, URBANSOUND8K), audio
    return read_table(root / "meta" / "esc50.csv", subset, classes), audio


def _decoding(items: Iterable, total: int, description: str) -> Iterable:
    return track(items, description=description, total=total)


@dataclass(frozen=True)
class Shares:
    """How training batches are divided: among processes, each with a device, and in parts that fit a device's memory.

    Attributes:
        rank, world_size: number of this process, from 0, and how many there are.
        parts: one after the other, their gradients summed.
    """

    rank: int = 0
    world_size: int = 1
    parts: int = 1

    @property
    def count(self) -> int:
        return self.world_size * self.parts

    @property
    def own(self) -> list[slice]:
        """Which clips of a batch this process trains on, part by part."""
        return [slice(self.rank * self.parts + part, None, self.count) for part in range(self.parts)]


ALONE = Shares()


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
        shares: given, a batch comes once for each of this process's parts, with the generator as it was before the
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
        shares: Shares | None = None,
    ) -> None:
        self.samples, self.targets, self.clips = samples, targets.to(device), torch.from_numpy(clips).to(device)
        self.batch_size, self.device, self.generator, self.seed = batch_size, device, generator, seed
        self.owners = None if owners is None else owners.to(device)
        self.shares, self.epoch = shares, 0
        bounds = [*range(0, len(clips), batch_size), len(clips)]
        least = 2 * shares.count if shares is not None else 1
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
        return len(self._bounds) * (1 if self.shares is None else self.shares.parts)

    def __iter__(self) -> Iterator[tuple]:
        order = self.clips
        if self.generator is not None:
            state = np.random.SeedSequence([*self.seed, self.epoch]).generate_state(1, np.uint64)[0]
            self.generator.manual_seed(int(state >> np.uint64(1)))
            order = order[torch.randperm(len(order), generator=self.generator, device=self.device)]
        owners = order if self.owners is None else self.owners[order]
        # nothing is waited for where the waveforms are resident
        rows, targets = owners.to(self.samples.device), self.targets[owners]
        for start, end in self._bounds:
            wave = self.samples[rows[start:end]]
            if wave.device != self.device:
                wave = wave.pin_memory().to(self.device, non_blocking=True)
            batch = wave, targets[start:end], order[start:end]
            if self.shares is None:
                yield batch
                continue
            state = self.generator.get_state() if self.generator is not None and self.shares.parts > 1 else None
            for part in self.shares.own:
                if self.generator is not None and state is not None:
                    self.generator.set_state(state)
                yield *batch, part


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
    clips are varied, and only they set the statistics that images are standardised by.

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
        resident: keep the waveforms on the device; None does so where they take less than half of its free memory.
        met: the clips behind the weights that training starts from; the audit counts them.
        compile: how training images are made on an accelerator, see `compiled`; a processor makes them clip by clip,
            and has nothing to gain.

    Attributes:
        split, audit: of this fold, after `setup`.
        met: after `setup`, the clips that train or choose the model, those behind its first weights included.
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
        resident: bool | None = None,
        met: Met = NOBODY,
        compile: str = "none",
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise InputError(f"data.batch_size={batch_size} must be at least 1.")
        self._open = collection if callable(collection) else lambda: collection
        self.front_end, self.fold, self.protocol = front_end, fold, protocol
        self.mixing, self.batch_size, self.seed, self.resident = mixing, batch_size, seed, resident
        if copies and front_end.augmentation is None:
            raise InputError("augment.copies needs something to vary the copies by; give an augmentation.")
        self.copies, self.met, self.crops, self.micro_batches, self.compile = copies, met, crops, micro_batches, compile
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
        self.audit = audit(table, self.split, waves.hashes, self._copies, self.met)
        refuse_leak(self.audit, self.protocol, self.fold)
        self.met = clips_met(table, self.split, waves.hashes, self._copies, self.met)
        self.device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        self._generator = torch.Generator(self.device)
        if self._copies is not None:
            self._draw_copies(self._copies, len(table))
        fits = collection.resident(self.device) or self._fits(waves.samples.nbytes)
        self._samples = collection.samples(self.device if fits else torch.device("cpu"))
        self._targets = torch.from_numpy(table.targets)
        self.front_end.to(self.device)
        self.front_end.fit(self._seen(wave) for wave, _, _ in self._batches(self.split.train, self._at_once))
        self._variation = Variation(self.front_end, len(self.classes), self.crops, self.mixing)
        self._vary = compiled(self._variation, "none" if self.device.type == "cpu" else self.compile)

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
        if self.resident is not None or self.device.type != "cuda":
            return self.resident is not False
        free, _ = torch.cuda.mem_get_info(self.device)
        return size < free / 2

    def _batches(self, clips: np.ndarray, batch_size: int, **options: Any) -> ClipBatches:
        return ClipBatches(self._samples, self._targets, clips, batch_size, self.device, owners=self._owners, **options)

    def train_dataloader(self) -> ClipBatches:
        assert self.split is not None
        seed = (self.seed, self.fold or 0)
        clips = (self._joined() or self.split).train
        return self._batches(clips, self.batch_size, generator=self._generator, seed=seed, shares=self._shares)

    @property
    def _shares(self) -> Shares:
        world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return Shares(*world, self.micro_batches)

    def val_dataloader(self) -> list[ClipBatches]:
        assert self.split is not None
        clips = (self._joined() or self.split).val
        return [self._scored(clips)] if len(clips) else []

    def test_dataloader(self) -> ClipBatches:
        assert self.split is not None
        return self._scored(self.split.test)

    def _scored(self, clips: np.ndarray) -> ClipBatches:
        return self._batches(clips[self._shares.rank :: self._shares.world_size], self._at_once)

    @property
    def _at_once(self) -> int:
        """Of how many clips the images are seen at once: as many images as a device trains on, or a clip's."""
        images = self._shares.count * (1 if self.crops is None else self.crops.images)
        return max(1, self.batch_size // images)

    def _seen(self, wave: Tensor) -> Tensor:
        """What is scored of clips: (B, N) -> (B * K, L)."""
        return wave if self.crops is None else self.crops.spread(wave)

    def training_images(self, batches: int = 20) -> Iterator[Tensor]:
        """Images (B, 1, M, T) of so many batches, cropped, varied and mixed as in training; the same each time.

        What an average of weights measures its batch statistics on. No more at once than a device trains on.
        """
        assert self.split is not None
        batches *= self._shares.count
        loader = self._batches(
            (self._joined() or self.split).train,
            max(1, self.batch_size // self._shares.count),
            generator=self._generator,
            seed=(self.seed, self.fold or 0, 4),
        )
        for number in range(batches):
            if number % len(loader) == 0:
                loader.set_epoch(number)
                drawn = iter(loader)
            yield self.vary(*next(drawn))[0]

    def files(self, images: Tensor) -> list[str]:
        """The audio files of what batches number."""
        clips = images if self._owners is None else self._owners[images.cpu()]
        return [self._names[clip] for clip in clips.tolist()]

    def on_after_batch_transfer(self, batch: tuple, dataloader_idx: int) -> tuple:
        # validation runs inside fit: `training` tells the two apart
        if self.trainer and self.trainer.training:
            return self.vary(*batch)
        wave, target, image = batch
        return self.front_end(self._seen(wave), self._drawn.rows(image) if self.copies else None), target, image

    def vary(
        self, wave: Tensor, target: Tensor, number: Tensor, part: slice = WHOLE
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """What a part of a training batch trains on: images, cropped, varied, then mixed; their targets and numbers;
        and the weight of their mean loss.

        Everything is drawn for the whole batch, so that a clip's image does not depend on who trains on it.
        """
        drawn = self._variation.draw(len(wave), self._generator, self._drawn.rows(number) if self.copies else None)
        image, soft = self._vary(wave, target, drawn, part)
        return image, soft, number[part], len(image) * self._shares.count / len(wave)
