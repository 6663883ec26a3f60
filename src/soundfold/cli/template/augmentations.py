"""Augmentations of training clips."""

import torch
from torch import Tensor

from soundfold.features.augment_params import ParamSampler
from soundfold.features.transform import Transform


class LostPacket(Transform):
    """Silences one stretch of each waveform, as a packet that a network connection lost.

    Args:
        sample_rate: of the clips, Hz, from the collection.
        seconds: length of the stretch.
    """

    stage = "waveform"

    def __init__(self, sample_rate: int, seconds: float = 0.1) -> None:
        super().__init__()
        self.length = round(seconds * sample_rate)

    def draw(self, sampler: ParamSampler) -> Tensor:
        """Draw the position of the stretch: (B,), 0 at the start of the clip and 1 at its end."""
        return sampler.uniform()

    def forward(self, wave: Tensor, position: Tensor) -> Tensor:
        """Silence the stretch: (B, N) to (B, N)."""
        sample = torch.arange(wave.shape[1], device=wave.device)
        first = (position * (wave.shape[1] - self.length)).round()[:, None]
        return wave.masked_fill((sample >= first) & (sample < first + self.length), 0.0)
