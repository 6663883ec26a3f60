"""Distributions of augmentation parameters, and the parameters that are drawn from them for a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor

from soundfold.errors import ArgumentError, check_between

# version of the random numbers that a seed, a fold and an epoch give; 1 called a generator for each parameter
DRAWS = 2
# of one augmentation: tensors with a row per clip
Params: TypeAlias = "Tensor | tuple[Params, ...] | dict[str, Params] | None"
MAX_MASKS = 100
# tolerance of a sum of probabilities such as 3 * 0.33333334
SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Uniform:
    """Uniform distribution over [low, high], applied with probability `p`; otherwise the parameter is neutral.

    Attributes:
        low, high: the bounds.
        p: probability that a clip gets a value.
        integer: draw integers, both bounds included.
    """

    low: float
    high: float
    p: float = 1.0
    integer: bool = False

    def ends(self, neutral: float) -> list[float]:
        """Return the distinct bounds, without the value that changes nothing."""
        return [value for value in dict.fromkeys((self.low, self.high)) if value != neutral]

    def check(self, name: str, lowest: float, highest: float) -> None:
        """Raise `ArgumentError` if a value of the argument ``name`` is invalid."""
        if self.low > self.high:
            raise ArgumentError(f"`{name}.low`={self.low:g} must be at most `{name}.high`={self.high:g}. Swap them.")
        check_between(f"{name}.low", self.low, lowest, highest)
        check_between(f"{name}.high", self.high, lowest, highest)
        check_between(f"{name}.p", self.p, 0, 1)
        if self.integer and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ArgumentError(
                f"`{name}.integer`=true requires integers, not `{name}.low`={self.low:g} and `{name}.high`="
                f"{self.high:g}. Round them, or set integer=false."
            )


@dataclass(frozen=True)
class MaskSpec:
    """SpecAugment masks along one axis.

    Attributes:
        count: number of masks.
        width: maximum width of each, as a fraction of the axis.
        p: probability of each mask.
    """

    count: int
    width: float
    p: float = 1.0

    def check(self, name: str) -> None:
        """Raise `ArgumentError` if a value of the argument ``name`` is invalid."""
        check_between(f"{name}.count", self.count, 1, MAX_MASKS)
        check_between(f"{name}.width", self.width, 0, 1)
        check_between(f"{name}.p", self.p, 0, 1)


def check_exclusive(probabilities: dict[str, float], reason: str) -> None:
    """Raise `ArgumentError` if probabilities, by argument, of exclusive events sum to more than 1."""
    if (total := sum(probabilities.values())) > 1 + SUM_TOLERANCE:
        names = ", ".join(f"`{name}`" for name in probabilities)
        raise ArgumentError(f"{names}: their sum {total:g} must not exceed 1, because {reason}.")


def rows_of(params: Params, clips: Tensor | slice) -> Params:
    """Select the parameters of some of the clips."""
    if isinstance(params, tuple):
        return tuple(rows_of(value, clips) for value in params)
    if isinstance(params, dict):
        return {name: rows_of(value, clips) for name, value in params.items()}
    return params if params is None else params[clips]


@dataclass(frozen=True)
class AugmentParams:
    """Augmentation parameters of a batch of B clips, on the training device.

    Attributes:
        values: parameters by augmentation. One that is absent is not applied.
    """

    values: dict[str, Params]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def rows(self, clips: Tensor | slice) -> AugmentParams:
        """Select the parameters of some of the clips."""
        return AugmentParams({name: rows_of(params, clips) for name, params in self.values.items()})


class ParamSampler:
    """Draws the parameters of one batch. The order of the calls determines the values.

    Uniform numbers are the next ones of `numbers`; once these are used up, and for other distributions, the generator
    draws. So a transform may draw more in one batch than in another.

    Args:
        clips: number of clips B.
        generator: source of randomness; the parameters are on its device.
        augmented: bool (B,); the other clips get neutral values. None augments all.
        numbers: float32 (n,), uniform in [0, 1), on the generator's device; None takes all from the generator.

    Attributes:
        clips, generator: see above.
        device: of the parameters.
        taken: how many uniform numbers have been drawn.
    """

    def __init__(
        self, clips: int, generator: Generator, augmented: Tensor | None = None, numbers: Tensor | None = None
    ) -> None:
        self.clips, self.generator, self.device = clips, generator, generator.device
        self.augmented, self.taken = augmented, 0
        self._numbers = numbers
        self._choice: Tensor | None = None
        self._interval_start = 0.0

    @contextmanager
    def one_of(self) -> Iterator[None]:
        """Give each clip at most one of the values that `value` draws in this context."""
        # each transform takes the clips whose choice is in its own interval of [0, 1)
        self._choice, self._interval_start = self.uniform(), 0.0
        try:
            yield
        finally:
            self._choice = None

    def uniform(self, *shape: int) -> Tensor:
        """Draw from [0, 1): ``(B, *shape)``."""
        start, size = self.taken, (self.clips, *shape)
        self.taken += prod(size)
        if self._numbers is None or self.taken > len(self._numbers):
            return torch.rand(size, generator=self.generator, device=self.device)
        return self._numbers[start : self.taken].view(size)

    def index(self, size: int) -> Tensor:
        """Draw indices below ``size``: int64 (B,)."""
        # the product may round to `size`
        return (size * self.uniform()).long().clamp(max=size - 1)

    def partners(self) -> Tensor:
        """Draw another clip for each clip, all once: int64 (B,), a permutation of the batch."""
        return self.uniform().argsort(stable=True)

    def hit(self, p: float) -> Tensor:
        """Draw the clips that a transform of probability ``p`` applies to: bool (B,)."""
        hit = self.uniform() < p
        return hit if self.augmented is None else hit & self.augmented

    def value(self, spec: Uniform, neutral: float = 0.0) -> Tensor:
        """Draw a parameter: (B,); ``neutral`` for the clips that ``spec.p`` leaves out."""
        value = spec.low + (spec.high - spec.low + spec.integer) * self.uniform()
        if spec.integer:
            value = value.floor_().clamp_(max=spec.high)
        # in place: `torch.where` would first render `neutral` in a separate kernel
        if self._choice is not None:
            interval_end = self._interval_start + spec.p
            value.masked_fill_((self._choice < self._interval_start) | (self._choice >= interval_end), neutral)
            self._interval_start = interval_end
        elif spec.p < 1:
            value.masked_fill_(self.uniform() >= spec.p, neutral)
        return value if self.augmented is None else value.masked_fill_(~self.augmented, neutral)

    def masks(self, spec: MaskSpec) -> Tensor:
        """Draw masks: start and end as fractions of the axis, (B, count, 2)."""
        drawn = self.uniform(3, spec.count)
        width = spec.width * drawn[:, 0]
        if spec.p < 1:
            width = width * (drawn[:, 1] < spec.p)
        if self.augmented is not None:
            width = width * self.augmented[:, None]
        start = (1 - width) * drawn[:, 2]
        return torch.stack([start, start + width], dim=-1)
