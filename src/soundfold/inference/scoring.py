"""The one place where waveforms become logits of kept models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.features.logmel import LogMel
from soundfold.io.pcm import pcm_to_float


class ClipScorer(nn.Module):
    """Kept models of one kind, rebuilt for evaluation: clips of the training length -> logits, by the crops that the
    run scored clips by.

    The log-mel is computed once; statistics and weights are each model's own.

    Args:
        models: see `ModelBundle`; everything is rebuilt from their plain values.

    Attributes:
        classes: names.
        sample_rate, samples: of a clip, Hz and its length.
        crops: that a clip is scored by; None scores the whole clip.
        front_ends, networks: see `ModelBundle.rebuild`.

    Raises:
        InputError: values do not make a model, or the models differ in classes, clips, features or crops.
    """

    logmel: LogMel

    def __init__(self, models: Sequence[ModelBundle]) -> None:
        super().__init__()
        kinds, parts = [], []
        for kept in models:
            try:
                sections = build.stored_sections(OmegaConf.create(kept.config))
                rate, seconds = sections.data.sample_rate, sections.data.seconds
                image = [OmegaConf.to_container(sections[name]) for name in ("features", "crops")]
                kinds.append((kept.classes, rate, seconds, image))
                self.crops = build.crops(sections)
                parts.append(kept.rebuild())
            except (OmegaConfBaseException, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
                first = str(error).splitlines()[0] if str(error) else ""
                raise InputError(
                    f"The kept model cannot be rebuilt ({type(error).__name__}: {first}). Its weights, classes and "
                    "configuration do not fit together, or a later version of soundfold wrote it; give weights.pt as a "
                    "run left it."
                ) from error
        if any(kind != kinds[0] for kind in kinds):
            raise InputError(
                "The models differ in classes, clip length, sample rate, features or crops, so they cannot be "
                "averaged. Take one of them, with --fold."
            )
        self.classes: tuple[str, ...] = models[0].classes
        self.sample_rate, self.samples = int(rate), round(seconds * rate)
        # Any: a ModuleList does not say what it holds
        self.front_ends: Any = nn.ModuleList(front_end for front_end, _ in parts)
        # the convolutions of a CPU are faster so, and so are a GPU's
        self.networks: Any = nn.ModuleList(n.to(memory_format=torch.channels_last) for _, n in parts)  # type: ignore[call-overload]
        self.logmel = parts[0][0].logmel

    @torch.inference_mode()
    def forward(self, wave: Tensor) -> Tensor:
        """int16 (B, samples) -> float32 logits (models, B, C)."""
        # on a CPU one crop at a time: its spectrum stays in the processor's cache
        crops = self.test_crops(wave)
        parts = crops.split(1) if wave.device.type == "cpu" else (crops,)
        return self.logits(torch.cat([self.logmel(pcm_to_float(part)) for part in parts]))

    def test_crops(self, wave: Tensor) -> Tensor:
        """What is scored of clips: (B, samples) -> (B * K, L)."""
        return wave if self.crops is None else self.crops.tta_crops(wave)

    def logits(self, level: Tensor) -> Tensor:
        """Log-mel (B * K, 1, M, T), dB, of what is scored -> logits (models, B, C), means over a clip's K crops."""
        images = [front_end.normalize(level) for front_end in self.front_ends]
        images = [image.contiguous(memory_format=torch.channels_last) for image in images]
        scored = torch.stack([network(image) for network, image in zip(self.networks, images, strict=True)])
        return scored.unflatten(1, (-1, 1 if self.crops is None else self.crops.per_clip)).mean(dim=2)
