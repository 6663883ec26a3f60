"""From a log-mel back to sound: what of a clip is left in the image that a network sees."""

from __future__ import annotations

import torch
from torch import Tensor
from torchaudio.transforms import GriffinLim, InverseMelScale

from soundfold.features.logmel import LogMel

ITERATIONS = 32
PEAK = 0.5


@torch.no_grad()
def invert(level: Tensor, logmel: LogMel) -> Tensor:
    """Sound whose log-mel is about ``level``: dB (B, M, T) -> float32 (B, (T - 1) * hop_length).

    The least power spectrum with these mel bands, then phases that agree with it. What the bands and the floor of the
    image do not hold cannot return. An image that is relative to its loudest band has lost its level: its sound has a
    peak of a half.

    Source: D. W. Griffin and J. S. Lim, Signal Estimation from Modified Short-Time Fourier Transform, IEEE
    Transactions on ASSP 32(2), 1984; the momentum of N. Perraudin, P. Balazs and P. L. Søndergaard, A Fast Griffin-Lim
    Algorithm, WASPAA 2013.
    """
    bands, bins = logmel.bank.shape
    rate = round(float(logmel.frequencies[-1]) * 2)
    ends = float(logmel.edges[0]), float(logmel.edges[-1])
    to_power = InverseMelScale(bins, bands, rate, *ends, norm="slaney", mel_scale="slaney").to(level.device)
    # phases start at zero, not at random: the same image has the same sound
    sizes = {"win_length": logmel.win_length, "hop_length": logmel.hop_length}
    to_wave = GriffinLim(logmel.n_fft, ITERATIONS, **sizes, power=2, rand_init=False).to(level.device)
    wave = to_wave(to_power(10 ** (level / 10)))
    return PEAK * wave / wave.abs().amax(dim=-1, keepdim=True).clamp(min=1e-9) if logmel.relative else wave
