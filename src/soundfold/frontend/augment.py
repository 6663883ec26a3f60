"""Random variation of training clips: drawn per clip as small tensors, then applied by pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from soundfold.errors import InputError

Range = tuple[float, float]


@dataclass(frozen=True)
class Draw:
    """What one batch of B clips drew; every tensor lies on the training device.

    Attributes:
        gain: (B,) factor on the waveform.
        roll: (B,) int64, samples by which the waveform turns to the right.
        noise: (B,) standard deviation of the white noise that is added, full scale being 1.
        rate: (B,) time stretch, above 1 is faster; None where the augmentation has no stretch.
        semitones: (B,) pitch shift, above 0 is higher; None where the augmentation has no shift.
        time_masks: (B, n, 2) start and end of each mask as fractions of the time axis.
        frequency_masks: (B, n, 2) the same of the mel axis.
    """

    gain: Tensor
    roll: Tensor
    noise: Tensor
    rate: Tensor | None
    semitones: Tensor | None
    time_masks: Tensor
    frequency_masks: Tensor


class Augmentation:
    """Draws, for every clip on its own, how it is varied.

    Args:
        stretch: range of the time-stretch rate, drawn uniformly; ``(1, 1)`` is none.
        semitones: range of the pitch shift, drawn uniformly.
        noise: range of the noise's standard deviation, drawn uniformly; 0.005 is the published notebook's.
        gain_db: range of the gain in dB, drawn uniformly.
        roll: largest cyclic shift, as a fraction of the clip, drawn uniformly in both directions.
        time_masks, frequency_masks: number of SpecAugment masks on each axis.
        time_width, frequency_width: largest width of a mask, as a fraction of its axis.
        probability: chance of each of stretch, shift, noise and gain to act on a clip.

    Raises:
        InputError: a range is reversed or a value outside its rule.
    """

    def __init__(
        self,
        stretch: Range = (1.0, 1.0),
        semitones: Range = (0.0, 0.0),
        noise: Range = (0.0, 0.0),
        gain_db: Range = (0.0, 0.0),
        roll: float = 0.0,
        time_masks: int = 0,
        time_width: float = 0.0,
        frequency_masks: int = 0,
        frequency_width: float = 0.0,
        probability: float = 1.0,
    ) -> None:
        ranges = {"stretch": stretch, "semitones": semitones, "noise": noise, "gain_db": gain_db}
        for name, (low, high) in ranges.items():
            if low > high:
                raise InputError(f"augment.{name}=[{low:g},{high:g}] is reversed; give the smaller value first.")
        if stretch[0] <= 0:
            raise InputError(f"augment.stretch=[{stretch[0]:g},{stretch[1]:g}] must be above 0; 1 is no stretch.")
        if noise[0] < 0:
            raise InputError(f"augment.noise=[{noise[0]:g},{noise[1]:g}] must not be negative.")
        fractions = {
            "roll": roll,
            "time_width": time_width,
            "frequency_width": frequency_width,
            "probability": probability,
        }
        for name, value in fractions.items():
            if not 0 <= value <= 1:
                raise InputError(f"augment.{name}={value:g} must lie between 0 and 1.")
        for name, count in {"time_masks": time_masks, "frequency_masks": frequency_masks}.items():
            if count < 0:
                raise InputError(f"augment.{name}={count} must not be negative.")
        self.stretch, self.semitones, self.noise, self.gain_db = stretch, semitones, noise, gain_db
        self.roll, self.probability = roll, probability
        self.time_masks, self.time_width = time_masks, time_width
        self.frequency_masks, self.frequency_width = frequency_masks, frequency_width

    def draw(self, clips: int, samples: int, generator: Generator) -> Draw:
        """Draw for a batch of ``clips`` waveforms of ``samples``, on the generator's device."""
        device = generator.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        def between(limits: Range, neutral: float) -> Tensor:
            value = limits[0] + (limits[1] - limits[0]) * uniform(clips)
            return torch.where(uniform(clips) < self.probability, value, neutral)

        def masks(count: int, width: float) -> Tensor:
            length = width * uniform(clips, count)
            start = (1 - length) * uniform(clips, count)
            return torch.stack([start, start + length], dim=-1)

        return Draw(
            gain=10 ** (between(self.gain_db, 0.0) / 20),
            roll=(self.roll * samples * (2 * uniform(clips) - 1)).long(),
            noise=between(self.noise, 0.0),
            rate=None if self.stretch == (1.0, 1.0) else between(self.stretch, 1.0),
            semitones=None if self.semitones == (0.0, 0.0) else between(self.semitones, 0.0),
            time_masks=masks(self.time_masks, self.time_width),
            frequency_masks=masks(self.frequency_masks, self.frequency_width),
        )


def vary_waveform(wave: Tensor, draw: Draw, generator: Generator) -> Tensor:
    """Gain, cyclic shift, white noise: (B, N) -> (B, N)."""
    clips, samples = wave.shape
    turned = (torch.arange(samples, device=wave.device) - draw.roll[:, None]) % samples
    noise = torch.randn(clips, samples, generator=generator, device=wave.device)
    return wave.gather(1, turned) * draw.gain[:, None] + draw.noise[:, None] * noise


def mask(image: Tensor, draw: Draw) -> Tensor:
    """Set the drawn stripes of standardised images to 0, their mean: (B, 1, M, T) -> (B, 1, M, T).

    Source: D. S. Park et al., SpecAugment, Interspeech 2019, without its time warp.
    """

    def keep(masks: Tensor, size: int) -> Tensor:
        centre = (torch.arange(size, device=image.device) + 0.5) / size
        covered = (centre >= masks[..., :1]) & (centre < masks[..., 1:])
        return (~covered).all(dim=1)

    rows = keep(draw.frequency_masks, image.shape[-2])
    columns = keep(draw.time_masks, image.shape[-1])
    return image * (rows[:, None, :, None] & columns[:, None, None, :])
