"""The section ``model``: options of every network, and those of the networks in ``conf/model``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from soundfold.config.declaration import key


@dataclass
class Model:
    """Options of every network; the other keys of the section are arguments of the class that ``_target_`` names."""

    _target_: str = key()
    weights: str = key()
    stem: str = key(choices=("sum", "random"))
    frozen_stages: int = key()
    layer_decay: float = key()
    label_smoothing: float = key()
    loss: str = key()
    class_weights: Any = key()
    channels_last: bool = key()
    compile: str = key(choices=("none", "default"))


@dataclass
class ResNet18(Model):
    width: int = key()
    stem_stride: int = key()
    max_pool: bool = key()
    frequency_channel: bool = key()
    squeeze_excitation: bool = key()
    stochastic_depth: float = key()
    pooling: str = key()


@dataclass
class NamedModel(Model):
    name: str = key()


# by their option in conf/model
MODELS = {"resnet18": ResNet18, "torchvision": NamedModel, "timm": NamedModel}
