"""Which part of a clip the network sees: a random crop in training, several evenly spaced ones when it is scored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from soundfold.errors import InputError

# of one clip when it is scored: they make one batch
MOST_CROPS = 1000


@dataclass(frozen=True)
class Crops:
    """Crops of clips of `samples` samples.

    A sound shorter than a crop lies anywhere in it, with the silence around it that the clip has; where a clip has too
    little, its other end follows its end.

    Args:
        samples: length of a clip.
        length: length of a crop, samples.
        trim: crops leave out the digital silence before and after a clip's sound, as far as they can.
        test: how many crops a clip is scored by, evenly spaced from its first place to its last (one lies in the
            middle), their logits averaged; None scores the whole clip.

    Raises:
        InputError: a value outside its rule.
    """

    samples: int
    length: int
    trim: bool = False
    test: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.length <= self.samples:
            raise InputError(
                f"crops.seconds gives {self.length} samples; it must lie within the clip's {self.samples}."
            )
        if self.test is not None and not 1 <= self.test <= MOST_CROPS:
            raise InputError(
                f"crops.test={self.test} must be at least 1 and at most {MOST_CROPS}; null scores the whole clip."
            )

    @property
    def per_clip(self) -> int:
        """How many images a clip is scored by."""
        return self.test or 1

    def draw(self, clips: int, generator: Generator) -> Tensor:
        """Where to crop each clip, from the first place, 0, to the last, 1: (clips, 1), on the generator's device."""
        return torch.rand(clips, 1, generator=generator, device=generator.device)

    def tta_crops(self, wave: Tensor) -> Tensor:
        """What each clip is scored by: (B, samples) -> (B * test, length), a clip's crops one after the other."""
        if self.test is None:
            return wave
        place = torch.linspace(0, 1, self.test) if self.test > 1 else torch.tensor([0.5])
        # shape[0], which is free in a graph, where len is a number
        return self.crop_at(wave, place.to(wave.device).expand(wave.shape[0], -1))

    def crop_at(self, wave: Tensor, place: Tensor) -> Tensor:
        """Crops at places (B, K), see `draw`: (B, samples) -> (B * K, length), a clip's one after the other."""
        first, last = self._bounds(wave)
        start = (first[:, None] + (last - first)[:, None] * place).round().long() % self.samples
        return _sliced(wave, start, self.length) if _values_at_hand(wave) else _indexed(wave, start, self.length)

    def _bounds(self, wave: Tensor) -> tuple[Tensor, Tensor]:
        """The first and the last start of a crop: int64 (B,) each."""
        start = torch.zeros(wave.shape[0], dtype=torch.int64, device=wave.device)
        end = start + self.samples
        if self.trim:
            start, end = sounding_span(wave)
        return torch.minimum(start, end - self.length), torch.maximum(start, end - self.length)


def _values_at_hand(wave: Tensor) -> bool:
    """Whether values may be read: not from a device that would be waited for, nor while a graph is traced."""
    return wave.device.type == "cpu" and not torch.compiler.is_exporting()


def _sliced(wave: Tensor, start: Tensor, length: int) -> Tensor:
    """Parts of rows, which go on at their start after their end: (B, N), int64 (B, K) -> (B * K, length)."""
    parts = [(row, at) for row, starts in zip(wave, start.tolist(), strict=True) for at in starts]
    # the copy of a slice; an index for every sample takes ten times as long on a processor
    return torch.stack([torch.cat([row[at : at + length], row[: max(0, at + length - len(row))]]) for row, at in parts])


def _indexed(wave: Tensor, start: Tensor, length: int) -> Tensor:
    """As `_sliced`, without reading a value back from the device."""
    at = (start[..., None] + torch.arange(length, device=wave.device)) % wave.shape[1]
    return wave.gather(1, at.flatten(1)).view(-1, length)


def sounding_span(wave: Tensor) -> tuple[Tensor, Tensor]:
    """Where the sound of each clip starts and ends: int16 (B, N) -> int64 (B,), (B,). A silent clip sounds throughout.

    What is silent here is zero in 16 bits: the padding of a clip that was shorter.
    """
    heard = wave != 0
    if _values_at_hand(wave):
        # numpy stops at the first sample that is heard
        rows = heard.numpy()
        first, after = torch.from_numpy(rows.argmax(axis=1)), torch.from_numpy(rows[:, ::-1].argmax(axis=1))
    else:
        first, after = heard.byte().argmax(dim=1), heard.byte().flip(1).argmax(dim=1)
    return first, wave.shape[1] - after
