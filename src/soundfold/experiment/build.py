"""A configuration's sections turned into the parts that they describe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from soundfold.config import Augment, Data, Features
from soundfold.data.datamodule import OfflineCopies
from soundfold.data.folds import Protocol
from soundfold.frontend.augment import Augmentation, Stripes, Uniform
from soundfold.frontend.front_end import FrontEnd
from soundfold.frontend.logmel import ClipStandardisedResize, LogMel
from soundfold.frontend.mixing import Mixing


def image_sections(given: Any) -> DictConfig:
    """The sections of a stored configuration that make images; keys that it did not know yet have their defaults."""
    types = {"data": Data, "features": Features, "augment": Augment}
    known: Any = {name: OmegaConf.merge(OmegaConf.structured(kind), given[name]) for name, kind in types.items()}
    return OmegaConf.create(known)


def front_end(cfg: DictConfig) -> FrontEnd:
    """From ``features``, ``augment`` and ``data``; its statistics are still 0 and 1."""
    image = cfg.features.image
    resize = image and ClipStandardisedResize(cfg.features.n_mels, image.frames, image.size)
    return FrontEnd(logmel(cfg), resize, augmentation(cfg))


def logmel(cfg: DictConfig) -> LogMel:
    """From ``features``, for clips of ``data``."""
    options = {key: value for key, value in cfg.features.items() if key != "image"}
    return LogMel(sample_rate=cfg.data.sample_rate, **options)


def augmentation(cfg: DictConfig) -> Augmentation:
    """From ``augment``, for clips of ``data``."""
    options: Any = OmegaConf.to_container(cfg.augment)
    crop = options.pop("crop_seconds")
    del options["mixing"], options["copies"]
    for key, value in options.items():
        if isinstance(value, dict):
            options[key] = Stripes(**value) if "count" in value else Uniform(**value)
    return Augmentation(
        round(cfg.data.seconds * cfg.data.sample_rate),
        crop=None if crop is None else round(crop * cfg.data.sample_rate),
        **options,
    )


def mixing(cfg: DictConfig) -> Mixing:
    """From ``augment.mixing``."""
    return Mixing(**cfg.augment.mixing)


def copies(cfg: DictConfig) -> OfflineCopies | None:
    """From ``augment.copies``."""
    return None if cfg.augment.copies is None else OfflineCopies(**cfg.augment.copies)


def optimizer(cfg: DictConfig) -> Callable[..., Any]:
    """From ``optim``: from parameter groups to an optimiser."""
    options: Any = OmegaConf.to_container(cfg.optim, resolve=True)
    # not every optimiser knows the word: one that does not is used with fused=false
    if not options["fused"]:
        del options["fused"]
    return instantiate(options, _convert_="all")


def protocol(cfg: DictConfig) -> Protocol:
    """From ``split``."""
    options: Any = OmegaConf.to_container(cfg.split)
    return Protocol(options.pop("protocol"), **options)
