"""The whole front end: int16 waveforms in, what the network sees out."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from soundfold.features.augment import Augmentation, AugmentParams, apply_masks
from soundfold.features.logmel import LogMel, NormalizeAndResize
from soundfold.io.pcm import pcm_to_float


class FrontEnd(nn.Module):
    """Scale, vary, log-mel, standardise, mask: int16 (B, N) -> float32 (B, 1, M, T).

    Args:
        logmel: the spectrogram.
        image: per-clip standardisation and resize, or None to standardise by statistics of the training clips (`fit`).
        augmentation: how training clips vary; None leaves them.

    Attributes:
        mean, std: of the training clips' log-mel, dB; 0 and 1 until `fit`, and with `image`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        logmel: LogMel,
        image: NormalizeAndResize | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.logmel, self.image, self.augmentation = logmel, image, augmentation
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    @torch.no_grad()
    def forward(self, wave: Tensor, draw: AugmentParams | None = None) -> Tensor:
        """Images of a batch of int16 waveforms (B, N), or mixtures of such; varied where that was drawn."""
        if wave.device.type != "cpu":
            return self._images(wave, draw)
        # one clip at a time: its spectrum stays in the processor's cache, and the batch takes half the time
        draws = [None if draw is None else draw.rows(slice(i, i + 1)) for i in range(len(wave))]
        return torch.cat([self._images(wave[i : i + 1], one) for i, one in enumerate(draws)])

    def _images(self, wave: Tensor, draw: AugmentParams | None) -> Tensor:
        # float32 throughout: power spectra overflow half precision
        wave = pcm_to_float(wave)
        if draw is None or self.augmentation is None:
            return self.normalize(self.logmel(wave))
        level = self.logmel(self.augmentation.apply_to_wave(wave, draw), draw.time_stretch, draw.pitch_shift)
        return apply_masks(self.normalize(level), draw)

    def normalize(self, level: Tensor) -> Tensor:
        """What the network sees of a log-mel (B, 1, M, T)."""
        return (level - self.mean) / self.std if self.image is None else self.image(level)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set the statistics from the unaugmented int16 waveforms (B, N) of the training clips."""
        if self.image is not None:
            return
        total = square = 0.0
        count = 0
        for wave in batches:
            for part in wave.split(1) if wave.device.type == "cpu" else (wave,):
                level = self.logmel(pcm_to_float(part)).double()
                total, square, count = total + level.sum(), square + level.square().sum(), count + level.numel()
        mean = torch.as_tensor(total / count)
        variance = torch.as_tensor(square / count) - mean.square()
        self.mean.copy_(mean)
        # a collection of one constant level has no spread to divide by
        self.std.copy_(variance.clamp(min=1e-6).sqrt())
