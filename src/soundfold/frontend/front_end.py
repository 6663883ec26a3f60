"""The whole front end: int16 waveforms in, what the network sees out."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Generator, Tensor, nn

from soundfold.frontend.augment import Draw, mask, vary_waveform
from soundfold.frontend.logmel import ClipStandardisedResize, LogMel


class FrontEnd(nn.Module):
    """Scale, vary, log-mel, standardise, mask: int16 (B, N) -> float32 (B, 1, M, T).

    Args:
        logmel: the spectrogram.
        image: per-clip standardisation and resize, or None to standardise by statistics of the training clips (`fit`).

    Attributes:
        mean, deviation: of the training clips' log-mel, dB; 0 and 1 until `fit`, and with `image`.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, logmel: LogMel, image: ClipStandardisedResize | None = None) -> None:
        super().__init__()
        self.logmel, self.image = logmel, image
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    @torch.no_grad()
    def forward(self, wave: Tensor, draw: Draw | None = None, generator: Generator | None = None) -> Tensor:
        """Images of a batch; with a draw (and the generator of its noise) varied, without one plain."""
        # float32 throughout: power spectra overflow half precision
        scaled = wave.float() / 32768
        if draw is None or generator is None:
            level = self.logmel(scaled)
        else:
            level = self.logmel(vary_waveform(scaled, draw, generator), draw.rate, draw.semitones)
        image = (level - self.mean) / self.deviation if self.image is None else self.image(level)
        return image if draw is None else mask(image, draw)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set the statistics from the unaugmented int16 waveforms (B, N) of the training clips."""
        if self.image is not None:
            return
        total = square = 0.0
        count = 0
        for wave in batches:
            level = self.logmel(wave.float() / 32768).double()
            total, square, count = total + level.sum(), square + level.square().sum(), count + level.numel()
        mean = torch.as_tensor(total / count)
        variance = torch.as_tensor(square / count) - mean.square()
        self.mean.copy_(mean)
        # a collection of one constant level has no spread to divide by
        self.deviation.copy_(variance.clamp(min=1e-6).sqrt())
