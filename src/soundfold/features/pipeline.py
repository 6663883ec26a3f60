"""The audio front end: int16 waveforms to normalized log-mel images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from soundfold.errors import ArgumentError
from soundfold.features.augment import Augmentation
from soundfold.features.augment_params import AugmentParams
from soundfold.features.logmel import LogMel, NormalizeAndResize
from soundfold.features.spectrum import Axes
from soundfold.io.pcm import pcm_to_float

CACHED_SAMPLES = 160_000  # on a CPU; fastest for clips of 2.5 s and 5 s at 16 kHz, which it groups by four and two


class FrontEnd(nn.Module):
    """Scale, augment, log-mel, normalize, mask: int16 (B, N) -> float32 (B, 1, M, T).

    Args:
        logmel: the spectrogram.
        image: per-clip normalization and resize; None normalizes by statistics of the training clips (`fit`).
        augmentation: augmentation of training clips; None disables it.
        per_band: normalize each mel band by its own statistics.

    Raises:
        ArgumentError: both kinds of normalization are set.

    Attributes:
        mean, std: dB, the statistics of the training clips' log-mel, a scalar or (M, 1); 0 and 1 before `fit` and with
            `image`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        logmel: LogMel,
        image: NormalizeAndResize | None = None,
        augmentation: Augmentation | None = None,
        per_band: bool = False,
    ) -> None:
        super().__init__()
        if per_band and image is not None:
            raise ArgumentError("`per_band` and `image` exclude each other: an image is normalized by its own values.")
        self.logmel, self.image, self.augmentation = logmel, image, augmentation
        shape = (len(logmel.bank), 1) if per_band else ()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    @torch.no_grad()
    def forward(self, wave: Tensor, params: AugmentParams | None = None) -> Tensor:
        """Make images of int16 waveforms (B, N) or of float mixtures of them.

        Args:
            wave: the waveforms, on the int16 scale.
            params: augmentation parameters of the B clips; None augments nothing.
        """
        if wave.device.type != "cpu":
            return self._images(wave, params)
        count = _clips_at_a_time(wave)
        parts = [slice(i, i + count) for i in range(0, len(wave), count)]
        return torch.cat([self._images(wave[part], None if params is None else params.rows(part)) for part in parts])

    def _images(self, wave: Tensor, params: AugmentParams | None) -> Tensor:
        # float32 throughout: power spectra overflow half precision
        wave = pcm_to_float(wave)
        if params is None or self.augmentation is None:
            return self._normalize(self.logmel.bels(self.logmel.power(wave)), 10.0)
        augment = self.augmentation.transform_stage
        power = augment("spectrum", self.logmel.power(augment("waveform", wave, params)), params)
        log_mel = self.logmel.bels(power, *augment("axes", Axes(), params))
        return augment("image", self._normalize(log_mel, 10.0), params)

    def normalize(self, log_mel: Tensor) -> Tensor:
        """Turn log-mels (B, 1, M, T), dB, into the network's input."""
        return self._normalize(log_mel, 1.0)

    def _normalize(self, log_mel: Tensor, unit: float) -> Tensor:
        """Turn log-mels whose values are multiples of ``unit`` dB into the network's input."""
        if self.image is not None:
            # its own mean and deviation are in the same unit
            return self.image(log_mel)
        return (log_mel * (unit / self.std)).sub_(self.mean / self.std)

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Set `mean` and `std` from unaugmented int16 waveforms (B, N) of the training clips."""
        if self.image is not None:
            return
        # MPS has no float64
        device = torch.device("cpu") if self.mean.device.type == "mps" else self.mean.device
        total = square = torch.zeros((), dtype=torch.float64, device=device)
        count = 0
        for batch in batches:
            for wave in batch.split(_clips_at_a_time(batch)):
                log_mel = self.logmel(pcm_to_float(wave)).to(device).double()
                total, square = total + self._sum(log_mel), square + self._sum(log_mel.square())
                count += log_mel.numel() // self.mean.numel()
        mean = total / count
        variance = square / count - mean.square()
        self.mean.copy_(mean)
        # the clamp avoids division by 0 for clips of constant level
        self.std.copy_(variance.clamp(min=1e-6).sqrt())

    def _sum(self, log_mel: Tensor) -> Tensor:
        """Sum (B, 1, M, T) to the shape of the statistics."""
        return log_mel.sum(dim=(0, 1, 3))[:, None] if self.mean.ndim else log_mel.sum()


def _clips_at_a_time(wave: Tensor) -> int:
    """Return how many clips of a batch to compute at a time: on a CPU few, whose spectra fit into the cache.

    That halves the time of a batch.
    """
    return len(wave) if wave.device.type != "cpu" else max(1, CACHED_SAMPLES // wave.shape[1])
