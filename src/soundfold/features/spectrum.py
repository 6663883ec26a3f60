"""Augmentations of power spectra: time stretch and pitch shift."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from soundfold.features.augment_params import Params, ParamSampler, Uniform
from soundfold.features.transform import Transform
from soundfold.features.waveform import signed


class Axes(NamedTuple):
    """The axes by which `LogMel.from_power` reads a power spectrum, once for both changes; None is unchanged.

    Attributes:
        time_stretch: (B,), rate; above 1 is faster.
        pitch_shift: (B,), semitones; above 0 is higher.
    """

    time_stretch: Tensor | None = None
    pitch_shift: Tensor | None = None


class TimeStretch(Transform):
    """Stretches clips in time.

    Args:
        time_stretch: rate; above 1 is faster.

    Raises:
        ArgumentError: a value is out of range.
    """

    stage = "axes"

    def __init__(self, time_stretch: Uniform) -> None:
        super().__init__()
        time_stretch.check("time_stretch", 0.1, 10.0)
        self.time_stretch = time_stretch

    def draw(self, sampler: ParamSampler) -> Tensor:
        """Draw rates: (B,)."""
        return sampler.value(self.time_stretch, 1.0)

    def forward(self, axes: Axes, rate: Tensor) -> Axes:
        return axes._replace(time_stretch=rate)

    def examples(self, name: str) -> list[tuple[str, Params]]:
        return [(f"time stretch, {rate:g} x speed", torch.tensor([rate])) for rate in self.time_stretch.ends(1.0)]


class PitchShift(Transform):
    """Shifts the pitch of clips.

    Args:
        pitch_shift: semitones; above 0 is higher.

    Raises:
        ArgumentError: a value is out of range.
    """

    stage = "axes"

    def __init__(self, pitch_shift: Uniform) -> None:
        super().__init__()
        pitch_shift.check("pitch_shift", -60.0, 60.0)
        self.pitch_shift = pitch_shift

    def draw(self, sampler: ParamSampler) -> Tensor:
        """Draw semitones: (B,)."""
        return sampler.value(self.pitch_shift, 0.0)

    def forward(self, axes: Axes, semitones: Tensor) -> Axes:
        return axes._replace(pitch_shift=semitones)

    def examples(self, name: str) -> list[tuple[str, Params]]:
        return [(f"pitch shift, {signed(n)} semitones", torch.tensor([n])) for n in self.pitch_shift.ends(0.0)]
