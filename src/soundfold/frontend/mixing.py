"""Mixing of training images and of their targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from soundfold.errors import InputError


@dataclass(frozen=True)
class MixDraw:
    """Attributes: weight (B,), the share of the clip itself; partner int64 (B,), whom it is mixed with."""

    weight: Tensor
    partner: Tensor


class Mixup:
    """Convex combinations of pairs of clips, drawn per clip.

    Source: H. Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018.

    Args:
        alpha: both parameters of the beta distribution of the weight; 0 mixes nothing.
        probability: chance of a clip to be mixed.

    Raises:
        InputError: a value outside its rule.
    """

    def __init__(self, alpha: float = 0.2, probability: float = 1.0) -> None:
        if alpha < 0:
            raise InputError(f"augment.mixup_alpha={alpha:g} must not be negative; 0 mixes nothing.")
        if not 0 <= probability <= 1:
            raise InputError(f"augment.mixup_probability={probability:g} must lie between 0 and 1.")
        self.alpha, self.probability = alpha, probability

    def draw(self, clips: int, generator: Generator) -> MixDraw:
        """Draw weights and partners for a batch, on the generator's device."""
        device = generator.device
        weight = torch.ones(clips, device=device)
        if self.alpha > 0:
            # torch has no beta sampler that takes a generator; two gamma draws make one
            gamma = torch._standard_gamma(torch.full((2, clips), self.alpha, device=device), generator=generator)
            weight = (gamma[0] + 1e-20) / (gamma.sum(dim=0) + 2e-20)
        mixed = torch.rand(clips, generator=generator, device=device) < self.probability
        return MixDraw(
            weight=torch.where(mixed, weight, 1.0),
            partner=torch.randperm(clips, generator=generator, device=device),
        )


def mix(image: Tensor, target: Tensor, classes: int, draw: MixDraw) -> tuple[Tensor, Tensor]:
    """Mix images (B, 1, M, T) and turn hard targets (B,) into soft ones (B, classes)."""
    soft = functional.one_hot(target, classes).to(image.dtype)
    share = draw.weight[:, None]
    mixed = torch.lerp(image[draw.partner], image, share[..., None, None])
    return mixed, torch.lerp(soft[draw.partner], soft, share)
