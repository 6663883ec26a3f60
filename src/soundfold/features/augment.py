"""Random augmentation of training clips: transforms that draw their parameters, then apply them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

from torch import nn

from soundfold.features.augment_params import AugmentParams, MaskSpec, ParamSampler, Uniform, check_exclusive
from soundfold.features.masks import Masks
from soundfold.features.recordings import Recordings
from soundfold.features.spectrum import PitchShift, TimeStretch
from soundfold.features.transform import Stage, Transform
from soundfold.features.waveform import Gain, Noise, Polarity, TimeShift

X = TypeVar("X")


class Augmentation(nn.Module):
    """The augmentations of a training.

    Args:
        samples: maximum length of the waveforms, samples.
        time_stretch, pitch_shift: see `TimeStretch` and `PitchShift`.
        noise_std, noise_snr_db, noise_colours: see `Noise`.
        gain_db, polarity, time_shift: see `Gain`, `Polarity` and `TimeShift`.
        time_masks, frequency_masks: SpecAugment masks.
        one_of: apply at most one of time stretch, pitch shift, noise, gain and time shift to a clip, by their ``p``.
        extra: further augmentations by name. They are drawn last, and applied last in their stages, in their order.

    Raises:
        ArgumentError: a range is reversed or a value is out of range.
    """

    def __init__(
        self,
        samples: int,
        time_stretch: Uniform | None = None,
        pitch_shift: Uniform | None = None,
        noise_std: Uniform | None = None,
        noise_snr_db: Uniform | None = None,
        noise_colours: Sequence[float] = (0.0,),
        gain_db: Uniform | None = None,
        polarity: float = 0.0,
        time_shift: Uniform | None = None,
        time_masks: MaskSpec | None = None,
        frequency_masks: MaskSpec | None = None,
        one_of: bool = False,
        extra: Mapping[str, Transform] | None = None,
    ) -> None:
        super().__init__()
        # the order determines every seeded result; within a stage it is also the order of application
        transforms: dict[str, Transform | None] = {
            "gain_db": Gain(gain_db) if gain_db else None,
            "polarity": Polarity(polarity) if polarity else None,
            "time_shift": TimeShift(time_shift) if time_shift else None,
            "noise": Noise(samples, noise_std, noise_snr_db, noise_colours),
            "time_stretch": TimeStretch(time_stretch) if time_stretch else None,
            "pitch_shift": PitchShift(pitch_shift) if pitch_shift else None,
            "time_masks": Masks(time_masks, "time") if time_masks else None,
            "frequency_masks": Masks(frequency_masks, "frequency") if frequency_masks else None,
        }
        own = {name: transform for name, transform in transforms.items() if transform is not None}
        extra = extra or {}
        self.one_of, self.n_own = one_of, len(own)
        # not a ModuleDict, whose keys must not have dots
        self.names, self.transforms = (*own, *extra), nn.ModuleList([*own.values(), *extra.values()])
        if one_of:
            specs = {
                "time_stretch": time_stretch,
                "pitch_shift": pitch_shift,
                "noise_std": noise_std,
                "noise_snr_db": noise_snr_db,
                "gain_db": gain_db,
                "time_shift": time_shift,
            }
            probabilities = {f"{name}.p": spec.p for name, spec in specs.items() if spec is not None}
            check_exclusive(probabilities, "`one_of` applies at most one of them to a clip")

    @property
    def recordings(self) -> dict[str, Recordings]:
        """Recordings that clips are augmented by, by augmentation."""
        return {name: transform.recordings for name, transform in self.items() if transform.recordings is not None}

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield name and transform in the order of draws."""
        return zip(self.names, self.transforms, strict=True)

    def draw(self, sampler: ParamSampler) -> AugmentParams:
        """Draw the parameters of a batch."""
        named = [*self.items()]
        with sampler.one_of() if self.one_of else nullcontext():
            values = {name: transform.draw(sampler) for name, transform in named[: self.n_own]}
        return AugmentParams(values | {name: transform.draw(sampler) for name, transform in named[self.n_own :]})

    def transform_stage(self, stage: Stage, x: X, params: AugmentParams) -> X:
        """Apply the augmentations of a stage to B clips. For the type of ``x`` see `Transform`."""
        for name, transform in self.items():
            if transform.stage == stage and name in params.values:
                x = transform(x, params.values[name])
        return x

    def acts_on(self, stage: Stage) -> bool:
        """Return whether there is an augmentation of this stage."""
        return any(transform.stage == stage for transform in self.transforms)
