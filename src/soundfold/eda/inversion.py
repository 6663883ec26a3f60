"""Inversion of log-mels to sound, to hear which information a network receives."""

from __future__ import annotations

import torch
from torch import Tensor
from torchaudio.transforms import GriffinLim, InverseMelScale

from soundfold.features.logmel import LogMel

ITERATIONS = 32
PEAK = 0.5


@torch.no_grad()
def invert(log_mel: Tensor, logmel: LogMel) -> Tensor:
    """Reconstruct sound from log-mels by least squares and the Griffin-Lim algorithm.

    Details below the resolution of the bands or the floor of the log-mel are lost. A log-mel relative to its maximum
    has no absolute level; its sound is scaled to a peak of 0.5.

    Args:
        log_mel: (B, M, T), dB.
        logmel: the transform that computed it.

    Returns:
        float32 (B, (T - 1) * hop_length).

    Source: D. W. Griffin and J. S. Lim, Signal Estimation from Modified Short-Time Fourier Transform, IEEE
    Transactions on ASSP 32(2), 1984; with the momentum of N. Perraudin, P. Balazs and P. L. Søndergaard, A Fast
    Griffin-Lim Algorithm, WASPAA 2013.
    """
    n_mels, n_bins = logmel.bank.shape
    sample_rate = round(float(logmel.frequencies[-1]) * 2)
    f_min, f_max = float(logmel.edges[0]), float(logmel.edges[-1])
    to_power = InverseMelScale(n_bins, n_mels, sample_rate, f_min, f_max, norm="slaney", mel_scale="slaney")
    # zero initial phases instead of random ones make the result deterministic
    to_wave = GriffinLim(
        logmel.n_fft,
        ITERATIONS,
        win_length=logmel.win_length,
        hop_length=logmel.hop_length,
        power=2,
        rand_init=False,
    )
    wave = to_wave.to(log_mel.device)(to_power.to(log_mel.device)(10 ** (log_mel / 10)))
    return PEAK * wave / wave.abs().amax(dim=-1, keepdim=True).clamp(min=1e-9) if logmel.relative else wave
