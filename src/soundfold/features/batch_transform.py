"""Training images: clips cropped, varied, turned into images and mixed, by what was drawn for their batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from soundfold.features.augment import AugmentParams
from soundfold.features.crops import Crops
from soundfold.features.mixing import ImageMixParams, Mixing, WaveMixParams, mix_images, mix_targets, mix_waves
from soundfold.features.pipeline import FrontEnd

FULL_BATCH = slice(0, None, 1)


@dataclass(frozen=True)
class BatchParams:
    """What a batch of B clips drew; None is left out.

    Attributes:
        place: (B, 1), see `Crops.draw`.
        waves, clips, images: how waveforms are mixed, clips are varied, images are mixed.
    """

    place: Tensor | None
    waves: WaveMixParams | None
    clips: AugmentParams | None
    images: ImageMixParams | None


class BatchTransform:
    """From waveforms and targets to what is trained on. The draw apart, it is a pure function of tensors, and no value
    is read from an accelerator: it compiles in one piece.

    Args:
        front_end: from waveforms to images; its augmentation varies them.
        classes: of the targets.
        crops: what part of a clip is seen; None is all of it.
        mixing: how clips are mixed; None leaves them.
    """

    def __init__(self, front_end: FrontEnd, classes: int, crops: Crops | None, mixing: Mixing | None) -> None:
        self.front_end, self.classes, self.crops, self.mixing = front_end, classes, crops, mixing

    def draw(self, clips: int, generator: Generator, drawn: AugmentParams | None = None) -> BatchParams:
        """AugmentParams for a batch, on the generator's device.

        Args:
            drawn: how its clips are varied, where that is known already.
        """
        augmentation = self.front_end.augmentation
        place = self.crops.draw(clips, generator) if self.crops else None
        waves = self.mixing.draw_waves(clips, generator) if self.mixing else None
        if drawn is None and augmentation is not None:
            drawn = augmentation.draw(clips, generator)
        return BatchParams(place, waves, drawn, self.mixing.draw_images(clips, generator) if self.mixing else None)

    def __call__(
        self, wave: Tensor, target: Tensor, drawn: BatchParams, part: slice = FULL_BATCH
    ) -> tuple[Tensor, Tensor]:
        """A part of a batch: int16 (B, N), int64 (B,) -> float32 (P, 1, M, T), and targets, soft (P, C) where clips are
        mixed, hard (P,) elsewhere.

        A clip's partners in mixing may be of another part.
        """
        if self.crops is not None and drawn.place is not None:
            wave = self.crops.crop_at(wave, drawn.place)
        if drawn.waves is not None:
            wave, target = mix_waves(wave.float(), drawn.waves), mix_targets(target, self.classes, drawn.waves)
        mixed = drawn.images
        if mixed is None:
            return self._images(wave, drawn.clips, part), target[part]
        target = mix_targets(target, self.classes, mixed)
        image = self._images(wave, drawn.clips, part)
        other = image[mixed.partner] if part == FULL_BATCH else self._images(wave, drawn.clips, mixed.partner[part])
        return mix_images(image, other, mixed.rows(part)), target[part]

    def _images(self, wave: Tensor, draw: AugmentParams | None, rows: Tensor | slice) -> Tensor:
        return self.front_end(wave[rows], None if draw is None else draw.rows(rows))
