"""Training images: clips cropped, varied, turned into images and mixed, by what was drawn for their batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from soundfold.frontend.augment import Draw
from soundfold.frontend.crop import Crops
from soundfold.frontend.front_end import FrontEnd
from soundfold.frontend.mixing import ImageMix, Mixing, WaveMix, mix_images, mix_targets, mix_waves

WHOLE = slice(0, None, 1)


@dataclass(frozen=True)
class BatchDraw:
    """What a batch of B clips drew; None is left out.

    Attributes:
        place: (B, 1), see `Crops.draw`.
        waves, clips, images: how waveforms are mixed, clips are varied, images are mixed.
    """

    place: Tensor | None
    waves: WaveMix | None
    clips: Draw | None
    images: ImageMix | None


class Variation:
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

    def draw(self, clips: int, generator: Generator, drawn: Draw | None = None) -> BatchDraw:
        """Draw for a batch, on the generator's device.

        Args:
            drawn: how its clips are varied, where that is known already.
        """
        augmentation = self.front_end.augmentation
        place = self.crops.draw(clips, generator) if self.crops else None
        waves = self.mixing.draw_waves(clips, generator) if self.mixing else None
        if drawn is None and augmentation is not None:
            drawn = augmentation.draw(clips, generator)
        return BatchDraw(place, waves, drawn, self.mixing.draw_images(clips, generator) if self.mixing else None)

    def __call__(self, wave: Tensor, target: Tensor, drawn: BatchDraw, part: slice = WHOLE) -> tuple[Tensor, Tensor]:
        """A part of a batch: int16 (B, N), int64 (B,) -> float32 (P, 1, M, T), and targets, soft (P, C) where clips are
        mixed, hard (P,) elsewhere.

        A clip's partners in mixing may be of another part.
        """
        if self.crops is not None and drawn.place is not None:
            wave = self.crops.cut(wave, drawn.place)
        if drawn.waves is not None:
            wave, target = mix_waves(wave.float(), drawn.waves), mix_targets(target, self.classes, drawn.waves)
        mixed = drawn.images
        if mixed is None:
            return self._images(wave, drawn.clips, part), target[part]
        target = mix_targets(target, self.classes, mixed)
        image = self._images(wave, drawn.clips, part)
        other = image[mixed.partner] if part == WHOLE else self._images(wave, drawn.clips, mixed.partner[part])
        return mix_images(image, other, mixed.rows(part)), target[part]

    def _images(self, wave: Tensor, draw: Draw | None, rows: Tensor | slice) -> Tensor:
        return self.front_end(wave[rows], None if draw is None else draw.rows(rows))
