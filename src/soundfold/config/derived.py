"""Values that follow from several keys."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

F_MAX = 20000.0  # Hz


@dataclass(frozen=True)
class FrameSizes:
    """Sizes of the spectrogram at the collection's sample rate.

    Attributes:
        window: samples of the analysis window.
        hop: samples between frames.
        n_fft: transform length, samples.
        f_max: upper edge of the highest mel band, Hz.
    """

    window: int
    hop: int
    n_fft: int
    f_max: float


def frame_sizes(cfg: DictConfig) -> FrameSizes:
    """Return the sizes that ``features`` and ``data.sample_rate`` describe.

    Seconds are rounded to samples. ``n_fft: null`` is the next power of two of the window; ``f_max: null`` is 20,000 Hz
    or half the sample rate, whichever is less.
    """
    features, rate = cfg.features, cfg.data.sample_rate
    window = round(features.window * rate)
    return FrameSizes(
        window,
        round(features.hop * rate),
        1 << max(0, window - 1).bit_length() if features.n_fft is None else features.n_fft,
        min(F_MAX, rate / 2) if features.f_max is None else features.f_max,
    )
