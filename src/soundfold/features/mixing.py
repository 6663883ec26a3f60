"""Mixing of training clips and of their targets: each kind draws its parameters, then applies them to a batch."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from soundfold.errors import ArgumentError, check_between
from soundfold.features.augment_params import ParamSampler, Uniform, check_exclusive
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


class BetweenClass:
    """Mixes waveforms so that the share of the target is the share of the perceived loudness.

    The clip's weight is p = 1 / (1 + 10^((G1 - G2) / 20) (1 - r) / r) for levels G1, G2 in dB and share r. The sum is
    divided by sqrt(p^2 + (1 - p)^2), which preserves the energy of two uncorrelated sounds.

    Source: Y. Tokozume et al., Learning from Between-Class Examples for Deep Sound Recognition, ICLR 2018; loudness by
    energy, without its A-weighting.

    Args:
        p: share of the clips.
    """

    def __init__(self, p: float) -> None:
        self.p = p

    def draw(self, sampler: ParamSampler) -> WaveMixParams:
        share = sampler.value(Uniform(0.0, 1.0, self.p), 1.0)
        return WaveMixParams(share, partner=sampler.partners())

    def forward(self, wave: Tensor, params: WaveMixParams) -> Tensor:
        """Mix the float waveforms of a batch: (B, N) -> (B, N)."""
        rms = wave.square().mean(dim=1).sqrt() + 1e-6
        ratio = rms / rms[params.partner] * (1 - params.share) / params.share.clamp(min=1e-6)
        weight = (1 / (1 + ratio))[:, None]
        return (weight * wave + (1 - weight) * wave[params.partner]) / (weight.square() + (1 - weight).square()).sqrt()


class ImageMixing:
    """Mixes images by at most one of mixup and the two kinds of CutMix.

    Sources: H. Zhang et al., mixup, ICLR 2018; after S. Yun et al., CutMix, ICCV 2019.

    Args:
        alpha: both parameters of the beta distribution of the clip's share.
        mixup, time_cutmix, frequency_cutmix: shares of the clips.
    """

    def __init__(self, alpha: float, mixup: float, time_cutmix: float, frequency_cutmix: float) -> None:
        self.alpha, self.mixup = alpha, mixup
        self.time_cutmix, self.frequency_cutmix = time_cutmix, frequency_cutmix

    def draw(self, sampler: ParamSampler) -> ImageMixParams:
        share = draw_shares(self.alpha, sampler)
        choice = sampler.uniform()
        start = share * sampler.uniform()
        cut_after = self.mixup + self.time_cutmix
        no_mixup = choice >= self.mixup
        cut_time = no_mixup & (choice < cut_after)
        cut_frequency = (choice >= cut_after) & (choice < cut_after + self.frequency_cutmix)
        stripe = torch.stack([start, start + 1 - share], dim=-1)
        return ImageMixParams(
            partner=sampler.partners(),
            weight=share.masked_fill(no_mixup, 1.0),
            time=stripe * cut_time[:, None],
            frequency=stripe * cut_frequency[:, None],
            share=share.masked_fill(choice >= cut_after + self.frequency_cutmix, 1.0),
        )

    def forward(self, image: Tensor, partner: Tensor, params: ImageMixParams) -> Tensor:
        """Mix images with the images of their partners, both (B, 1, M, T)."""
        mixed = torch.lerp(partner, image, params.weight[:, None, None, None]) if self.mixup else image
        if self.frequency_cutmix:
            mixed = torch.where(inside(params.frequency, image.shape[-2])[:, None, :, None], partner, mixed)
        if self.time_cutmix:
            mixed = torch.where(inside(params.time, image.shape[-1])[:, None, None, :], partner, mixed)
        return mixed


class MixStyle:
    """Mixes mean and standard deviation over time of each band of images; the targets stay.

    Source: F. Schmid et al., CP-JKU Submission to DCASE 2022 Task 1 (Freq-MixStyle), after K. Zhou et al., Domain
    Generalization with MixStyle, ICLR 2021.

    Args:
        alpha: both parameters of the beta distribution of the clip's share.
        p: share of the clips.
    """

    def __init__(self, alpha: float, p: float) -> None:
        self.alpha, self.p = alpha, p

    def draw(self, sampler: ParamSampler) -> StyleMixParams:
        share = draw_shares(self.alpha, sampler).masked_fill_(~sampler.hit(self.p), 1.0)
        return StyleMixParams(share, partner=sampler.partners())

    def forward(self, image: Tensor, params: StyleMixParams) -> Tensor:
        """Mix the statistics of the images of a batch: (B, 1, M, T) -> (B, 1, M, T)."""
        std, mean = torch.std_mean(image, dim=-1, correction=0, keepdim=True)
        std = std + 1e-5
        share = params.share[:, None, None, None]
        mixed_std = torch.lerp(std[params.partner], std, share)
        return (image - mean) / std * mixed_std + torch.lerp(mean[params.partner], mean, share)


class Mixing:
    """The mixing of clips with other clips of their batch.

    Each kind draws and applies its parameters as a `soundfold.features.transform.Transform` does, but it needs all
    clips of the batch. The three kinds are independent.

    Args:
        alpha: both parameters of the beta distribution of the clip's share in `ImageMixing` and `MixStyle`.
        mixup, time_cutmix, frequency_cutmix: shares of the clips, see `ImageMixing`.
        between_class: share of the clips, see `BetweenClass`.
        mixstyle: share of the clips, see `MixStyle`.

    Attributes:
        waves, images, styles: the kinds; None if disabled.

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
        self.waves = BetweenClass(between_class) if between_class else None
        self.images = ImageMixing(alpha, **exclusive) if any(exclusive.values()) else None
        self.styles = MixStyle(alpha, mixstyle) if mixstyle else None


def draw_shares(alpha: float, sampler: ParamSampler) -> Tensor:
    """Draw from the beta distribution of parameters alpha and alpha: (B,)."""
    # torch's beta sampler takes no generator: a beta variable is a ratio of two gamma variables
    gamma = torch._standard_gamma(
        torch.full((2, sampler.clips), alpha, device=sampler.device), generator=sampler.generator
    )
    return (gamma[0] + 1e-20) / (gamma.sum(dim=0) + 2e-20)


def soft_targets(target: Tensor, classes: int) -> Tensor:
    """Return the probabilities of the classes: hard (B,) or soft (B, classes) -> soft (B, classes)."""
    return functional.one_hot(target, classes).float() if target.ndim == 1 else target


def mix_targets(target: Tensor, classes: int, params: WaveMixParams | ImageMixParams) -> Tensor:
    """Mix targets: hard (B,) or soft (B, classes) -> soft (B, classes)."""
    soft = soft_targets(target, classes)
    return torch.lerp(soft[params.partner], soft, params.share[:, None])
