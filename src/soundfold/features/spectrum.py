"""Augmentations of power spectra: time stretch, pitch shift and filters."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from soundfold.errors import check_between
from soundfold.features.augment_params import Params, ParamSampler, Uniform
from soundfold.features.transform import Transform
from soundfold.features.waveform import signed

FilterKind = Literal["low_pass", "high_pass", "band_pass"]


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


class Filter(Transform):
    """Filters clips by a Butterworth filter of order `ORDER` with a drawn frequency.

    The power spectrum is multiplied by the squared magnitude of the digital filter's response, as that of
    ``scipy.signal.butter(ORDER, frequency, fs=sample_rate)``. A log-mel discards phases, so no waveform is filtered.

    Args:
        kind: ``low_pass`` or ``high_pass`` at the frequency, or ``band_pass`` around it, a high-pass followed by a
            low-pass.
        sample_rate: Hz.
        n_fft: transform length of the power spectrum, samples.
        low, high: range of the frequency, Hz; drawn uniformly on a logarithmic scale.
        octaves: width of ``band_pass``.

    Raises:
        ArgumentError: a value is out of range.
    """

    stage = "spectrum"
    ORDER = 4
    warped: Tensor

    def __init__(
        self,
        kind: FilterKind,
        sample_rate: int,
        n_fft: int,
        low: float,
        high: float,
        octaves: float = 2.0,
    ) -> None:
        super().__init__()
        Uniform(low, high).check(kind, 1.0, sample_rate / 2)
        check_between(f"{kind}.octaves", octaves, 0.01, 20.0)
        self.kind, self.sample_rate, self.octaves = kind, sample_rate, octaves
        self.octave = Uniform(math.log2(low), math.log2(high))
        # of the bilinear transform, which maps half the rate to infinity
        frequency = torch.arange(n_fft // 2 + 1, dtype=torch.float64) / n_fft
        self.register_buffer("warped", torch.tan(torch.pi * frequency).float(), persistent=False)

    def draw(self, sampler: ParamSampler) -> Tensor:
        """Draw frequencies: (B,), Hz."""
        return torch.exp2(sampler.value(self.octave))

    def forward(self, power: Tensor, frequency: Tensor) -> Tensor:
        return power * self.response(frequency)[:, :, None]

    def response(self, frequency: Tensor) -> Tensor:
        """Return squared magnitudes of the response: (B,), Hz -> (B, n_fft // 2 + 1)."""
        half = self.octaves / 2
        if self.kind == "low_pass":
            return self._low_pass(frequency)
        if self.kind == "high_pass":
            return self._high_pass(frequency)
        return self._low_pass(frequency * 2**half) * self._high_pass(frequency * 2**-half)

    def _low_pass(self, frequency: Tensor) -> Tensor:
        return 1 / (1 + (self.warped / self._warp(frequency)) ** (2 * self.ORDER))

    def _high_pass(self, frequency: Tensor) -> Tensor:
        return 1 / (1 + (self._warp(frequency) / self.warped) ** (2 * self.ORDER))

    def _warp(self, frequency: Tensor) -> Tensor:
        return torch.tan(torch.pi * (frequency / self.sample_rate).clamp(max=0.4999))[:, None]

    def examples(self, name: str) -> list[tuple[str, Params]]:
        label = self.kind.replace("_", "-")
        ends = dict.fromkeys((self.octave.low, self.octave.high))
        return [(f"{label}, {2**octave:,.0f} Hz", torch.tensor([2**octave])) for octave in ends]
