"""The augmentations of training, applied one at a time to one clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from soundfold.features.augment import Augmentation, AugmentParams, MaskSpec, Uniform
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
    """Return the unmodified clip, each augmentation at both ends of its range, and random combinations of all.

    Polarity inversion is omitted because a log-mel does not show it, and mixing because it needs other clips. The list
    is empty if no other augmentation is configured.

    Args:
        front_end: with augmentation and normalization statistics (masks have the mean), without a resize.
        wave: int16 (N,).
        seed: of the random combinations.
    """
    augmentation = front_end.augmentation
    assert augmentation is not None
    settings = list(_single_augmentations(augmentation))
    if not settings:
        return []
    generator = torch.Generator().manual_seed(seed)
    settings += [(f"random combination {i}", augmentation.draw(1, generator)) for i in range(1, N_RANDOM + 1)]
    items = [GalleryItem("unmodified clip", _log_mel(front_end, wave, None))]
    return items + [GalleryItem(name, _log_mel(front_end, wave, params)) for name, params in settings]


def _log_mel(front_end: FrontEnd, wave: Tensor, params: AugmentParams | None) -> Tensor:
    return (front_end(wave[None], params) * front_end.std + front_end.mean)[0, 0]


def _single_augmentations(augmentation: Augmentation) -> Iterator[tuple[str, AugmentParams]]:
    off = AugmentParams(**dict.fromkeys(AugmentParams.__dataclass_fields__))  # type: ignore[arg-type]
    zero = torch.zeros(1, dtype=torch.int64)
    off = replace(off, noise_row=zero, noise_start=zero)
    values: list[tuple[str, str, float]] = [
        *((f"time stretch, {rate:g} x speed", "time_stretch", rate) for rate in _ends(augmentation.time_stretch, 1.0)),
        *((f"pitch shift, {_signed(n)} semitones", "pitch_shift", n) for n in _ends(augmentation.pitch_shift, 0.0)),
        *((f"noise, {std:g} of full scale", "noise_std", std) for std in _ends(augmentation.noise_std, 0.0)),
        *((f"noise, {snr:g} dB SNR", "noise_snr", snr) for snr in _ends(augmentation.noise_snr_db, float("inf"))),
        *((f"gain, {_signed(db)} dB", "gain", 10 ** (db / 20)) for db in _ends(augmentation.gain_db, 0.0)),
    ]
    if augmentation.time_shift is not None:
        # the middle, because a circular shift by either end, 0 or 1, changes nothing
        shift = (augmentation.time_shift.low + augmentation.time_shift.high) / 2
        values.append((f"time shift by {shift:g} of the clip", "time_shift", shift))
    for name, key, value in values:
        yield name, replace(off, **{key: torch.tensor([value])})
    if augmentation.time_masks is not None:
        yield "time masks", replace(off, time_masks=_widest(augmentation.time_masks))
    if augmentation.frequency_masks is not None:
        yield "frequency masks", replace(off, frequency_masks=_widest(augmentation.frequency_masks))


def _ends(interval: Uniform | None, neutral: float) -> list[float]:
    """Return the distinct ends of the range, without the value that changes nothing."""
    return [] if interval is None else [v for v in dict.fromkeys((interval.low, interval.high)) if v != neutral]


def _signed(value: float) -> str:
    return f"{value:+g}".replace("-", "−")


def _widest(masks: MaskSpec) -> Tensor:
    """Return all masks at maximum width, evenly spaced: (1, count, 2)."""
    center = (torch.arange(masks.count) + 0.5) / masks.count
    return torch.stack([center - masks.width / 2, center + masks.width / 2], dim=-1)[None]
