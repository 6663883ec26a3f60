"""A collection of noise, and its training images with given augmentations."""

import hashlib
from types import SimpleNamespace

import numpy as np
import torch

from soundfold.data.collection import Collection
from soundfold.data.datamodule import SoundDataModule
from soundfold.data.store import Waveforms
from soundfold.data.tables import ClipTable
from soundfold.features.augment_params import AugmentParams


def noise(clips: int = 4, samples: int = 4000) -> torch.Tensor:
    """Return int16 clips of noise."""
    return (3000 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(1))).short()


def collection(clips: int = 20, samples: int = 4000) -> Collection:
    """Return clips of noise in four folds and two classes."""
    waves = noise(clips, samples).numpy()
    hashes = tuple(hashlib.sha256(wave.tobytes()).hexdigest() for wave in waves)
    files = tuple(f"{i}.wav" for i in range(clips))
    table = ClipTable(files, np.repeat([1, 2, 3, 4], clips // 4), np.arange(clips) % 2, files, ("a", "b"))
    return Collection(table, Waveforms(waves, np.full(clips, samples), hashes, 8000, "digest"))


def module(front, shard=(0, 1, 1), **options) -> SoundDataModule:
    """Return fold 1 for a rank, a number of ranks and of micro-batches."""
    rank, world, micro = shard
    data = SoundDataModule(collection(), front, fold=1, batch_size=16, accumulate_grad_batches=micro, **options)
    data.setup()
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, training=True, current_epoch=0)
    return data


def epoch(data: SoundDataModule, number: int = 0) -> dict[int, tuple]:
    """Return image and target of each training image of an epoch."""
    batches = data.train_dataloader()
    batches.set_epoch(number)
    clips = {}
    for image, target, index, _ in (data.on_after_batch_transfer(batch, 0) for batch in batches):
        clips |= {clip: (image[i], target[i]) for i, clip in enumerate(index.tolist())}
    return clips


def to_meta(params: AugmentParams) -> AugmentParams:
    """Return parameters without values, on the meta device, where reading one is an error."""

    def move(value):
        if isinstance(value, tuple):
            return tuple(map(move, value))
        return value if value is None else value.to("meta")

    return AugmentParams({name: move(value) for name, value in params.values.items()})
