"""torchvision's ResNet-18 for one-channel images."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import ResNet, ResNet18_Weights, resnet18

from soundfold.errors import InputError

STEMS = ("sum", "random")


def single_channel_resnet18(classes: int, weights: str = "none", stem: str = "sum") -> ResNet:
    """ResNet-18 with a one-channel 7x7 stem: images (B, 1, M, T) -> logits (B, classes).

    Source: K. He et al., Deep Residual Learning for Image Recognition, CVPR 2016; torchvision's implementation.

    Args:
        classes: number of classes.
        weights: ``none`` (random), ``imagenet`` (torchvision's IMAGENET1K_V1, from its cache or the network), or the
            path of a file of weights: a state dict of ResNet-18 with three channels or one, or what a finished fold
            keeps. A head of another number of classes is refused, unless the file is ImageNet's (1,000 classes).
        stem: with three-channel weights: ``sum`` of the three colour kernels, so that a grey image gives the response
            that it would as colour; or ``random``.

    Raises:
        InputError: the weights cannot be had or do not fit.
    """
    if stem not in STEMS:
        raise InputError(f"model.stem={stem} is unknown; give one of {', '.join(STEMS)}.")
    network = resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    if weights == "none":
        return network
    state = _imagenet() if weights == "imagenet" else _from_file(Path(weights))
    kernel = state.get("conv1.weight")
    if kernel is not None and kernel.shape[1] == 3:
        state["conv1.weight"] = kernel.sum(dim=1, keepdim=True) if stem == "sum" else network.conv1.weight.data
    head = state.get("fc.weight")
    if head is not None and len(head) != classes:
        if len(head) != 1000:
            raise InputError(
                f"model.weights={weights} was trained for {len(head)} classes and the data has {classes}. "
                "Give weights of the same classes, model.weights=imagenet, or model.weights=none."
            )
        state |= {name: value for name, value in network.state_dict().items() if name.startswith("fc.")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise InputError(f"model.weights={weights} are not those of a ResNet-18: {first}") from error
    return network


def weights_digest(weights: str) -> str:
    """What identifies the weights: the name, or the SHA-256 of the file.

    Raises:
        InputError: the file does not exist.
    """
    if weights in ("none", "imagenet"):
        return weights
    try:
        with Path(weights).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"model.weights={weights} cannot be read ({error.strerror}). Give imagenet, none, or the path of a file."
        ) from error


def _imagenet() -> dict[str, Tensor]:
    try:
        return dict(ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        cache = Path(os.environ.get("TORCH_HOME", "~/.cache/torch")) / "hub" / "checkpoints"
        raise InputError(
            f"model.weights=imagenet: the weights are neither in {cache} nor could they be downloaded ({error}). "
            f"Put {Path(ResNet18_Weights.IMAGENET1K_V1.url).name} there, give model.weights=PATH of a copy, or train "
            "from scratch with model.weights=none."
        ) from error


def _from_file(path: Path) -> dict[str, Tensor]:
    weights_digest(str(path))
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not one of its own
        raise InputError(f"model.weights={path} is not a file of weights that torch reads safely: {error}") from error
    state = found.get("network", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"model.weights={path} holds no state dict of a network.")
    return dict(state)
