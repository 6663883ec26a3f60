"""Sound of a part of a log-mel: a clip weighted over frequency and time."""

from __future__ import annotations

import torch
from torch import Tensor

from soundfold.errors import ArgumentError
from soundfold.features.logmel import LogMel

OVERLAP = 4


@torch.no_grad()
def weight_sound(wave: Tensor, weights: Tensor, logmel: LogMel) -> Tensor:
    """Multiply the short-time spectrum of a clip by a map over mel bands and frames: float32 (N,) -> (N,).

    The magnitude of each bin is multiplied by the map at the bin's frequency and the frame's time, interpolated
    linearly between band centers and between frames; beyond the first and last band center the nearest band counts. The
    phase is that of the clip. The result is linear in the map: a map of ones returns the clip, and the sounds of a map
    and of its complement add up to it.

    The spectrum has the window of the log-mel, with frames a quarter of a window apart, because the hop of a log-mel
    may be too large for an inverse.

    Args:
        wave: (N,).
        weights: (M, T), amplitude factors: a map in [0, 1], where 0.5 lowers the level by 6 dB.
        logmel: the transform of the map.

    Raises:
        ArgumentError: the map has another size than the clip's log-mel.

    Source: D. W. Griffin and J. S. Lim, Signal Estimation from Modified Short-Time Fourier Transform, IEEE
    Transactions on ASSP 32(2), 1984: the inverse of `torch.istft` is their least-squares estimate.
    """
    expected = (len(logmel.bank), len(wave) // logmel.hop_length + 1)
    if tuple(weights.shape) != expected:
        raise ArgumentError(f"`weights` is {tuple(weights.shape)}, and the clip's log-mel {expected} (bands, frames).")
    hop = max(1, logmel.win_length // OVERLAP)
    options = (logmel.n_fft, hop, logmel.win_length, logmel.window)
    spectrum = torch.stft(wave, *options, pad_mode="constant", return_complex=True)
    frames = torch.arange(spectrum.shape[1], device=wave.device) * (hop / logmel.hop_length)
    rows = _interpolation(_band_positions(logmel), expected[0])
    columns = _interpolation(frames, expected[1])
    return torch.istft(spectrum * (rows @ weights @ columns.T), *options, length=len(wave))


def _band_positions(logmel: LogMel) -> Tensor:
    """Return the position of each bin among the band centers: (n_fft // 2 + 1,), 0 at the first center."""
    centers = logmel.edges[1:-1]
    if len(centers) == 1:
        return torch.zeros_like(logmel.frequencies)
    above = torch.searchsorted(centers, logmel.frequencies).clamp(1, len(centers) - 1)
    low, high = centers[above - 1], centers[above]
    return above - 1 + (logmel.frequencies - low) / (high - low)


def _interpolation(positions: Tensor, size: int) -> Tensor:
    """Return weights of linear interpolation between ``size`` values at 0, 1, ...: (n,) -> (n, size)."""
    distance = positions.clamp(0, size - 1)[:, None] - torch.arange(size, device=positions.device)
    return (1 - distance.abs()).clamp(min=0).float()
