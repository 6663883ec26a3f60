"""Classifiers of torchvision and timm with one input channel."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from soundfold.config.installation import install_command
from soundfold.errors import ArgumentError, is_out_of_memory

# of builders: they read files or download; `model.weights` does, in training only
LOADING = ("weights", "weights_backbone", "progress", "pretrained", "checkpoint_path", "cache_dir", "url", "file")
# modules that contain the stages of a network
CONTAINERS = ("features", "blocks", "layers", "stages", "trunk_output")


def torchvision_network(classes: int, name: str, **options: Any) -> nn.Module:
    """Build one of torchvision's image classifiers with random weights and one input channel.

    The first convolution's kernel is summed over the color channels, so that an image has the response that it has as
    a gray one in color.

    Args:
        classes: number of classes.
        name: one of ``torchvision.models.list_models(torchvision.models)``.
        **options: arguments of torchvision's builder, such as ``dropout``; none that loads weights.

    Raises:
        ArgumentError: the name or an option is unknown, or an option loads weights.
    """
    network = _torchvision(name, num_classes=classes, **_refuse_loading(options))
    conv = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if conv is None or conv.in_channels != 3 or conv.groups != 1:
        raise ArgumentError(f"`name`={name} does not start with a convolution of color images. Set another network.")
    conv.in_channels = 1
    conv.weight = nn.Parameter(conv.weight.detach().sum(dim=1, keepdim=True))
    return network


def timm_network(classes: int, name: str, **options: Any) -> nn.Module:
    """Build one of timm's image classifiers with random weights and one input channel.

    Args:
        classes: number of classes.
        name: one of ``timm.list_models()``; a tag after a dot, such as ``resnet18.a1_in1k``, selects the weights of
            ``weights=imagenet``.
        **options: arguments of ``timm.create_model``, such as ``drop_rate``; none that loads weights.

    Raises:
        ArgumentError: timm is not installed, the name or an option is unknown, or an option loads weights.
    """
    return _timm(name, num_classes=classes, in_chans=1, **_refuse_loading(options))


def _torchvision(name: str, **options: Any) -> nn.Module:
    from torchvision import models  # imported here: other networks do without it

    # of this module only: builders of detectors in its submodules download their backbone
    _check_name("torchvision", name, name, models.list_models(models))
    return _call("torchvision", name, lambda: models.get_model(name, **options))


def _timm(name: str, **options: Any) -> nn.Module:
    timm = _import_timm()
    _check_name("timm", name, str(name).split(".")[0], timm.list_models())
    return _call("timm", name, lambda: timm.create_model(name, **options))


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ArgumentError(
            f"model=timm requires {error.name}, which is not installed: {install_command('timm')}."
        ) from error
    return timm


def _check_name(library: str, name: str, architecture: str, known: Iterable[str]) -> None:
    # an exact match: no path, URL, or name of a hub
    if architecture not in known:
        near = difflib.get_close_matches(str(architecture), known, n=3, cutoff=0.0)
        raise ArgumentError(f"`name`={name} is not an image classifier of {library}. Did you mean {' or '.join(near)}?")


def _call(library: str, name: str, build: Callable[[], nn.Module]) -> nn.Module:
    try:
        return build()
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if unknown := re.search(r"unexpected keyword argument '(\w+)'", reason):
            raise ArgumentError(
                f"`{unknown[1]}` is not an option of {library}'s {name}. Omit it, or name it as {library} does."
            ) from error
        raise ArgumentError(f"{library}'s {name} rejects its options: {reason}.") from error


def _refuse_loading(options: dict[str, Any]) -> dict[str, Any]:
    for option in options:
        if option in LOADING or option.startswith("pretrained"):
            raise ArgumentError(
                f"`{option}` would load weights. Remove it, and set `weights`=imagenet or a path instead."
            )
    return options


def torchvision_imagenet(name: str, **options: Any) -> dict[str, Tensor]:
    """Return torchvision's default ImageNet weights of a network, from the cache or downloaded.

    Raises:
        ArgumentError: they are not available.
    """
    try:
        # the copy's random weights must not change the draws of the run
        with torch.random.fork_rng(devices=[]):
            return _torchvision(name, weights="DEFAULT", **_refuse_loading(options)).state_dict()
    except ArgumentError:
        raise
    except Exception as error:  # of the network, and many types for a damaged file
        if is_out_of_memory(error):
            raise
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        from torchvision import models

        file = Path(models.get_model_weights(name)["DEFAULT"].url).name
        raise ArgumentError(
            f"`weights`=imagenet: the weights in {cache} are missing or damaged, and could not be downloaded "
            f"({error}). Copy {file} there, set `weights`=PATH of a copy, or train from scratch with `weights`=none."
        ) from error


def timm_imagenet(name: str, **options: Any) -> dict[str, Tensor]:
    """Return timm's pretrained weights of a network, those of the name's tag, from the cache or downloaded.

    Raises:
        ArgumentError: they are not available.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            return _timm(name, pretrained=True, **_refuse_loading(options)).state_dict()
    except ArgumentError:
        raise
    except Exception as error:  # of a hub's client
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArgumentError(
            f"`weights`=imagenet: timm's weights of {name} could not be loaded ({reason}). Set `weights`=PATH of a "
            "state dict, or train from scratch with `weights`=none."
        ) from error


def library_stages(network: nn.Module) -> list[nn.Module]:
    """Return the units of freezing and layer decay of a network of torchvision or timm, from input to head.

    They are its children, and those of a child that contains all stages; a norm belongs to the layer before it.
    """
    children: list[nn.Module] = []
    for name, child in network.named_children():
        children += child.children() if name in CONTAINERS else [child]
    stages: list[list[nn.Module]] = []
    for child in children:
        dimensions = [parameter.ndim for parameter in child.parameters()]
        if not stages or max(dimensions, default=0) > 1:
            stages.append([])
        if dimensions:
            stages[-1].append(child)
    return [nn.ModuleList(stage) for stage in stages]
