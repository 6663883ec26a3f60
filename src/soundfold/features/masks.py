"""SpecAugment masks of images."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from soundfold.features.augment_params import MaskSpec, Params, ParamSampler
from soundfold.features.transform import Transform


class Masks(Transform):
    """Sets stripes of normalized images to 0, their mean.

    Source: D. S. Park et al., SpecAugment, Interspeech 2019, without its time warp.

    Args:
        masks: number, width and probability.
        axis: that the masks are intervals of.

    Raises:
        ArgumentError: a value is out of range.
    """

    stage = "image"

    def __init__(self, masks: MaskSpec, axis: Literal["time", "frequency"]) -> None:
        super().__init__()
        masks.check(f"{axis}_masks")
        self.masks, self.axis = masks, axis

    def draw(self, sampler: ParamSampler) -> Tensor:
        """Draw start and end of each mask as fractions of the axis: (B, count, 2)."""
        return sampler.masks(self.masks)

    def forward(self, image: Tensor, intervals: Tensor) -> Tensor:
        if self.axis == "time":
            return image * ~inside(intervals, image.shape[-1]).any(dim=1)[:, None, None, :]
        return image * ~inside(intervals, image.shape[-2]).any(dim=1)[:, None, :, None]

    def examples(self, name: str) -> list[tuple[str, Params]]:
        # all masks at maximum width, evenly spaced
        center = (torch.arange(self.masks.count) + 0.5) / self.masks.count
        intervals = torch.stack([center - self.masks.width / 2, center + self.masks.width / 2], dim=-1)
        return [(f"{self.axis} masks", intervals[None])]


def inside(intervals: Tensor, size: int) -> Tensor:
    """Return which of ``size`` cells of an axis have their center in an interval: (..., 2) -> bool (..., size).

    Intervals are start and end as fractions of the axis.
    """
    center = (torch.arange(size, device=intervals.device) + 0.5) / size
    return (center >= intervals[..., :1]) & (center < intervals[..., 1:])
