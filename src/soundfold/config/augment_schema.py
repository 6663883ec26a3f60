"""The section ``augment``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from soundfold.config.declaration import key

# Entries that are null by default. conf/ cannot hold keys of a null section, so what may be omitted of an entry has its
# value here.


@dataclass
class Uniform:
    low: float = key()
    high: float = key()
    p: float = 1.0
    integer: bool = False


@dataclass
class MaskSpec:
    count: int = key()
    width: float = key()
    p: float = 1.0


@dataclass
class Copies:
    low: int = key()
    high: int = key()
    after: int = 0


@dataclass
class Mixing:
    alpha: float = key()
    mixup: float = key()
    time_cutmix: float = key()
    frequency_cutmix: float = key()
    between_class: float = key()
    mixstyle: float = key()


@dataclass
class ImpulseResponse:
    folder: str | None = key()
    max_seconds: float = key(above=0, finite=True)
    p: float = key(low=0, high=1)


@dataclass
class BackgroundNoise:
    folder: str | None = key()
    low: float = key()
    high: float = key()
    max_seconds: float = key(above=0, finite=True)
    p: float = key(low=0, high=1)


@dataclass
class Filter:
    low: float = key()
    high: float = key()
    p: float = key(low=0, high=1)


@dataclass
class BandPass(Filter):
    octaves: float = key()


@dataclass
class Augment:
    time_stretch: Uniform | None = key()
    pitch_shift: Uniform | None = key()
    noise_std: Uniform | None = key()
    noise_snr_db: Uniform | None = key()
    noise_colours: list[float] = key()
    gain_db: Uniform | None = key()
    polarity: float = key()
    time_shift: Uniform | None = key()
    time_masks: MaskSpec | None = key()
    frequency_masks: MaskSpec | None = key()
    one_of: bool = key()
    copies: Copies | None = key()
    mixing: Mixing = key()
    impulse_response: ImpulseResponse = key()
    background_noise: BackgroundNoise = key()
    low_pass: Filter = key()
    high_pass: Filter = key()
    band_pass: BandPass = key()
    extra: dict[str, Any] = key()
