"""Mixing of training clips with each other, and of their targets: drawn per clip, then applied by pure functions."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Generator, Tensor
from torch.nn import functional

from soundfold.errors import InputError


@dataclass(frozen=True)
class WaveMixParams:
    """Attributes: share (B,) of the clip's own target; partner int64 (B,), whom it is mixed with."""

    share: Tensor
    partner: Tensor


@dataclass(frozen=True)
class ImageMixParams:
    """How images are mixed.

    Attributes:
        partner: int64 (B,), whom a clip is mixed with.
        weight: (B,), the clip's own weight where nothing is cut (mixup); 1 where something is.
        time, frequency: (B, 2), start and end of the stripe that is the partner's, as fractions of the axis.
        share: (B,), of the clip's own target.
    """

    partner: Tensor
    weight: Tensor
    time: Tensor
    frequency: Tensor
    share: Tensor

    def rows(self, clips: slice) -> ImageMixParams:
        """The draws of some of the clips; their partners are still numbered in the batch."""
        return ImageMixParams(*(getattr(self, f.name)[clips] for f in fields(self)))


class Mixing:
    """Which clips of a batch are mixed, and how. A clip gets at most one of the image's three, and any may follow
    between-class mixing of waveforms.

    Args:
        alpha: both parameters of the beta distribution of mixup's weight and CutMix's kept part.
        mixup: chance of a clip to be mixed as a whole image. H. Zhang et al., mixup, ICLR 2018.
        time_cutmix: chance of a stretch of time to be the partner's. After S. Yun et al., CutMix, ICCV 2019.
        frequency_cutmix: chance of a band of mels to be the partner's.
        between_class: chance of waveforms to be mixed at equal loudness. Y. Tokozume et al., Learning from
            Between-Class Examples for Deep Sound Recognition, ICLR 2018; levels by energy, without its A-weighting.

    Raises:
        InputError: a value outside its rule.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        mixup: float = 0.0,
        time_cutmix: float = 0.0,
        frequency_cutmix: float = 0.0,
        between_class: float = 0.0,
    ) -> None:
        # beyond it every share is a half, and float32 has no room for the draws
        if not 0 < alpha <= 1000:
            raise InputError(f"augment.mixing.alpha={alpha:g} must be above 0 and at most 1000.")
        chances = {"mixup": mixup, "time_cutmix": time_cutmix, "frequency_cutmix": frequency_cutmix}
        for name, chance in {**chances, "between_class": between_class}.items():
            if not 0 <= chance <= 1:
                raise InputError(f"augment.mixing.{name}={chance:g} must lie between 0 and 1.")
        if sum(chances.values()) > 1 + 1e-6:
            raise InputError(
                f"augment.mixing: the chances of {', '.join(chances)} sum to {sum(chances.values()):g}; a clip gets at "
                "most one of them, so the sum must not exceed 1."
            )
        self.alpha, self.between_class = alpha, between_class
        self.chances = tuple(chances.values())

    def draw_waves(self, clips: int, generator: Generator) -> WaveMixParams | None:
        """Draw between-class mixing for a batch, on the generator's device; None where it has no chance."""
        if not self.between_class:
            return None
        device = generator.device
        mixed = torch.rand(clips, generator=generator, device=device) < self.between_class
        share = torch.rand(clips, generator=generator, device=device)
        return WaveMixParams(
            share=torch.where(mixed, share, 1.0), partner=torch.randperm(clips, generator=generator, device=device)
        )

    def draw_images(self, clips: int, generator: Generator) -> ImageMixParams | None:
        """Draw for a batch of images, on the generator's device; None where nothing has a chance."""
        if not any(self.chances):
            return None
        device = generator.device
        # torch has no beta sampler that takes a generator; two gamma draws make one
        gamma = torch._standard_gamma(torch.full((2, clips), self.alpha, device=device), generator=generator)
        share = (gamma[0] + 1e-20) / (gamma.sum(dim=0) + 2e-20)
        choice = torch.rand(clips, generator=generator, device=device)
        start = share * torch.rand(clips, generator=generator, device=device)
        mixup, time, frequency = self.chances
        blended = choice < mixup
        cut_time = (choice >= mixup) & (choice < mixup + time)
        cut_frequency = (choice >= mixup + time) & (choice < mixup + time + frequency)
        stripe = torch.stack([start, start + 1 - share], dim=-1)
        nothing = torch.zeros_like(stripe)
        return ImageMixParams(
            partner=torch.randperm(clips, generator=generator, device=device),
            weight=torch.where(blended, share, 1.0),
            time=torch.where(cut_time[:, None], stripe, nothing),
            frequency=torch.where(cut_frequency[:, None], stripe, nothing),
            share=torch.where(blended | cut_time | cut_frequency, share, 1.0),
        )


def mix_waves(wave: Tensor, draw: WaveMixParams) -> Tensor:
    """Mix waveforms (B, N), float, so that the share of the target is the share of the loudness heard.

    The own weight is p = 1 / (1 + 10^((G1 - G2) / 20) (1 - r) / r) for levels G1, G2 and share r; the sum is divided by
    sqrt(p^2 + (1 - p)^2), which keeps the energy of two unrelated sounds.
    """
    level = wave.square().mean(dim=1).sqrt() + 1e-6
    ratio = level / level[draw.partner] * (1 - draw.share) / draw.share.clamp(min=1e-6)
    own = (1 / (1 + ratio))[:, None]
    return (own * wave + (1 - own) * wave[draw.partner]) / (own.square() + (1 - own).square()).sqrt()


def mix_images(image: Tensor, other: Tensor, draw: ImageMixParams) -> Tensor:
    """Mix images (B, 1, M, T) with those of their partners."""
    theirs = _inside(draw.frequency, image.shape[-2])[:, None, :, None]
    theirs = theirs | _inside(draw.time, image.shape[-1])[:, None, None, :]
    return torch.where(theirs, other, torch.lerp(other, image, draw.weight[:, None, None, None]))


def mix_targets(target: Tensor, classes: int, draw: WaveMixParams | ImageMixParams) -> Tensor:
    """Targets of mixed clips: hard (B,) or soft (B, classes) -> soft (B, classes)."""
    soft = functional.one_hot(target, classes).float() if target.ndim == 1 else target
    return torch.lerp(soft[draw.partner], soft, draw.share[:, None])


def _inside(stripe: Tensor, size: int) -> Tensor:
    centre = (torch.arange(size, device=stripe.device) + 0.5) / size
    return (centre >= stripe[:, :1]) & (centre < stripe[:, 1:])
