"""Augmentations of waveforms: gain, polarity, time shift and colored noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from soundfold.errors import ArgumentError, check_between
from soundfold.features.augment_params import Params, ParamSampler, Uniform
from soundfold.features.segments import read_segments
from soundfold.features.transform import Transform

COLOUR_LIMITS = (-4.0, 4.0)
# samples of the noise bank: a quarter of a gigabyte, before it is doubled
MAX_BANK_SAMPLES = 1 << 26


class Gain(Transform):
    """Multiplies clips by a gain.

    Args:
        gain_db: dB.

    Raises:
        ArgumentError: a value is out of range; so do the other classes.
    """

    stage = "waveform"

    def __init__(self, gain_db: Uniform) -> None:
        super().__init__()
        # beyond, float32 overflows or nothing of a clip remains
        gain_db.check("gain_db", -120.0, 120.0)
        self.gain_db = gain_db

    def draw(self, sampler: ParamSampler) -> Tensor:
        """Draw linear factors: (B,)."""
        return 10 ** (sampler.value(self.gain_db, 0.0) / 20)

    def forward(self, wave: Tensor, gain: Tensor) -> Tensor:
        return wave * gain[:, None]

    def examples(self, name: str) -> list[tuple[str, Params]]:
        return [(f"gain, {signed(db)} dB", torch.tensor([10 ** (db / 20)])) for db in self.gain_db.ends(0.0)]


class Polarity(Transform):
    """Inverts the sign of clips.

    Args:
        polarity: share of the clips.
    """

    stage = "waveform"

    def __init__(self, polarity: float) -> None:
        super().__init__()
        check_between("polarity", polarity, 0, 1)
        self.polarity = polarity

    def draw(self, sampler: ParamSampler) -> Tensor:
        """Draw signs: (B,)."""
        return torch.where(sampler.hit(self.polarity), -1.0, 1.0)

    def forward(self, wave: Tensor, sign: Tensor) -> Tensor:
        return wave * sign[:, None]

    def examples(self, name: str) -> list[tuple[str, Params]]:
        # a log-mel does not show it
        return []


class TimeShift(Transform):
    """Shifts clips cyclically.

    Args:
        time_shift: to the right, as a fraction of the clip.
    """

    stage = "waveform"

    def __init__(self, time_shift: Uniform) -> None:
        super().__init__()
        time_shift.check("time_shift", -1.0, 1.0)
        self.time_shift = time_shift

    def draw(self, sampler: ParamSampler) -> Tensor:
        """Draw fractions of the clip: (B,)."""
        return sampler.value(self.time_shift, 0.0)

    def forward(self, wave: Tensor, shift: Tensor) -> Tensor:
        samples = wave.shape[1]
        start = -(shift * samples).long() % samples
        return read_segments(wave.repeat(1, 2), torch.arange(len(wave), device=wave.device), start, samples)

    def examples(self, name: str) -> list[tuple[str, Params]]:
        # the middle, because a cyclic shift by either end, 0 or 1, changes nothing
        shift = (self.time_shift.low + self.time_shift.high) / 2
        return [(f"time shift by {shift:g} of the clip", torch.tensor([shift]))]


class Noise(Transform):
    """Adds colored noise.

    It is read from a bank that is rendered once, for each clip from a random row and sample: new noise for every clip
    would cost a fifth of the time of its spectrogram.

    Args:
        samples: maximum length of the waveforms.
        noise_std: standard deviation relative to full scale; a published notebook uses 0.005.
        noise_snr_db: signal-to-noise ratio, dB; takes precedence.
        noise_colours: exponents of the noises' power spectra 1 / f^colour: 0 is white, 1 pink, 2 brown.
    """

    stage = "waveform"
    bank: Tensor
    ROWS_PER_COLOUR = 2

    def __init__(
        self,
        samples: int,
        noise_std: Uniform | None = None,
        noise_snr_db: Uniform | None = None,
        noise_colours: Sequence[float] = (0.0,),
    ) -> None:
        super().__init__()
        self.samples, self.noise_std, self.noise_snr_db = samples, noise_std, noise_snr_db
        if noise_std is not None:
            noise_std.check("noise_std", 0.0, 10.0)
        if noise_snr_db is not None:
            noise_snr_db.check("noise_snr_db", -120.0, 120.0)
        colours = noise_colours if noise_std or noise_snr_db else ()
        _check_colours(noise_colours, self.ROWS_PER_COLOUR * len(colours) * samples)
        bank = noise_bank([colour for colour in colours for _ in range(self.ROWS_PER_COLOUR)], samples)
        # the noises are periodic: two periods, so that they can be read from any sample
        self.register_buffer("bank", bank.repeat(1, 2), persistent=False)

    def draw(self, sampler: ParamSampler) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor] | None:
        """Draw (B,) each: standard deviation, or None; SNR in dB, infinite without noise, or None; row; first sample.

        None if there is no noise.
        """
        if not len(self.bank):
            return None
        std = None if self.noise_std is None else sampler.value(self.noise_std, 0.0)
        snr = None if self.noise_snr_db is None else sampler.value(self.noise_snr_db, float("inf"))
        return std, snr, sampler.index(len(self.bank)), sampler.index(self.samples)

    def forward(self, wave: Tensor, params: tuple[Tensor | None, Tensor | None, Tensor, Tensor] | None) -> Tensor:
        if params is None:
            return wave
        std, snr, row, start = params
        if snr is not None:
            # a silent clip has no power to compare with: it stays silent
            relative_std = wave.square().mean(dim=1).sqrt() * 10 ** (-snr / 20)
            std = relative_std if std is None else torch.where(snr.isfinite(), relative_std, std)
        assert std is not None
        return torch.addcmul(wave, std[:, None], read_segments(self.bank, row, start, wave.shape[1]))

    def examples(self, name: str) -> list[tuple[str, Params]]:
        zero = torch.zeros(1, dtype=torch.int64)
        stds = [] if self.noise_std is None else self.noise_std.ends(0.0)
        snrs = [] if self.noise_snr_db is None else self.noise_snr_db.ends(float("inf"))
        return [
            *((f"noise, {std:g} of full scale", (torch.tensor([std]), None, zero, zero)) for std in stds),
            *((f"noise, {snr:g} dB SNR", (None, torch.tensor([snr]), zero, zero)) for snr in snrs),
        ]


def _check_colours(colours: Sequence[float], bank_samples: int) -> None:
    if not colours:
        raise ArgumentError("`noise_colours` is empty. Set it to [0] for white noise.")
    for colour in colours:
        check_between("noise_colours", colour, *COLOUR_LIMITS)
    if bank_samples > MAX_BANK_SAMPLES:
        raise ArgumentError(
            f"`noise_colours`: a noise bank of {len(colours)} colors takes {8 * bank_samples / 1e9:.1f} GB for clips "
            "of this length. Use fewer colors or shorter clips."
        )


def noise_bank(colours: list[float], samples: int) -> Tensor:
    """Render a noise with power spectrum 1 / f^colour, period ``samples`` and std 1 per color: (len(colours), samples).

    The bank is the same in all runs; only the row and the sample that clips read from are random.
    """
    if not colours:
        return torch.zeros(0, samples)
    spectrum = torch.fft.rfft(torch.randn(len(colours), samples, generator=torch.Generator().manual_seed(0)))
    frequency = torch.arange(spectrum.shape[1]).clamp(min=1)
    spectrum[:, 0] = 0
    noise = torch.fft.irfft(spectrum * frequency ** (-torch.tensor(colours)[:, None] / 2), samples)
    return noise / noise.std(dim=1, keepdim=True)


def signed(value: float) -> str:
    """Return a number with its sign, as a typographic minus."""
    return f"{value:+g}".replace("-", "−")
