"""Sound at another rate: any two rates, in memory that the samples set and not the rates."""

from __future__ import annotations

from math import ceil, gcd

import numpy as np

# of a kernel that holds every phase; 44,099 to 44,100 Hz would have 2e9
MOST_TAPS = 1 << 23
# weights of the direct sum at once
VALUES = 1 << 20
# half of the sinc's zero crossings, and where its band ends: torchaudio's defaults
CROSSINGS, ROLLOFF = 6, 0.99


def small_terms(rate: int, to: int) -> tuple[int, int]:
    """The ratio of two rates in its lowest terms."""
    common = gcd(rate, to)
    return rate // common, to // common


def support(old: int, new: int) -> int:
    """How many samples on either side a resampled one is made of, for a ratio in its lowest terms."""
    return ceil(CROSSINGS * old / (min(old, new) * ROLLOFF))


def resample(wave: np.ndarray, rate: int, to: int) -> np.ndarray:
    """float32 (samples,) at another rate, as ``torchaudio.functional.resample`` gives it.

    torchaudio's kernel has a row for each phase of the ratio and spans its period; where that is millions of taps, the
    same sum is taken sample by sample.
    """
    old, new = small_terms(rate, to)
    if new * (2 * support(old, new) + old) > MOST_TAPS:
        return directly(wave, old, new)
    # imported here: sound at the stored rate needs neither
    import torch
    from torchaudio import functional

    return functional.resample(torch.from_numpy(wave), old, new).numpy()


def directly(wave: np.ndarray, old: int, new: int) -> np.ndarray:
    """The sum over a Hann-windowed sinc, for each sample by itself: float32 (samples,) -> float32 (samples,)."""
    reach = support(old, new)
    near = np.arange(-reach, reach + 2)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(wave, (reach, reach + 1)), len(near))
    out = np.empty(-(-len(wave) * new // old), dtype=np.float32)
    scale = min(old, new) * ROLLOFF / old
    step = max(1, VALUES // len(near))
    for start in range(0, len(out), step):
        whole, phase = np.divmod(np.arange(start, min(start + step, len(out))) * old, new)
        at = ((near - (phase / new)[:, None]) * scale).clip(-CROSSINGS, CROSSINGS)
        weights = np.sinc(at) * np.cos(np.pi / 2 / CROSSINGS * at) ** 2
        out[start : start + step] = (weights * around[whole]).sum(axis=1) * scale
    return out
