"""Conversion between 16-bit PCM samples and floats in [-1, 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

FULL_SCALE = 32768


@overload
def pcm_to_float(samples: np.ndarray) -> np.ndarray: ...
@overload
def pcm_to_float(samples: Tensor) -> Tensor: ...
def pcm_to_float(samples):
    """Scale int16 samples, or float mixtures of them, to float32 of the same shape in [-1, 1)."""
    return samples / np.float32(FULL_SCALE) if isinstance(samples, np.ndarray) else samples / FULL_SCALE


def float_to_pcm(wave: np.ndarray) -> np.ndarray:
    """Round floats, nominally in [-1, 1], to int16 of the same shape, clipped at full scale."""
    return np.clip(np.rint(wave * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
