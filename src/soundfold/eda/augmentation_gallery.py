"""The variations that training draws, one at a time, on one clip."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from soundfold.features.augment import Augmentation, AugmentParams, MaskSpec, Uniform
from soundfold.features.pipeline import FrontEnd

DRAWN = 2


@dataclass(frozen=True)
class GalleryItem:
    """A clip, varied.

    Attributes:
        name: how.
        level: (M, T), dB, its log-mel.
    """

    name: str
    level: Tensor


def augmentation_gallery(front_end: FrontEnd, wave: Tensor, seed: int = 0) -> list[GalleryItem]:
    """The clip itself, each variation alone at both ends of its range, and all together as training draws them.

    Polarity is left out, as no image shows it, and so is the mixing of clips. Empty where nothing else is configured.

    Args:
        front_end: with its augmentation and its statistics (a mask has their mean), without a resize to an image.
        wave: int16 (N,).
        seed: of the draws.
    """
    augmentation = front_end.augmentation
    assert augmentation is not None
    draws = _single(augmentation)
    if not draws:
        return []
    generator = torch.Generator().manual_seed(seed)
    draws += [(f"as training draws, {number}", augmentation.draw(1, generator)) for number in range(1, DRAWN + 1)]
    varied = [GalleryItem("the clip itself", _level(front_end, wave, None))]
    return varied + [GalleryItem(name, _level(front_end, wave, draw)) for name, draw in draws]


def _level(front_end: FrontEnd, wave: Tensor, draw: AugmentParams | None) -> Tensor:
    return (front_end(wave[None], draw) * front_end.std + front_end.mean)[0, 0]


def _single(augmentation: Augmentation) -> list[tuple[str, AugmentParams]]:
    neutral = AugmentParams(**dict.fromkeys(AugmentParams.__dataclass_fields__))  # type: ignore[arg-type]
    first = torch.zeros(1, dtype=torch.int64)
    neutral = replace(neutral, noise_row=first, noise_start=first)
    draws = []

    def add(name: str, **drawn: float) -> None:
        draws.append((name, replace(neutral, **{key: torch.tensor([value]) for key, value in drawn.items()})))

    for rate in _ends(augmentation.time_stretch, 1.0):
        add(f"time stretch, {rate:g} times as fast", time_stretch=rate)
    for semitones in _ends(augmentation.pitch_shift, 0.0):
        add(f"pitch shift, {_signed(semitones)} semitones", pitch_shift=semitones)
    for std in _ends(augmentation.noise_std, 0.0):
        add(f"noise, {std:g} of full scale", noise_std=std)
    for snr in _ends(augmentation.noise_snr_db, float("inf")):
        add(f"noise, {snr:g} dB below the clip", noise_snr=snr)
    for gain in _ends(augmentation.gain_db, 0.0):
        add(f"gain, {_signed(gain)} dB", gain=10 ** (gain / 20))
    if augmentation.time_shift is not None:
        # both ends of a whole turn are no turn
        turn = (augmentation.time_shift.low + augmentation.time_shift.high) / 2
        draws.append((f"turned by {turn:g} of the clip", replace(neutral, time_shift=torch.tensor([turn]))))
    if augmentation.time_masks is not None:
        draws.append(("masks over time", replace(neutral, time_masks=_widest(augmentation.time_masks))))
    if augmentation.frequency_masks is not None:
        draws.append(("masks over frequency", replace(neutral, frequency_masks=_widest(augmentation.frequency_masks))))
    return draws


def _ends(drawn: Uniform | None, neutral: float) -> list[float]:
    return [] if drawn is None else [value for value in dict.fromkeys((drawn.low, drawn.high)) if value != neutral]


def _signed(value: float) -> str:
    return f"{value:+g}".replace("-", "−")


def _widest(masks: MaskSpec) -> Tensor:
    """All masks at their full width, evenly spread: (1, count, 2)."""
    centre = (torch.arange(masks.count) + 0.5) / masks.count
    return torch.stack([centre - masks.width / 2, centre + masks.width / 2], dim=-1)[None]
