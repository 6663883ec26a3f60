"""Acoustic descriptors of clips: energy, spectral shape, zero crossings and log-mel statistics."""

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
    """Descriptors of B clips, float32, on the device of the waveforms.

    Attributes:
        rms_db: (B,), dBFS, mean over frames of the root mean square, at least -100; a full-scale square wave has 0.
        centroid: (B,), Hz, mean over frames of the centroid of the magnitude spectrum.
        bandwidth: (B,), Hz, mean over frames of the standard deviation around the centroid.
        rolloff: (B,), Hz, mean over frames of the frequency below which 85 % of the magnitude is.
        crossing_rate: (B,), mean over frames of the fraction of samples at which the sign changes.
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
    def concatenate(batches: list[Descriptors]) -> Descriptors:
        """Concatenate batches on the CPU."""
        names = [field.name for field in fields(Descriptors)]
        return Descriptors(**{name: torch.cat([getattr(batch, name).cpu() for batch in batches]) for name in names})


@torch.no_grad()
def describe(wave: Tensor, lengths: Tensor, logmel: LogMel) -> Descriptors:
    """Compute the descriptors of a batch of clips from one STFT.

    Each descriptor is the mean of librosa's feature of the same name (magnitude spectrum, centered frames, zero
    padding) over the ``length // hop + 1`` frames centered in the clip. One difference: frames of digital silence count
    only for ``rms_db`` and the bands, while librosa averages zeros in. The other descriptors of a silent clip are 0.

    Args:
        wave: float32 (B, N), nominally in [-1, 1]; shorter clips are padded with zeros.
        lengths: int64 (B,), samples of each clip without the padding.
        logmel: defines window, hop length and bands.

    Source: the definitions of librosa 0.11's ``librosa.feature``; A. Klapuri and M. Davy, Signal Processing Methods for
    Music Transcription, 2007, chapter 5.
    """
    n_fft, hop = logmel.n_fft, logmel.hop_length
    power = logmel.power(wave)
    frames = torch.arange(power.shape[2], device=wave.device)
    valid = frames <= (lengths // hop)[:, None]  # (B, T)
    rms = functional.avg_pool1d(wave.square()[:, None], n_fft, hop, padding=n_fft // 2)[:, 0].sqrt()
    audible = valid & (rms > 0)
    centroid, bandwidth, rolloff = _spectral_shape(power.sqrt(), logmel.frequencies)
    log_mel = logmel.to_db(logmel.bank @ power)[:, 0]
    band_mean = _mean(log_mel, valid[:, None])
    band_std = _mean((log_mel - band_mean[..., None]).square(), valid[:, None]).sqrt()
    return Descriptors(
        rms_db=(20 * _mean(rms, valid).log10()).clamp(min=LOWEST_DB),
        centroid=_mean(centroid, audible),
        bandwidth=_mean(bandwidth, audible),
        rolloff=_mean(rolloff, audible),
        crossing_rate=_mean(_crossings(wave, lengths, n_fft, hop), audible),
        band_mean=band_mean,
        band_std=band_std,
    )


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the masked mean over the last axis; 0 if the mask is empty."""
    return torch.where(mask, values, 0).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)


def _spectral_shape(magnitude: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return centroid, bandwidth and roll-off: (B, F, T) and Hz (F,) -> three tensors (B, T), Hz."""
    total = magnitude.sum(dim=1).clamp(min=torch.finfo(magnitude.dtype).tiny)
    centroid = (frequencies @ magnitude) / total
    # E[(f - centroid)^2], because E[f^2] - centroid^2 loses precision in float32
    square_distance = (frequencies[:, None] - centroid[:, None]).square()
    bandwidth = ((square_distance * magnitude).sum(dim=1) / total).sqrt()
    reached = magnitude.cumsum(dim=1) >= ROLL_OFF * total[:, None]
    # argmax returns the first bin that reaches the fraction
    rolloff = frequencies[reached.byte().argmax(dim=1)]
    return centroid, bandwidth, rolloff


def _crossings(wave: Tensor, lengths: Tensor, n_fft: int, hop: int) -> Tensor:
    """Return the fraction of sign changes in each frame; zero is positive: (B, N) -> (B, T)."""
    negative = wave < 0
    changes = functional.pad(negative[:, 1:] != negative[:, :-1], (1, 0))
    # exclude the change from the last sample to the padding
    changes &= torch.arange(wave.shape[1], device=wave.device) < lengths[:, None]
    # the first sample of a frame has no predecessor in the frame, so a frame has n_fft - 1 possible changes
    padded = functional.pad(changes.float(), (n_fft // 2 - 1, n_fft // 2))
    return functional.avg_pool1d(padded[:, None], n_fft - 1, hop)[:, 0] * ((n_fft - 1) / n_fft)
