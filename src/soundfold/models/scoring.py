"""The scoring path: waveforms -> test crops -> log-mel -> images -> logits, averaged over the crops of a clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from soundfold.io.pcm import pcm_to_float
from soundfold.models.cam import class_activation, upsample_cam
from soundfold.models.layers import layer_vectors


class TTACrops(Protocol):
    """Test crops of clips, such as `soundfold.features.crops.Crops`."""

    @property
    def per_clip(self) -> int: ...

    def tta_crops(self, wave: Tensor) -> Tensor: ...


def clip_logits(network: Callable[[Tensor], Tensor], image: Tensor, per_clip: int = 1) -> Tensor:
    """Return the logits of clips: the mean over each clip's images, in float32 whatever the surrounding precision.

    In the same way it averages other vectors of images.

    Args:
        network: images -> logits (B, C).
        image: (B * per_clip, 1, M, T), the images of one clip next to each other.
        per_clip: images per clip.

    Returns:
        float32 (B, C).
    """
    with torch.autocast(image.device.type, enabled=False):
        return network(image).unflatten(0, (-1, per_clip)).mean(dim=1)


class ClipScorer(nn.Module):
    """Logits of clips from one or several trained models that share a log-mel.

    The log-mel is computed once; statistics and weights are those of each model.

    Args:
        front_ends: one `soundfold.features.pipeline.FrontEnd` per model.
        networks: one network per model.
        crops: test crops; None scores the entire clip.
    """

    def __init__(
        self, front_ends: Sequence[nn.Module], networks: Sequence[nn.Module], crops: TTACrops | None = None
    ) -> None:
        super().__init__()
        self.crops = crops
        # Any: a ModuleList does not know the type of its items
        self.front_ends: Any = nn.ModuleList(front_ends)
        self.networks: Any = nn.ModuleList(networks)

    @property
    def logmel(self) -> Any:
        """The log-mel that the models share, `soundfold.features.logmel.LogMel`."""
        return self.front_ends[0].logmel

    @torch.inference_mode()
    def forward(self, wave: Tensor) -> Tensor:
        """Return float32 logits (models, B, C) of int16 clips (B, samples)."""
        return self.logits(self._log_mel(wave))

    @torch.inference_mode()
    def embeddings(self, wave: Tensor, layer: str | None = None) -> list[Tensor]:
        """Return a vector from inside each network, float32 (B, D), the mean over a clip's test crops.

        Args:
            wave: int16 (B, samples).
            layer: see `layer_vectors`.

        Raises:
            ArgumentError: a network has no such layer.
        """
        log_mel = self._log_mel(wave)
        return [
            clip_logits(partial(layer_vectors, network, layer=layer), front_end.normalize(log_mel), self._per_clip)
            for front_end, network in zip(self.front_ends, self.networks, strict=True)
        ]

    def test_crops(self, wave: Tensor) -> Tensor:
        """Return the test crops of clips: (B, samples) -> (B * K, L)."""
        return wave if self.crops is None else self.crops.tta_crops(wave)

    def logits(self, log_mel: Tensor) -> Tensor:
        """Return logits (models, B, C) of the log-mels (B * K, 1, M, T), dB, of test crops."""
        images = [front_end.normalize(log_mel) for front_end in self.front_ends]
        pairs = zip(self.networks, images, strict=True)
        return torch.stack([clip_logits(network, image, self._per_clip) for network, image in pairs])

    @property
    def _per_clip(self) -> int:
        return 1 if self.crops is None else self.crops.per_clip

    def _log_mel(self, wave: Tensor) -> Tensor:
        crops = self.test_crops(wave)
        # one crop at a time on a CPU: its spectrum stays in the cache
        chunks = crops.split(1) if wave.device.type == "cpu" else (crops,)
        return torch.cat([self.logmel(pcm_to_float(chunk)) for chunk in chunks])

    def activation(self, log_mel: Tensor, target: int) -> Tensor | None:
        """Return the class activation of one entire clip, averaged over models, at the log-mel's resolution.

        Args:
            log_mel: (1, 1, M, T), dB.
            target: class index.

        Returns:
            (M, T), in [0, 1]; None if a network has no maps, see `class_activation`.
        """
        bands, frames = log_mel.shape[-2:]
        classes = torch.tensor([target], device=log_mel.device)
        maps = []
        for front_end, network in zip(self.front_ends, self.networks, strict=True):
            cam = class_activation(network, front_end.normalize(log_mel), classes)
            if cam is None:
                return None
            covered = frames if front_end.image is None else front_end.image.frames
            maps.append(upsample_cam(cam, bands, frames, covered))
        return torch.stack(maps).mean(dim=0)
