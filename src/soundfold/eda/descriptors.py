"""What a clip sounds like in a few numbers: level, spectral shape, roughness, and the statistics of its log-mel."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from soundfold.features.logmel import LogMel

ROLL_OFF = 0.85
LOWEST_DB = -100.0


@dataclass(frozen=True)
class Descriptors:
    """Of B clips; every tensor is float32 and lies where the waveforms lay.

    Attributes:
        rms_db: (B,), mean over frames of the root mean square, dBFS: 0 is a square wave at full scale. At least -100.
        centroid: (B,), Hz, mean over frames of the magnitude spectrum's centre of gravity.
        bandwidth: (B,), Hz, mean over frames of the standard deviation around it.
        rolloff: (B,), Hz, mean over frames of the frequency below which 85 % of the magnitudes lie.
        crossing_rate: (B,), mean over frames of the share of samples at which the sign changes.
        band_mean, band_std: (B, n_mels), dB, mean and standard deviation over frames of each log-mel band.
    """

    rms_db: Tensor
    centroid: Tensor
    bandwidth: Tensor
    rolloff: Tensor
    crossing_rate: Tensor
    band_mean: Tensor
    band_std: Tensor

    @staticmethod
    def joined(parts: list[Descriptors]) -> Descriptors:
        """Batches in order, as one on the CPU."""
        names = [field.name for field in fields(Descriptors)]
        return Descriptors(**{name: torch.cat([getattr(part, name).cpu() for part in parts]) for name in names})


@torch.no_grad()
def describe(wave: Tensor, lengths: Tensor, logmel: LogMel) -> Descriptors:
    """Describe a batch of clips, from one STFT, that of ``logmel``.

    A clip's frames are the ``length // hop + 1`` that are centred in it, so what is behind its end does not count. Each
    value is the mean over these frames of librosa's feature of the same name (magnitude spectrum, centred frames,
    zeros beyond the ends), with one difference: a frame of digital silence has no spectrum and no sign, and only
    ``rms_db`` and the bands count it, where librosa averages zeros in. A silent clip has 0 for each of the others.

    Args:
        wave: float32 (B, N), nominally in [-1, 1], zeros behind the end of a shorter clip.
        lengths: int64 (B,), samples of each clip before those zeros.
        logmel: gives window, hop and bands.

    Source: the definitions of librosa 0.11's ``librosa.feature``; A. Klapuri and M. Davy, Signal Processing Methods for
    Music Transcription, 2007, chapter 5.
    """
    n_fft, hop = logmel.n_fft, logmel.hop_length
    power = logmel.power(wave)
    frames = torch.arange(power.shape[2], device=wave.device)
    own = frames <= (lengths // hop)[:, None]  # (B, T)
    rms = functional.avg_pool1d(wave.square()[:, None], n_fft, hop, padding=n_fft // 2)[:, 0].sqrt()
    sounding = own & (rms > 0)
    centroid, bandwidth, rolloff = _shape(power.sqrt(), logmel.frequencies)
    level = logmel.to_db(logmel.bank @ power)[:, 0]
    band_mean = _mean(level, own[:, None])
    band_std = _mean((level - band_mean[..., None]).square(), own[:, None]).sqrt()
    return Descriptors(
        rms_db=(20 * _mean(rms, own).log10()).clamp(min=LOWEST_DB),
        centroid=_mean(centroid, sounding),
        bandwidth=_mean(bandwidth, sounding),
        rolloff=_mean(rolloff, sounding),
        crossing_rate=_mean(_crossings(wave, lengths, n_fft, hop), sounding),
        band_mean=band_mean,
        band_std=band_std,
    )


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the last axis of what counts; 0 where nothing does."""
    return torch.where(counted, values, 0).sum(dim=-1) / counted.sum(dim=-1).clamp(min=1)


def _shape(magnitude: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centroid, bandwidth and roll-off of spectra: (B, F, T) and Hz (F,) -> three of (B, T), Hz."""
    total = magnitude.sum(dim=1).clamp(min=torch.finfo(magnitude.dtype).tiny)
    centroid = (frequencies @ magnitude) / total
    # around the centroid, not as a difference of squares, which float32 would round away
    around = (frequencies[:, None] - centroid[:, None]).square()
    bandwidth = ((around * magnitude).sum(dim=1) / total).sqrt()
    reached = magnitude.cumsum(dim=1) >= ROLL_OFF * total[:, None]
    # argmax: the first bin of those that reach the share
    rolloff = frequencies[reached.byte().argmax(dim=1)]
    return centroid, bandwidth, rolloff


def _crossings(wave: Tensor, lengths: Tensor, n_fft: int, hop: int) -> Tensor:
    """Sign changes in each frame, as a share of its samples; zero is positive: (B, N) -> (B, T)."""
    negative = wave < 0
    changes = functional.pad(negative[:, 1:] != negative[:, :-1], (1, 0))
    # from a clip's last sample to the zeros behind it is no change of its own
    changes &= torch.arange(wave.shape[1], device=wave.device) < lengths[:, None]
    # a frame's first sample has no predecessor in the frame: one sample less than the window
    padded = functional.pad(changes.float(), (n_fft // 2 - 1, n_fft // 2))
    return functional.avg_pool1d(padded[:, None], n_fft - 1, hop)[:, 0] * ((n_fft - 1) / n_fft)
