"""Random variation of training clips: drawn per clip as small tensors, then applied by pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Generator, Tensor, nn

from soundfold.errors import InputError


@dataclass(frozen=True)
class Uniform:
    """A value drawn evenly from [low, high], for a clip in `p` of the cases; else the neutral value.

    With `integer` it is a whole number, each as likely as the next.
    """

    low: float
    high: float
    p: float = 1.0
    integer: bool = False


@dataclass(frozen=True)
class MaskSpec:
    """SpecAugment masks on one axis: `count` of them, each up to `width` (a fraction of the axis) wide."""

    count: int
    width: float
    p: float = 1.0


@dataclass(frozen=True)
class AugmentParams:
    """What a batch of B clips drew; every tensor lies on the training device, and None is left out.

    Attributes:
        time_shift: (B,), by which part of its length the waveform turns to the right.
        gain: (B,), factor on the waveform; its sign is the polarity.
        noise_std: (B,), standard deviation of the added noise, full scale being 1; of clips that also drew a
            signal-to-noise ratio, the latter counts.
        noise_snr: (B,), dB, not finite where none was drawn.
        noise_row, noise_start: int64 (B,), which noise of the bank, from which sample on.
        time_stretch: (B,), time stretch, above 1 is faster.
        pitch_shift: (B,), pitch shift, above 0 is higher.
        time_masks, frequency_masks: (B, n, 2), start and end of each mask as fractions of the axis.
    """

    time_shift: Tensor | None
    gain: Tensor | None
    noise_std: Tensor | None
    noise_snr: Tensor | None
    noise_row: Tensor
    noise_start: Tensor
    time_stretch: Tensor | None
    pitch_shift: Tensor | None
    time_masks: Tensor | None
    frequency_masks: Tensor | None

    def rows(self, clips: Tensor | slice) -> AugmentParams:
        """The draws of some of the clips, as a batch of their own."""
        part: dict[str, Any] = {}
        for name in (f.name for f in fields(self)):
            drawn = getattr(self, name)
            part[name] = None if drawn is None else drawn[clips]
        return AugmentParams(**part)


# what can be drawn: beyond it float32 overflows, or nothing is left of a clip
LIMITS = {
    "time_stretch": (0.1, 10.0),
    "pitch_shift": (-60.0, 60.0),
    "noise_std": (0.0, 10.0),
    "noise_snr_db": (-120.0, 120.0),
    "gain_db": (-120.0, 120.0),
    "time_shift": (-1.0, 1.0),
    "noise_colours": (-4.0, 4.0),
}
MOST_MASKS = 100
# of the bank of noises, a quarter of a gigabyte before it is doubled
MOST_NOISE = 1 << 26


class Augmentation(nn.Module):
    """Draws, for every clip on its own, how it is varied, and varies waveforms and images accordingly.

    Noise is read from a bank that is rendered once, each clip from a row and a place of its own: a new noise for every
    clip would cost as much as a fifth of its spectrogram.

    Args:
        samples: length of the clips; what is varied may be shorter.
        time_stretch: time-stretch rate; above 1 is faster.
        pitch_shift: pitch shift.
        noise_std: standard deviation of added noise, full scale being 1; 0.005 is a published notebook's.
        noise_snr_db: the clip's own power over the noise's, dB.
        noise_colours: the bank's noises have power spectra of 1 / f^colour: 0 is white, 1 pink, 2 brown.
        gain_db: gain.
        polarity: chance of a clip to be turned upside down.
        time_shift: cyclic shift, as a fraction of the clip.
        time_masks, frequency_masks: SpecAugment.
        one_of: a clip gets at most one of stretch, semitones, noises, gain and roll, by their probabilities.

    Raises:
        InputError: a range is reversed or a value outside its rule.
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
        ranges = {
            "time_stretch": time_stretch,
            "pitch_shift": pitch_shift,
            "noise_std": noise_std,
            "noise_snr_db": noise_snr_db,
            "gain_db": gain_db,
            "time_shift": time_shift,
        }
        for name, drawn in ranges.items():
            if drawn and drawn.low > drawn.high:
                raise InputError(f"augment.{name}: low={drawn.low:g} is above high={drawn.high:g}; turn them round.")
            for end in ("low", "high") if drawn else ():
                _refuse_beyond(f"{name}.{end}", getattr(drawn, end), *LIMITS[name])
            if drawn and drawn.integer and not (float(drawn.low).is_integer() and float(drawn.high).is_integer()):
                raise InputError(
                    f"augment.{name}: low={drawn.low:g} and high={drawn.high:g} must be integers: integer=true."
                )
        chances = {name: drawn.p for name, drawn in ranges.items() if drawn}
        if one_of and sum(chances.values()) > 1 + 1e-6:
            raise InputError(
                f"augment.one_of: the probabilities of {', '.join(chances)} sum to {sum(chances.values()):g}; a clip "
                "gets at most one of them, so the sum must not exceed 1."
            )
        for name, masks in {"time_masks": time_masks, "frequency_masks": frequency_masks}.items():
            if masks:
                chances |= {name: masks.p, f"{name}.width": masks.width}
                if not 1 <= masks.count <= MOST_MASKS:
                    raise InputError(
                        f"augment.{name}.count={masks.count} must lie within 1 and {MOST_MASKS}; null leaves masks out."
                    )
        for name, chance in {**chances, "polarity": polarity}.items():
            if not 0 <= chance <= 1:
                raise InputError(f"augment.{name}: {chance:g} must lie between 0 and 1.")
        if not noise_colours:
            raise InputError("augment.noise_colours is empty; [0] is white noise.")
        for colour in noise_colours:
            _refuse_beyond("noise_colours", colour, *LIMITS["noise_colours"])
        self.samples, self.polarity, self.one_of = samples, polarity, one_of
        self.time_stretch, self.pitch_shift, self.gain_db, self.time_shift = (
            time_stretch,
            pitch_shift,
            gain_db,
            time_shift,
        )
        self.noise_std, self.noise_snr_db = noise_std, noise_snr_db
        self.time_masks, self.frequency_masks = time_masks, frequency_masks
        rows = [c for c in noise_colours for _ in range(self.ROWS_PER_COLOUR)] if noise_std or noise_snr_db else []
        if len(rows) * samples > MOST_NOISE:
            raise InputError(
                f"augment.noise_colours: {len(noise_colours)} colours of noise for clips of {samples:,} samples take "
                f"{8 * len(rows) * samples / 1e9:.1f} GB. Give fewer, or shorter data.seconds."
            )
        # twice over: a noise is periodic, and so can be read on from any sample
        self.register_buffer("bank", noise_bank(rows, samples).repeat(1, 2), persistent=False)

    def draw(self, clips: int, generator: Generator, varied: Tensor | None = None) -> AugmentParams:
        """AugmentParams for a batch, on the generator's device.

        Args:
            varied: bool (clips,); the others draw the neutral value. None varies all.
        """
        device = generator.device
        varied = torch.ones(clips, dtype=torch.bool, device=device) if varied is None else varied
        # one_of: each variation takes the clips whose choice falls into its own part of [0, 1)
        choice, taken = None, 0.0

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        def between(drawn: Uniform | None, neutral: float) -> Tensor | None:
            if drawn is None:
                return None
            value = drawn.low + (drawn.high - drawn.low + drawn.integer) * uniform(clips)
            value = value.floor().clamp(max=drawn.high) if drawn.integer else value
            hit = uniform(clips) < drawn.p
            if choice is not None:
                nonlocal taken
                hit = (choice >= taken) & (choice < taken + drawn.p)
                taken += drawn.p
            return torch.where(hit & varied, value, neutral)

        def stripes(masks: MaskSpec | None) -> Tensor | None:
            if masks is None:
                return None
            drawn = (uniform(clips, masks.count) < masks.p) & varied[:, None]
            length = masks.width * uniform(clips, masks.count) * drawn
            start = (1 - length) * uniform(clips, masks.count)
            return torch.stack([start, start + length], dim=-1)

        def below(limit: int) -> Tensor:
            return (limit * uniform(clips)).long().clamp(max=limit - 1)

        choice = uniform(clips) if self.one_of else None
        gain = between(self.gain_db, 0.0)
        gain = gain if gain is None else 10 ** (gain / 20)
        if self.polarity:
            sign = torch.where((uniform(clips) < self.polarity) & varied, -1.0, 1.0)
            gain = sign if gain is None else gain * sign
        return AugmentParams(
            time_shift=between(self.time_shift, 0.0),
            gain=gain,
            noise_std=between(self.noise_std, 0.0),
            noise_snr=between(self.noise_snr_db, float("inf")),
            noise_row=below(max(1, len(self.bank))),
            noise_start=below(self.samples),
            time_stretch=between(self.time_stretch, 1.0),
            pitch_shift=between(self.pitch_shift, 0.0),
            time_masks=stripes(self.time_masks),
            frequency_masks=stripes(self.frequency_masks),
        )

    def apply_to_wave(self, wave: Tensor, draw: AugmentParams) -> Tensor:
        """Roll, gain, polarity, noise: (B, N) -> (B, N), N at most `samples`."""
        samples = wave.shape[1]
        if draw.time_shift is not None:
            start = -(draw.time_shift * samples).long() % samples
            wave = _windows(wave.repeat(1, 2), torch.arange(len(wave), device=wave.device), start, samples)
        if draw.gain is not None:
            wave = wave * draw.gain[:, None]
        std = draw.noise_std
        if draw.noise_snr is not None:
            # silence has no level to be below: it stays silent
            own = wave.square().mean(dim=1).sqrt() * 10 ** (-draw.noise_snr / 20)
            std = own if std is None else torch.where(draw.noise_snr.isfinite(), own, std)
        if std is None:
            return wave
        return torch.addcmul(wave, std[:, None], _windows(self.bank, draw.noise_row, draw.noise_start, samples))


def _refuse_beyond(key: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # nan is neither
        raise InputError(f"augment.{key}={value:g} must lie within {least:g} and {most:g}.")


def _windows(rows: Tensor, row: Tensor, start: Tensor, length: int) -> Tensor:
    """Parts of rows: (R, N), row and start int64 (B,) -> (B, length)."""
    if rows.device.type == "cpu":
        # slices; an index for every sample would take longer than the rest of the variation
        return torch.stack([rows[r, s : s + length] for r, s in zip(row.tolist(), start.tolist(), strict=True)])
    at = torch.arange(length, device=rows.device) + start[:, None]
    return rows.flatten()[at + row[:, None] * rows.shape[1]]


def noise_bank(colours: list[float], samples: int) -> Tensor:
    """One noise of standard deviation 1 for each exponent of 1 / f^colour: float32 (len(colours), samples).

    Each is periodic, so that it may be read from any sample on. The same for all runs: what varies is the draw.
    """
    if not colours:
        return torch.zeros(0, samples)
    white = torch.fft.rfft(torch.randn(len(colours), samples, generator=torch.Generator().manual_seed(0)))
    frequency = torch.arange(white.shape[1]).clamp(min=1)
    white[:, 0] = 0
    noise = torch.fft.irfft(white * frequency ** (-torch.tensor(colours)[:, None] / 2), samples)
    return noise / noise.std(dim=1, keepdim=True)


def apply_masks(image: Tensor, draw: AugmentParams) -> Tensor:
    """Set the drawn stripes of normalize images to 0, their mean: (B, 1, M, T) -> (B, 1, M, T).

    Source: D. S. Park et al., SpecAugment, Interspeech 2019, without its time warp.
    """
    if draw.frequency_masks is not None:
        image = image * ~_covered(draw.frequency_masks, image.shape[-2])[:, None, :, None]
    if draw.time_masks is not None:
        image = image * ~_covered(draw.time_masks, image.shape[-1])[:, None, None, :]
    return image


def _covered(stripes: Tensor, size: int) -> Tensor:
    """Cells whose centre lies in a stripe: (B, n, 2) -> bool (B, size)."""
    centre = (torch.arange(size, device=stripes.device) + 0.5) / size
    return ((centre >= stripes[..., :1]) & (centre < stripes[..., 1:])).any(dim=1)
