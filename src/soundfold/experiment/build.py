"""A configuration's sections turned into the parts that they describe."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from soundfold import config
from soundfold.data.copies import OfflineCopies
from soundfold.data.layouts import TableOptions
from soundfold.data.splits import Protocol
from soundfold.errors import InputError
from soundfold.features.augment import Augmentation, MaskSpec, Uniform
from soundfold.features.crops import Crops
from soundfold.features.logmel import LogMel, NormalizeAndResize
from soundfold.features.mixing import Mixing
from soundfold.features.pipeline import FrontEnd
from soundfold.models.averaging import Averaging
from soundfold.models.classifier import Classifier
from soundfold.models.resnet import ResNet18, single_channel_resnet18
from soundfold.validation import config_keys

# of a stored configuration: what makes images of waveforms, and logits of images
IMAGE_SECTIONS: dict[str, Any] = {
    "data": config.Data,
    "features": config.Features,
    "augment": config.Augment,
    "crops": config.Crops,
    "model": config.Model,
}


def stored_sections(given: Any, where: str = "the stored configuration") -> DictConfig:
    """The sections of a stored configuration that make images and logits of waveforms.

    Keys that it did not know have the values that it computed with.

    Args:
        given: the stored configuration.
        where: it was found, in words.

    Raises:
        InputError: one of these sections has a key that the schema does not know.
    """
    refuse_foreign_keys(given, where)
    stored: Any = OmegaConf.to_container(given) if OmegaConf.is_config(given) else given
    sections = config.migrate({name: {} for name in IMAGE_SECTIONS} | stored)
    known: Any = {}
    for name, kind in IMAGE_SECTIONS.items():
        known[name] = OmegaConf.merge(OmegaConf.structured(kind), sections[name])
    return OmegaConf.create(known)


def refuse_foreign_keys(given: Any, where: str) -> None:
    """Refuse a stored configuration whose sections for images and logits have a key that the schema does not know.

    What the key meant is not known, so a model rebuilt without it might not be the one that was trained.

    Raises:
        InputError: names the key and where it was found.
    """
    plain: Any = OmegaConf.to_container(given) if OmegaConf.is_config(given) else given
    if not isinstance(plain, dict):
        return
    plain, known = config.migrate(plain), config.known_keys()
    for key in config.flatten({name: plain[name] for name in IMAGE_SECTIONS if name in plain}):
        parts = key.split(".")
        # the outermost: of an unknown section its own name
        for length in range(2, len(parts) + 1):
            if (outer := ".".join(parts[:length])) not in known:
                raise InputError(
                    f"{where} has the key {outer}, which this version of soundfold does not know: this model was "
                    "written by another version of soundfold; use that version or train again."
                )


def table_options(cfg: DictConfig) -> TableOptions:
    """From ``data``."""
    options: Any = OmegaConf.to_container(cfg.data, resolve=True)
    return TableOptions(**{name: options[name] for name in signature(TableOptions).parameters})


@config_keys("features", "features.image", "augment", "data")
def front_end(cfg: DictConfig) -> FrontEnd:
    """From ``features``, ``augment`` and ``data``; its statistics are still 0 and 1."""
    image = cfg.features.image
    resize = image and NormalizeAndResize(cfg.features.n_mels, image.frames, image.size)
    return FrontEnd(logmel(cfg), resize, augmentation(cfg))


@config_keys("features", "data")
def logmel(cfg: DictConfig) -> LogMel:
    """From ``features``, for clips of ``data``."""
    sizes = config.frame_sizes(cfg)
    return LogMel(
        cfg.data.sample_rate,
        sizes.n_fft,
        sizes.hop,
        f_max=sizes.f_max,
        win_length=sizes.window,
        **{key: cfg.features[key] for key in ("n_mels", "f_min", "top_db", "relative")},
    )


@config_keys("augment", "data")
def augmentation(cfg: DictConfig) -> Augmentation:
    """From ``augment``, for clips of ``data``."""
    options: Any = OmegaConf.to_container(cfg.augment, resolve=True)
    del options["mixing"], options["copies"]
    for key, value in options.items():
        if isinstance(value, dict):
            options[key] = MaskSpec(**value) if "count" in value else Uniform(**value)
    return Augmentation(round(cfg.data.seconds * cfg.data.sample_rate), **options)


@config_keys("crops", "data")
def crops(cfg: DictConfig) -> Crops | None:
    """From ``crops``, for clips of ``data``."""
    if cfg.crops.seconds is None:
        return None
    samples, length = (round(seconds * cfg.data.sample_rate) for seconds in (cfg.data.seconds, cfg.crops.seconds))
    return Crops(samples, length, cfg.crops.trim, cfg.crops.test)


@config_keys("model")
def network(cfg: DictConfig, classes: int, weights: str = "none") -> ResNet18:
    """From ``model``, starting from weights as `single_channel_resnet18` takes them."""
    architecture = {key: cfg.model[key] for key in signature(ResNet18).parameters if key in cfg.model}
    return single_channel_resnet18(classes, weights, cfg.model.stem, **architecture)


@config_keys("model", "optim", "schedule")
def classifier(cfg: DictConfig, classes: int, weights: str = "none") -> Classifier:
    """From ``model``, ``optim`` and ``schedule``."""
    options = ("label_smoothing", "frozen_stages", "layer_decay", "channels_last", "compile")
    return Classifier(
        network(cfg, classes, weights),
        classes,
        optimizer(cfg),
        decay=cfg.schedule.decay,
        warmup=cfg.schedule.warmup,
        **{key: cfg.model[key] for key in options},
    )


@config_keys("average")
def averaging(cfg: DictConfig) -> Averaging | None:
    """From ``average``."""
    return None if cfg.average.kind == "none" else Averaging(**cfg.average)


@config_keys("augment.mixing")
def mixing(cfg: DictConfig) -> Mixing:
    """From ``augment.mixing``."""
    return Mixing(**cfg.augment.mixing)


@config_keys("augment.copies")
def copies(cfg: DictConfig) -> OfflineCopies | None:
    """From ``augment.copies``."""
    return None if cfg.augment.copies is None else OfflineCopies(**cfg.augment.copies)


def optimizer(cfg: DictConfig) -> Callable[..., Any]:
    """From ``optim``: from parameter groups to an optimiser.

    Raises:
        InputError: it refuses its values, or is no optimiser.
    """
    options: Any = OmegaConf.to_container(cfg.optim, resolve=True)
    # not every optimiser knows the word: one that does not is used with fused=false
    if not options["fused"]:
        del options["fused"]
    made = instantiate(options, _convert_="all")
    try:
        # its own rules, told before any work
        tried = made([{"params": [torch.zeros(1, device="cpu")]}])
    except Exception as error:  # of whatever class is named
        raise InputError(f"optim={cfg.optim._target_} refuses its values: {error}.") from error
    if not isinstance(tried, torch.optim.Optimizer):
        raise InputError(f"optim._target_={cfg.optim._target_} is no optimiser of PyTorch.")
    return made


@config_keys("split")
def protocol(cfg: DictConfig) -> Protocol:
    """From ``split``."""
    options: Any = OmegaConf.to_container(cfg.split, resolve=True)
    return Protocol(options.pop("protocol"), **options)
