"""Waveforms and recordings as the models take them: mono, resampled, 16 bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from soundfold.data.resampling import resample_blocks
from soundfold.data.store import to_int16
from soundfold.errors import ArgumentError
from soundfold.inference.streaming import SpectrogramSketch
from soundfold.io.audio_limits import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from soundfold.io.pcm import pcm_to_float


def to_channels(wave: Any, sample_rate: int) -> np.ndarray:
    """Check a waveform and return it as floating point (samples, channels).

    Args:
        wave: array or tensor (samples,) or (samples, channels), floating point or int16.
        sample_rate: Hz.

    Raises:
        ArgumentError: the waveform has no samples or an unsupported type or shape, or the rate is invalid.
    """
    array = np.asarray(wave)
    if array.ndim not in (1, 2) or not (array.dtype == np.int16 or np.issubdtype(array.dtype, np.floating)):
        raise ArgumentError(
            f"`wave` is {array.dtype} {array.shape}. Pass (samples,) or (samples, channels), floating point in "
            "[-1, 1] or int16."
        )
    if not array.size:
        raise ArgumentError("`wave` has no samples.")
    if not (MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE and sample_rate == int(sample_rate)):
        raise ArgumentError(
            f"`sample_rate`={sample_rate} must be an integer from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz."
        )
    if array.dtype == np.int16:
        array = pcm_to_float(array)
    return array.reshape(len(array), -1)


@dataclass
class PcmStream:
    """Blocks of a recording, resampled and converted to int16.

    Attributes:
        n_samples: yielded so far, at the target rate.
        peak: largest magnitude so far, before the conversion.
    """

    blocks: Iterable[np.ndarray]
    source_rate: int
    target_rate: int
    sketch: SpectrogramSketch | None = None
    n_samples: int = 0
    peak: float = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in resample_blocks(self.blocks, self.source_rate, self.target_rate):
            self.n_samples += len(block)
            self.peak = max(self.peak, float(np.abs(block).max(initial=0)))
            if self.sketch is not None:
                self.sketch.add(block)
            yield to_int16(block, len(block))
