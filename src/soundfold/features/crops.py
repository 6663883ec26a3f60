"""Crops of clips: one at a random position in training, several evenly spaced ones for scoring."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from soundfold.errors import check_between
from soundfold.features.augment_params import ParamSampler
from soundfold.features.readable import is_readable
from soundfold.features.segments import read_segments

# the crops of a clip are scored in one batch
MAX_CROPS = 1000


@dataclass(frozen=True)
class Crops:
    """Crops of clips of `samples` samples.

    A crop's position is a number from 0, the first possible start, to 1, the last. With `trim`, a crop that is longer
    than the clip's sound includes all of it and the clip's digital silence around it; if the clip has too little
    silence, the crop wraps around to its other end.

    Attributes:
        samples: length of a clip.
        length: length of a crop, samples.
        trim: exclude the digital silence before and after a clip's sound, as far as possible.
        test: number of evenly spaced crops whose logits are averaged when a clip is scored (1 is the middle); None
            scores the full clip.

    Raises:
        ArgumentError: a value is out of range.
    """

    samples: int
    length: int
    trim: bool = False
    test: int | None = None

    def __post_init__(self) -> None:
        check_between("length", self.length, 1, self.samples)
        if self.test is not None:
            check_between("test", self.test, 1, MAX_CROPS)

    @property
    def per_clip(self) -> int:
        """Number of images that a clip is scored by."""
        return self.test or 1

    def draw(self, sampler: ParamSampler) -> Tensor:
        """Draw a position per clip: (B, 1), in [0, 1)."""
        return sampler.uniform(1)

    def tta_crops(self, wave: Tensor) -> Tensor:
        """Return the crops for scoring: (B, samples) -> (B * test, length), the crops of a clip in succession."""
        if self.test is None:
            return wave
        position = torch.linspace(0, 1, self.test) if self.test > 1 else torch.tensor([0.5])
        # `len` would fix the batch size of an exported graph; shape[0] stays dynamic
        return self.crop_at(wave, position.to(wave.device).expand(wave.shape[0], -1))

    def crop_at(self, wave: Tensor, position: Tensor) -> Tensor:
        """Crop at positions (B, K): (B, samples) -> (B * K, length), the crops of a clip in succession."""
        first, last = self._bounds(wave)
        start = (first[:, None] + (last - first)[:, None] * position).round().long() % self.samples
        if torch.compiler.is_exporting():
            return _crop_by_index(wave, start, self.length)
        if self.trim:
            # a crop may continue at the clip's start
            wave = torch.cat([wave, wave[:, : self.length - 1]], dim=1)
        row = torch.arange(len(wave), device=wave.device).repeat_interleave(start.shape[1])
        return read_segments(wave, row, start.flatten(), self.length)

    def _bounds(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first and the last start of a crop: int64 (B,) each."""
        start = torch.zeros(wave.shape[0], dtype=torch.int64, device=wave.device)
        end = start + self.samples
        if self.trim:
            start, end = sounding_span(wave)
        return torch.minimum(start, end - self.length), torch.maximum(start, end - self.length)


def _crop_by_index(wave: Tensor, start: Tensor, length: int) -> Tensor:
    """Crop cyclic rows: (B, N), int64 (B, K) -> (B * K, length), by operations that can be exported."""
    index = (start[..., None] + torch.arange(length, device=wave.device)) % wave.shape[1]
    return wave.gather(1, index.flatten(1)).view(-1, length)


def sounding_span(wave: Tensor) -> tuple[Tensor, Tensor]:
    """Return the start and end of each clip without digital silence: int16 (B, N) -> int64 (B,), (B,).

    Digital silence is samples of 0, such as the padding of a short clip. A silent clip spans its full length.
    """
    nonzero = wave != 0
    if is_readable(wave):
        # numpy's argmax of booleans stops at the first true
        rows = nonzero.numpy()
        first, after = torch.from_numpy(rows.argmax(axis=1)), torch.from_numpy(rows[:, ::-1].argmax(axis=1))
    else:
        first, after = nonzero.byte().argmax(dim=1), nonzero.byte().flip(1).argmax(dim=1)
    return first, wave.shape[1] - after
