"""The random transform of a training batch: crop, mix waveforms, augment, make images, mix images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from soundfold.features.augment_params import AugmentParams, ParamSampler
from soundfold.features.crops import Crops
from soundfold.features.mixing import (
    ImageMixParams,
    Mixing,
    StyleMixParams,
    WaveMixParams,
    mix_targets,
    soft_targets,
)
from soundfold.features.pipeline import FrontEnd

FULL_BATCH = slice(0, None, 1)


@dataclass(frozen=True)
class BatchParams:
    """Random parameters of a batch of B clips. None disables a step.

    Attributes:
        position: (B, 1), see `Crops.draw`.
        wave_mix: mixing of waveforms.
        augment: augmentation of clips.
        image_mix: mixing of images.
        style_mix: mixing of the statistics of images.
    """

    position: Tensor | None
    wave_mix: WaveMixParams | None
    augment: AugmentParams | None
    image_mix: ImageMixParams | None
    style_mix: StyleMixParams | None


class BatchTransform:
    """Turns waveforms and targets into training images and targets.

    `draw` is the only random step. Calling the transform is a pure function of tensors that reads no value from an
    accelerator, so it compiles to one graph.

    Args:
        front_end: makes images; its augmentation is applied.
        classes: number of classes of the targets.
        crops: random crops; None uses full clips.
        mixing: mixing of clips; None disables it.
    """

    def __init__(self, front_end: FrontEnd, classes: int, crops: Crops | None, mixing: Mixing | None) -> None:
        self.front_end, self.classes, self.crops, self.mixing = front_end, classes, crops, mixing or Mixing()

    def draw(self, sampler: ParamSampler, augment: AugmentParams | None = None) -> BatchParams:
        """Draw the parameters of a batch.

        Args:
            sampler: of the batch.
            augment: augmentation parameters to use instead of drawing them.
        """
        # the order of the draws determines every seeded result
        mixing = self.mixing
        position = self.crops.draw(sampler) if self.crops else None
        wave_mix = mixing.waves.draw(sampler) if mixing.waves else None
        if augment is None and self.front_end.augmentation is not None:
            augment = self.front_end.augmentation.draw(sampler)
        image_mix = mixing.images.draw(sampler) if mixing.images else None
        style_mix = mixing.styles.draw(sampler) if mixing.styles else None
        return BatchParams(position, wave_mix, augment, image_mix, style_mix)

    def count_numbers(self, clips: int, device: torch.device, augment: AugmentParams | None = None) -> int:
        """Count the uniform numbers that `draw` takes for a batch, by drawing once from a separate generator.

        Args:
            clips: number of clips B.
            device: of the transform.
            augment: see `draw`.
        """
        sampler = ParamSampler(clips, Generator(device))
        self.draw(sampler, augment)
        return sampler.taken

    def __call__(
        self, wave: Tensor, target: Tensor, params: BatchParams, rows: slice = FULL_BATCH
    ) -> tuple[Tensor, Tensor]:
        """Transform P clips of a batch; their mixing partners may be any clips of the batch.

        Args:
            wave: int16 (B, N).
            target: int64 (B,).
            params: of the full batch.
            rows: which P clips to transform.

        Returns:
            Images, float32 (P, 1, M, T), and targets: soft (P, C) if clips are mixed or targets augmented, else hard
            (P,).
        """
        image, target = self._mixed_images(wave, target, params, rows)
        augmentation = self.front_end.augmentation
        if params.augment is not None and augmentation is not None and augmentation.acts_on("targets"):
            soft = soft_targets(target, self.classes)
            target = augmentation.transform_stage("targets", soft, params.augment.rows(rows))
        return image, target

    def _mixed_images(self, wave: Tensor, target: Tensor, params: BatchParams, rows: slice) -> tuple[Tensor, Tensor]:
        if self.crops is not None and params.position is not None:
            wave = self.crops.crop_at(wave, params.position)
        mixing, mix = self.mixing, params.image_mix
        if mixing.waves and params.wave_mix:
            wave = mixing.waves.forward(wave.float(), params.wave_mix)
            target = mix_targets(target, self.classes, params.wave_mix)
        if mix:
            target = mix_targets(target, self.classes, mix)
        # the statistics of any clip of the batch may be needed
        needed = FULL_BATCH if params.style_mix else rows
        image = self._images(wave, params.augment, needed)
        if mixing.styles and params.style_mix:
            image = mixing.styles.forward(image, params.style_mix)
        if mixing.images and mix:
            # all partners' images exist already if the full batch is transformed
            full = needed == FULL_BATCH
            partner = image[mix.partner] if full else self._images(wave, params.augment, mix.partner[rows])
            image = mixing.images.forward(image, partner, mix.rows(needed))
        return (image[rows] if needed != rows else image), target[rows]

    def _images(self, wave: Tensor, params: AugmentParams | None, rows: Tensor | slice) -> Tensor:
        return self.front_end(wave[rows], None if params is None else params.rows(rows))
