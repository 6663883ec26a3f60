"""Builders: from sections of the configuration to library objects."""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from soundfold import config
from soundfold.config.frozen import frozen_values
from soundfold.config.targets import accepts, find_target, refuse_unknown_options
from soundfold.data.class_weights import class_weights as training_class_weights
from soundfold.data.copies import OfflineCopies
from soundfold.data.layouts import TableOptions
from soundfold.data.splits import Protocol
from soundfold.data.tables import ClipTable
from soundfold.errors import InputError
from soundfold.experiment.augmentations import augmentation
from soundfold.experiment.device import choose_accelerator
from soundfold.experiment.lightning_compat import run_without_compiler
from soundfold.features.crops import Crops
from soundfold.features.logmel import LogMel, NormalizeAndResize
from soundfold.features.mixing import Mixing
from soundfold.features.pipeline import FrontEnd
from soundfold.models.averaging import Averaging
from soundfold.models.classifier import Classifier
from soundfold.models.networks import build_network
from soundfold.validation import config_keys, validate_data, validate_features

# sections of a stored configuration that a model is rebuilt from
IMAGE_SECTIONS: dict[str, Any] = {
    "data": config.Data,
    "features": config.Features,
    "augment": config.Augment,
    "crops": config.Crops,
    "model": config.Model,
}


def stored_sections(stored: dict[str, Any], source: str = "the stored configuration") -> DictConfig:
    """Return the sections of a stored configuration that a model is rebuilt from.

    Keys that are newer than the configuration have the values that it was computed with.

    Args:
        stored: plain values of `parse_stored`.
        source: where it was read, for the error message.

    Raises:
        InputError: see `refuse_foreign_keys`; or a value is invalid, and might exhaust memory.
    """
    refuse_foreign_keys(stored, source)
    values = config.migrate({name: {} for name in IMAGE_SECTIONS} | stored)
    sections: Any = {}
    try:
        network = config.open_section(config.Model) if _has_other_network(values) else config.MODELS["resnet18"]
        for name, schema in (IMAGE_SECTIONS | {"model": network}).items():
            sections[name] = OmegaConf.merge(OmegaConf.structured(schema), values[name])
        cfg = OmegaConf.create(sections)
        validate_data(cfg)
        validate_features(cfg)
    except (InputError, OmegaConfBaseException) as error:
        raise InputError(f"{source} has an invalid value: {str(error).splitlines()[0]}") from None
    return cfg


def refuse_foreign_keys(stored: dict[str, Any], source: str) -> None:
    """Refuse a stored configuration with a key, in the sections that a model is rebuilt from, that the schema lacks.

    A model that is rebuilt without the key might not be the one that was trained.

    Raises:
        InputError: one of these sections has a foreign key or is not a mapping; the message has key and source.
    """
    for name in IMAGE_SECTIONS:
        # OmegaConf would parse a text as YAML
        if not isinstance(stored.get(name, {}), dict):
            raise InputError(f"{source} has {name}={stored[name]!r}, not a mapping, so the model cannot be rebuilt.")
    values, known = config.migrate(stored), config.known_keys()
    for key in config.flatten({name: values[name] for name in IMAGE_SECTIONS if name in values}):
        if config.is_class_option(key) or (key.startswith("model.") and _has_other_network(values)):
            continue
        parts = key.split(".")
        # name the outermost unknown key
        for length in range(2, len(parts) + 1):
            if (outer := ".".join(parts[:length])) not in known:
                raise InputError(
                    f"{source} has the key {outer}, which this version of soundfold does not know: this model was "
                    "written by another version of soundfold; use that version or train again."
                )


def _has_other_network(values: dict[str, Any]) -> bool:
    return values.get("model", {}).get("_target_") != frozen_values()["model._target_"]


def table_options(cfg: DictConfig) -> TableOptions:
    """Build from ``data``."""
    options: Any = OmegaConf.to_container(cfg.data, resolve=True)
    return TableOptions(**{name: options[name] for name in signature(TableOptions).parameters})


@config_keys("features", "features.image", "augment", "data")
def front_end(cfg: DictConfig, *, augmented: bool = True) -> FrontEnd:
    """Build from ``features``, ``augment`` and ``data``; the statistics are 0 and 1 until fitted.

    Args:
        augmented: with the augmentation, which prediction does not need.
    """
    image = cfg.features.image
    resize = image and NormalizeAndResize(cfg.features.n_mels, image.frames, image.size)
    return FrontEnd(logmel(cfg), resize, augmentation(cfg) if augmented else None, cfg.features.per_band)


@config_keys("features", "data")
def logmel(cfg: DictConfig) -> LogMel:
    """Build from ``features``, for clips of ``data``."""
    sizes = config.frame_sizes(cfg)
    return LogMel(
        cfg.data.sample_rate,
        sizes.n_fft,
        sizes.hop,
        f_max=sizes.f_max,
        win_length=sizes.window,
        **{key: cfg.features[key] for key in ("n_mels", "f_min", "top_db", "relative")},
    )


@config_keys("crops", "data")
def crops(cfg: DictConfig) -> Crops | None:
    """Build from ``crops``, for clips of ``data``; None if disabled."""
    if cfg.crops.seconds is None:
        return None
    samples, length = (round(seconds * cfg.data.sample_rate) for seconds in (cfg.data.seconds, cfg.crops.seconds))
    return Crops(samples, length, cfg.crops.trim, cfg.crops.test)


@config_keys("model")
def network(cfg: DictConfig, classes: int, weights: str = "none") -> nn.Module:
    """Build from ``model``, see `build_network`."""
    section: Any = OmegaConf.to_container(cfg.model, resolve=True)
    return build_network(section, classes, weights)


@config_keys("model", "optim", "schedule")
def classifier(cfg: DictConfig, classes: int, weights: str = "none", **more: Any) -> Classifier:
    """Build from ``model``, ``optim`` and ``schedule``, with ``more`` arguments of `Classifier`."""
    options = ("label_smoothing", "loss", "frozen_stages", "layer_decay", "channels_last", "compile")
    return Classifier(
        network(cfg, classes, weights),
        classes,
        optimizer(cfg),
        decay=cfg.schedule.decay,
        warmup=cfg.schedule.warmup,
        **{key: cfg.model[key] for key in options},
        **more,
    )


@config_keys("model")
def class_weights(cfg: DictConfig, table: ClipTable, clips: np.ndarray | slice = slice(None)) -> np.ndarray | None:
    """Build from ``model.class_weights``, for some training clips of a table, or all."""
    kind: Any = OmegaConf.to_container(cfg.model, resolve=True)["class_weights"]  # type: ignore[index, call-overload]
    return training_class_weights(kind, table.targets[clips], len(table.classes))


@config_keys("average")
def averaging(cfg: DictConfig) -> Averaging | None:
    """Build from ``average``; None if disabled."""
    return None if cfg.average.kind == "none" else Averaging(**cfg.average)


@config_keys("augment.mixing")
def mixing(cfg: DictConfig) -> Mixing:
    """Build from ``augment.mixing``."""
    return Mixing(**cfg.augment.mixing)


@config_keys("augment.copies")
def copies(cfg: DictConfig) -> OfflineCopies | None:
    """Build from ``augment.copies``; None if disabled."""
    return None if cfg.augment.copies is None else OfflineCopies(**cfg.augment.copies)


def example_images(cfg: DictConfig) -> dict[bool, Tensor]:
    """Return images (2, 1, M, T) of silence as in training (True) and in evaluation (False)."""
    clip, cropping = torch.zeros(1, round(cfg.data.seconds * cfg.data.sample_rate)), crops(cfg)
    training = clip if cropping is None else clip[:, : cropping.length]
    scoring = clip if cropping is None or cropping.test is None else training
    make = front_end(cfg, augmented=False)
    return {
        is_training: make.normalize(make.logmel(wave)).repeat(2, 1, 1, 1)
        for is_training, wave in {True: training, False: scoring}.items()
    }


def optimizer(cfg: DictConfig) -> partial[Any]:
    """Build from ``optim``: a function from parameter groups to an optimizer.

    Raises:
        InputError: the class is not an optimizer, or does not have an option.
    """
    found = find_target("optim", cfg.optim._target_, torch.optim.Optimizer)
    run_without_compiler(found)
    values: Any = OmegaConf.to_container(cfg.optim, resolve=True)
    options = {name: value for name, value in values.items() if name not in ("_target_", "_partial_")}
    parameters = dict(list(signature(found).parameters.items())[1:])  # without the parameter groups
    if not options["fused"]:
        del options["fused"]  # not every class has it, and where it is false PyTorch uses no `foreach` kernels either
    elif not accepts(parameters, "fused"):
        raise InputError(f"{cfg.optim._target_} has no fused step. Set optim.fused=false.")
    if not accepts(parameters, "weight_decay") and options.pop("weight_decay"):
        raise InputError(f"{cfg.optim._target_} has no weight decay. Set optim.weight_decay=0.")
    refuse_unknown_options("optim", cfg.optim._target_, options, parameters, ("fused", "weight_decay"))
    return partial(found, **options)


def check_optimizer(cfg: DictConfig) -> None:
    """Let the optimizer check its options and, unless a GPU trains, step on the CPU with the groups of a network.

    Raises:
        InputError: the class rejects its options, or cannot update weights from dense gradients.
    """
    make, accelerator = optimizer(cfg), choose_accelerator(cfg)
    weight, bias = (torch.zeros(shape, requires_grad=True) for shape in ((2, 2), (2,)))
    try:
        trial = make([{"params": [weight]}, {"params": [bias], "weight_decay": 0.0}])
        weight.grad, bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
        if accelerator != "gpu":  # kernels of its class may require one
            trial.step(lambda: weight.sum())  # Lightning passes a closure, too
    except Exception as error:  # of an arbitrary class
        listed = ", ".join(f"optim.{name}={value!r:.40}" for name, value in make.keywords.items())
        reason = str(error).rstrip(".") or type(error).__name__
        raise InputError(
            f"optim: {cfg.optim._target_} cannot train with {listed}: {reason}. Correct the values, or choose another "
            "optimizer."
        ) from error


@config_keys("split")
def protocol(cfg: DictConfig) -> Protocol:
    """Build from ``split``."""
    options: Any = OmegaConf.to_container(cfg.split, resolve=True)
    return Protocol(options.pop("protocol"), **options)
