"""Mixing of training clips and of their targets: parameters are drawn per clip, then applied by pure functions."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Generator, Tensor
from torch.nn import functional

from soundfold.errors import ArgumentError, check_between
from soundfold.features.augment_params import check_exclusive
from soundfold.features.masks import inside


@dataclass(frozen=True)
class WaveMixParams:
    """Parameters of between-class mixing.

    Attributes:
        share: (B,), weight of the clip's target.
        partner: int64 (B,), index of the clip that it is mixed with.
    """

    share: Tensor
    partner: Tensor


@dataclass(frozen=True)
class StyleMixParams:
    """Parameters of mixstyle.

    Attributes:
        share: (B,), weight of the clip's own statistics; 1 without mixstyle.
        partner: int64 (B,), index of the clip whose statistics are mixed in.
    """

    share: Tensor
    partner: Tensor


@dataclass(frozen=True)
class ImageMixParams:
    """Parameters of mixup and CutMix.

    Attributes:
        partner: int64 (B,), index of the clip that it is mixed with.
        weight: (B,), mixup weight of the clip; 1 without mixup.
        time, frequency: (B, 2), start and end of the partner's stripe as fractions of the axis; equal without CutMix.
        share: (B,), weight of the clip's target.
    """

    partner: Tensor
    weight: Tensor
    time: Tensor
    frequency: Tensor
    share: Tensor

    def rows(self, clips: slice) -> ImageMixParams:
        """Select the parameters of some of the clips; `partner` still indexes the full batch."""
        return ImageMixParams(*(getattr(self, f.name)[clips] for f in fields(self)))


class Mixing:
    """Draws which clips of a batch are mixed, and how.

    A clip gets at most one of mixup and the two kinds of CutMix. Between-class mixing of the waveforms is independent.

    Args:
        alpha: both parameters of the beta distribution of the clip's share in mixup and CutMix.
        mixup: probability of mixup of the images. H. Zhang et al., mixup, ICLR 2018.
        time_cutmix: probability of a time segment of the partner. After S. Yun et al., CutMix, ICCV 2019.
        frequency_cutmix: probability of a band of mels of the partner.
        between_class: probability of mixing waveforms at equal loudness. Y. Tokozume et al., Learning from
            Between-Class Examples for Deep Sound Recognition, ICLR 2018; loudness by energy, without its A-weighting.
        mixstyle: probability of mixing the mean and the standard deviation of each band with those of another clip;
            the target stays. F. Schmid et al., CP-JKU Submission to DCASE 2022 Task 1 (Freq-MixStyle), after K. Zhou et
            al., Domain Generalization with MixStyle, ICLR 2021. Independent of the others.

    Raises:
        ArgumentError: a value is out of range.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        mixup: float = 0.0,
        time_cutmix: float = 0.0,
        frequency_cutmix: float = 0.0,
        between_class: float = 0.0,
        mixstyle: float = 0.0,
    ) -> None:
        # above 1000 every share is about a half, and the gamma draws exceed float32
        if not 0 < alpha <= 1000:
            raise ArgumentError(f"`alpha`={alpha:g} must be above 0 and at most 1000.")
        exclusive = {"mixup": mixup, "time_cutmix": time_cutmix, "frequency_cutmix": frequency_cutmix}
        for name, probability in {**exclusive, "between_class": between_class, "mixstyle": mixstyle}.items():
            check_between(name, probability, 0, 1)
        check_exclusive(exclusive, "a clip gets at most one of them")
        self.alpha, self.between_class, self.mixstyle = alpha, between_class, mixstyle
        self.mixup, self.time_cutmix, self.frequency_cutmix = mixup, time_cutmix, frequency_cutmix

    def draw_waves(self, clips: int, generator: Generator) -> WaveMixParams | None:
        """Draw between-class mixing for a batch, on the generator's device; None if it is disabled."""
        if not self.between_class:
            return None
        device = generator.device
        mixed = torch.rand(clips, generator=generator, device=device) < self.between_class
        share = torch.rand(clips, generator=generator, device=device)
        return WaveMixParams(
            share=torch.where(mixed, share, 1.0), partner=torch.randperm(clips, generator=generator, device=device)
        )

    def draw_images(self, clips: int, generator: Generator) -> ImageMixParams | None:
        """Draw mixup and CutMix for a batch, on the generator's device; None if all are disabled."""
        if not (self.mixup or self.time_cutmix or self.frequency_cutmix):
            return None
        device = generator.device
        share = self._draw_shares(clips, generator)
        choice = torch.rand(clips, generator=generator, device=device)
        start = share * torch.rand(clips, generator=generator, device=device)
        cut_after = self.mixup + self.time_cutmix
        mixup = choice < self.mixup
        cut_time = (choice >= self.mixup) & (choice < cut_after)
        cut_frequency = (choice >= cut_after) & (choice < cut_after + self.frequency_cutmix)
        stripe = torch.stack([start, start + 1 - share], dim=-1)
        empty = torch.zeros_like(stripe)
        return ImageMixParams(
            partner=torch.randperm(clips, generator=generator, device=device),
            weight=torch.where(mixup, share, 1.0),
            time=torch.where(cut_time[:, None], stripe, empty),
            frequency=torch.where(cut_frequency[:, None], stripe, empty),
            share=torch.where(mixup | cut_time | cut_frequency, share, 1.0),
        )

    def draw_styles(self, clips: int, generator: Generator) -> StyleMixParams | None:
        """Draw mixstyle for a batch, on the generator's device; None if it is disabled."""
        if not self.mixstyle:
            return None
        mixed = torch.rand(clips, generator=generator, device=generator.device) < self.mixstyle
        share = self._draw_shares(clips, generator)
        return StyleMixParams(
            share=torch.where(mixed, share, 1.0),
            partner=torch.randperm(clips, generator=generator, device=generator.device),
        )

    def _draw_shares(self, clips: int, generator: Generator) -> Tensor:
        # torch's beta sampler takes no generator: a beta variable is a ratio of two gamma variables
        alpha = torch.full((2, clips), self.alpha, device=generator.device)
        gamma = torch._standard_gamma(alpha, generator=generator)
        return (gamma[0] + 1e-20) / (gamma.sum(dim=0) + 2e-20)


def mix_waves(wave: Tensor, params: WaveMixParams) -> Tensor:
    """Mix float waveforms (B, N) so that the share of the target is the share of the perceived loudness.

    The clip's weight is p = 1 / (1 + 10^((G1 - G2) / 20) (1 - r) / r) for levels G1, G2 in dB and share r. The sum is
    divided by sqrt(p^2 + (1 - p)^2), which preserves the energy of two uncorrelated sounds.
    """
    rms = wave.square().mean(dim=1).sqrt() + 1e-6
    ratio = rms / rms[params.partner] * (1 - params.share) / params.share.clamp(min=1e-6)
    weight = (1 / (1 + ratio))[:, None]
    return (weight * wave + (1 - weight) * wave[params.partner]) / (weight.square() + (1 - weight).square()).sqrt()


def mix_styles(image: Tensor, params: StyleMixParams) -> Tensor:
    """Mix mean and standard deviation over time of each band of images (B, 1, M, T) with those of the partners."""
    std, mean = torch.std_mean(image, dim=-1, correction=0, keepdim=True)
    std = std + 1e-5
    share = params.share[:, None, None, None]
    mixed_std = torch.lerp(std[params.partner], std, share)
    return (image - mean) / std * mixed_std + torch.lerp(mean[params.partner], mean, share)


def mix_images(image: Tensor, partner: Tensor, params: ImageMixParams) -> Tensor:
    """Mix images with the images of their partners, both (B, 1, M, T)."""
    cut = inside(params.frequency, image.shape[-2])[:, None, :, None]
    cut = cut | inside(params.time, image.shape[-1])[:, None, None, :]
    return torch.where(cut, partner, torch.lerp(partner, image, params.weight[:, None, None, None]))


def soft_targets(target: Tensor, classes: int) -> Tensor:
    """Return the probabilities of the classes: hard (B,) or soft (B, classes) -> soft (B, classes)."""
    return functional.one_hot(target, classes).float() if target.ndim == 1 else target


def mix_targets(target: Tensor, classes: int, params: WaveMixParams | ImageMixParams) -> Tensor:
    """Mix targets: hard (B,) or soft (B, classes) -> soft (B, classes)."""
    soft = soft_targets(target, classes)
    return torch.lerp(soft[params.partner], soft, params.share[:, None])
