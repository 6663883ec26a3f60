"""Random augmentation of training clips: parameters are drawn per clip, then applied by pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from soundfold.errors import ArgumentError, check_between
from soundfold.features.augment_params import AugmentParams, MaskSpec, ParamSampler, Uniform, check_exclusive

# beyond these, float32 overflows or nothing of a clip remains
LIMITS = {
    "time_stretch": (0.1, 10.0),
    "pitch_shift": (-60.0, 60.0),
    "noise_std": (0.0, 10.0),
    "noise_snr_db": (-120.0, 120.0),
    "gain_db": (-120.0, 120.0),
    "time_shift": (-1.0, 1.0),
}
COLOUR_LIMITS = (-4.0, 4.0)
# samples of the noise bank: a quarter of a gigabyte, before it is doubled
MAX_BANK_SAMPLES = 1 << 26


class Augmentation(nn.Module):
    """Draws augmentation parameters for every clip, and applies those that act on waveforms.

    Noise is read from a bank that is rendered once, for each clip from a random row and sample: new noise for every
    clip would cost a fifth of the time of its spectrogram.

    Args:
        samples: maximum length of the waveforms, samples.
        time_stretch: rate; above 1 is faster.
        pitch_shift: semitones; above 0 is higher.
        noise_std: standard deviation of added noise relative to full scale; a published notebook uses 0.005.
        noise_snr_db: signal-to-noise ratio, dB.
        noise_colours: exponents of the noises' power spectra 1 / f^colour: 0 is white, 1 pink, 2 brown.
        gain_db: gain, dB.
        polarity: probability of inverting a clip's polarity.
        time_shift: cyclic shift, as a fraction of the clip.
        time_masks, frequency_masks: SpecAugment masks.
        one_of: apply at most one of time stretch, pitch shift, noise, gain and time shift to a clip, by their ``p``.

    Raises:
        ArgumentError: a range is reversed or a value is out of range.
    """

    bank: Tensor
    ROWS_PER_COLOUR = 2

    def __init__(
        self,
        samples: int,
        time_stretch: Uniform | None = None,
        pitch_shift: Uniform | None = None,
        noise_std: Uniform | None = None,
        noise_snr_db: Uniform | None = None,
        noise_colours: Sequence[float] = (0.0,),
        gain_db: Uniform | None = None,
        polarity: float = 0.0,
        time_shift: Uniform | None = None,
        time_masks: MaskSpec | None = None,
        frequency_masks: MaskSpec | None = None,
        one_of: bool = False,
    ) -> None:
        super().__init__()
        self.samples, self.polarity, self.one_of = samples, polarity, one_of
        self.time_stretch, self.pitch_shift, self.time_shift = time_stretch, pitch_shift, time_shift
        self.noise_std, self.noise_snr_db, self.gain_db = noise_std, noise_snr_db, gain_db
        self.time_masks, self.frequency_masks = time_masks, frequency_masks
        self._check()
        colours = noise_colours if noise_std or noise_snr_db else ()
        _check_colours(noise_colours, self.ROWS_PER_COLOUR * len(colours) * samples)
        bank = noise_bank([colour for colour in colours for _ in range(self.ROWS_PER_COLOUR)], samples)
        # the noises are periodic: two periods, so that they can be read from any sample
        self.register_buffer("bank", bank.repeat(1, 2), persistent=False)

    def _check(self) -> None:
        specs = {name: spec for name in LIMITS if (spec := getattr(self, name)) is not None}
        for name, spec in specs.items():
            spec.check(name, *LIMITS[name])
        if self.one_of:
            probabilities = {f"{name}.p": spec.p for name, spec in specs.items()}
            check_exclusive(probabilities, "`one_of` applies at most one of them to a clip")
        for name in ("time_masks", "frequency_masks"):
            if masks := getattr(self, name):
                masks.check(name)
        check_between("polarity", self.polarity, 0, 1)

    def draw(self, clips: int, generator: Generator, augmented: Tensor | None = None) -> AugmentParams:
        """Draw the parameters of a batch, on the generator's device.

        Args:
            clips: number of clips B.
            generator: source of randomness.
            augmented: bool (B,); the other clips get neutral values. None augments all.
        """
        sampler = ParamSampler(clips, generator, augmented, self.one_of)
        # the order of the draws below determines every seeded result
        gain = sampler.value(self.gain_db, 0.0)
        gain = gain if gain is None else 10 ** (gain / 20)
        if self.polarity:
            sign = torch.where(sampler.hit(self.polarity), -1.0, 1.0)
            gain = sign if gain is None else gain * sign
        return AugmentParams(
            time_shift=sampler.value(self.time_shift, 0.0),
            gain=gain,
            noise_std=sampler.value(self.noise_std, 0.0),
            noise_snr=sampler.value(self.noise_snr_db, float("inf")),
            noise_row=sampler.index(max(1, len(self.bank))),
            noise_start=sampler.index(self.samples),
            time_stretch=sampler.value(self.time_stretch, 1.0),
            pitch_shift=sampler.value(self.pitch_shift, 0.0),
            time_masks=sampler.masks(self.time_masks),
            frequency_masks=sampler.masks(self.frequency_masks),
        )

    def apply_to_wave(self, wave: Tensor, params: AugmentParams) -> Tensor:
        """Apply time shift, gain, polarity and noise: float32 (B, N) -> (B, N), N at most `samples`."""
        samples = wave.shape[1]
        if params.time_shift is not None:
            start = -(params.time_shift * samples).long() % samples
            wave = _read_rows(wave.repeat(1, 2), torch.arange(len(wave), device=wave.device), start, samples)
        if params.gain is not None:
            wave = wave * params.gain[:, None]
        std = params.noise_std
        if params.noise_snr is not None:
            # a silent clip has no power to compare with: it stays silent
            relative_std = wave.square().mean(dim=1).sqrt() * 10 ** (-params.noise_snr / 20)
            std = relative_std if std is None else torch.where(params.noise_snr.isfinite(), relative_std, std)
        if std is None:
            return wave
        noise = _read_rows(self.bank, params.noise_row, params.noise_start, samples)
        return torch.addcmul(wave, std[:, None], noise)


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


def _read_rows(rows: Tensor, row: Tensor, start: Tensor, length: int) -> Tensor:
    """Read a segment of a row for each clip: (R, N), row and start int64 (B,) -> (B, length)."""
    if rows.device.type == "cpu":
        # on a CPU, an index for every sample takes longer than the rest of the augmentation
        return torch.stack([rows[r, s : s + length] for r, s in zip(row.tolist(), start.tolist(), strict=True)])
    index = torch.arange(length, device=rows.device) + start[:, None]
    return rows.flatten()[index + row[:, None] * rows.shape[1]]


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


def apply_masks(image: Tensor, params: AugmentParams) -> Tensor:
    """Set the masked cells of normalized images to 0, their mean: (B, 1, M, T) -> (B, 1, M, T).

    Source: D. S. Park et al., SpecAugment, Interspeech 2019, without its time warp.
    """
    if params.frequency_masks is not None:
        image = image * ~inside(params.frequency_masks, image.shape[-2]).any(dim=1)[:, None, :, None]
    if params.time_masks is not None:
        image = image * ~inside(params.time_masks, image.shape[-1]).any(dim=1)[:, None, None, :]
    return image


def inside(intervals: Tensor, size: int) -> Tensor:
    """Return which of ``size`` cells of an axis have their center in an interval: (..., 2) -> bool (..., size).

    Intervals are start and end as fractions of the axis.
    """
    center = (torch.arange(size, device=intervals.device) + 0.5) / size
    return (center >= intervals[..., :1]) & (center < intervals[..., 1:])
