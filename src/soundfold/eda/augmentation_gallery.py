"""The augmentations of training, applied one at a time to one clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from soundfold.features.augment_params import AugmentParams, ParamSampler
from soundfold.features.pipeline import FrontEnd

N_RANDOM = 2


@dataclass(frozen=True)
class GalleryItem:
    """An augmented clip.

    Attributes:
        name: description of the augmentation.
        log_mel: (M, T), dB.
    """

    name: str
    log_mel: Tensor


def augmentation_gallery(front_end: FrontEnd, wave: Tensor, seed: int = 0) -> list[GalleryItem]:
    """Return the unmodified clip, the examples of each augmentation, and random combinations of all.

    Mixing is omitted because it needs other clips, and what does not change the log-mel has no examples. The list is
    empty if there is no example.

    Args:
        front_end: with augmentation and normalization statistics (masks have the mean), without a resize.
        wave: int16 (N,).
        seed: of the random combinations.
    """
    augmentation = front_end.augmentation
    assert augmentation is not None
    settings = [
        (label, AugmentParams({name: params}))
        for name, transform in augmentation.items()
        if transform.stage != "targets"
        for label, params in transform.examples(name.removeprefix("extra."))
    ]
    if not settings:
        return []
    sampler = ParamSampler(1, torch.Generator().manual_seed(seed))
    settings += [(f"random combination {i}", augmentation.draw(sampler)) for i in range(1, N_RANDOM + 1)]
    items = [GalleryItem("unmodified clip", _log_mel(front_end, wave, None))]
    return items + [GalleryItem(label, _log_mel(front_end, wave, params)) for label, params in settings]


def _log_mel(front_end: FrontEnd, wave: Tensor, params: AugmentParams | None) -> Tensor:
    return (front_end(wave[None], params) * front_end.std + front_end.mean)[0, 0]
