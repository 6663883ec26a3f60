"""Builds the augmentations of a training from ``augment``, also those of other packages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from soundfold.config import frame_sizes
from soundfold.config.targets import build_target, find_target
from soundfold.data.recordings import open_recordings
from soundfold.errors import ArgumentError, InputError
from soundfold.features.augment import Augmentation
from soundfold.features.augment_params import MaskSpec, Uniform
from soundfold.features.probe import check_transform
from soundfold.features.recorded import BackgroundNoise, ImpulseResponse
from soundfold.features.spectrum import Filter, FilterKind
from soundfold.features.transform import RandomApply, Transform
from soundfold.validation import config_keys

# both in the order of application
RECORDED = ("impulse_response", "background_noise")
FILTERS: tuple[FilterKind, ...] = ("low_pass", "high_pass", "band_pass")
# of the targets that an augmentation is checked on
CLASSES = 5


@config_keys("augment", "data", "paths")
def augmentation(cfg: DictConfig) -> Augmentation:
    """Build from ``augment``, for clips of ``data``.

    Raises:
        InputError: a value is invalid, or a class of ``augment.extra`` breaks the contract of `Transform`.
    """
    options: Any = OmegaConf.to_container(cfg.augment, resolve=True)
    del options["mixing"], options["copies"]
    entries = options.pop("extra")
    for name in RECORDED:
        del options[name]
    filters = {kind: options.pop(kind) for kind in FILTERS}
    for key, value in options.items():
        if isinstance(value, dict):
            options[key] = MaskSpec(**value) if "count" in value else Uniform(**value)
    own = {name: _extra(f"augment.extra.{name}", entry, cfg) for name, entry in entries.items() if entry is not None}
    more = _recorded(cfg) | _filters(cfg, filters) | {f"extra.{name}": transform for name, transform in own.items()}
    return Augmentation(_samples(cfg), **options, extra=more)


def _recorded(cfg: DictConfig) -> dict[str, Transform]:
    """Build the augmentations by recordings that have a folder, in the order of application."""
    transforms: dict[str, Transform] = {}
    for name in RECORDED:
        options = cfg.augment[name]
        if options.folder is None:
            continue
        if not os.path.isdir(options.folder):  # a `Path` raises if the name is too long
            raise InputError(f"augment.{name}.folder={options.folder} is not a folder. Give a folder of audio files.")
        recordings = open_recordings(
            Path(options.folder),
            seconds=options.max_seconds,
            sample_rate=cfg.data.sample_rate,
            clip_samples=_samples(cfg),
            cache=Path(cfg.paths.cache),
        )
        if name == "impulse_response":
            transform: Transform = ImpulseResponse(_samples(cfg), recordings)
        else:
            transform = BackgroundNoise(recordings, options.low, options.high)
        transforms[name] = RandomApply(transform, options.p)
    return transforms


def _filters(cfg: DictConfig, filters: dict[FilterKind, dict[str, float]]) -> dict[str, Transform]:
    transforms: dict[str, Transform] = {}
    for kind, options in filters.items():
        if p := options.pop("p"):
            transforms[kind] = RandomApply(Filter(kind, cfg.data.sample_rate, frame_sizes(cfg).n_fft, **options), p)
    return transforms


def _extra(key: str, entry: Any, cfg: DictConfig) -> Transform:
    if not isinstance(entry, Mapping) or "_target_" not in entry:
        raise InputError(f"{key} requires _target_, the class of an augmentation, or null to disable it.")
    p = entry.get("p", 1.0)
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise InputError(f"{key}.p={p} must be between 0 and 1.")
    options = {name: value for name, value in entry.items() if name != "p"}
    target = entry["_target_"]
    offered = {"sample_rate": cfg.data.sample_rate, "samples": _samples(cfg)}
    accepted = signature(find_target(key, target, Transform)).parameters
    transform = build_target(key, options, Transform, **{n: v for n, v in offered.items() if n in accepted})
    try:
        check_transform(transform, _shapes(cfg))
    except ArgumentError as error:
        raise InputError(f"{key}: {target} {error}") from error
    return RandomApply(transform, p)


def _samples(cfg: DictConfig) -> int:
    return round(cfg.data.seconds * cfg.data.sample_rate)


def _shapes(cfg: DictConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of one training clip at each stage."""
    crops = cfg.get("crops")  # not in the configuration of `explore`
    seconds = cfg.data.seconds if crops is None or crops.seconds is None else crops.seconds
    length, sizes, image = round(seconds * cfg.data.sample_rate), frame_sizes(cfg), cfg.features.image
    frames = length // sizes.hop + 1
    return {
        "waveform": (length,),
        "spectrum": (sizes.n_fft // 2 + 1, frames),
        "image": (1, cfg.features.n_mels, frames) if image is None else (1, image.size, image.size),
        "targets": (CLASSES,),
    }
