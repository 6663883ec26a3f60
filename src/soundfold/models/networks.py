"""Networks that a configuration names by ``model._target_``.

The target is a class derived from ``nn.Module``, or a function annotated to return one. It is called with the keyword
``classes`` (``num_classes`` if it has no such parameter), the number of classes C, and with every key of the section
``model`` that is not a training option. ``forward`` maps images (B, 1, M, T), float32, of M mel bands and T frames, to
logits (B, C).

A network may have one hook, ``stages()``: it returns modules from the input to the head that together hold every
parameter once. ``model.layer_decay`` and ``model.frozen_stages`` require it, except for networks of torchvision and
timm. Class activation maps require no hook, see `soundfold.models.cam`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from inspect import Parameter, ismethod, signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from soundfold.config import Model
from soundfold.config.targets import build_target, find_target, refuse_unknown_options
from soundfold.config.trust import require_trust
from soundfold.errors import ArgumentError, InputError, is_out_of_memory
from soundfold.models.initial_weights import initialize
from soundfold.models.libraries import library_stages, timm_imagenet, torchvision_imagenet

RESNET = "soundfold.models.resnet.ResNet18"
# networks that a model file may name, and their ImageNet weights
IMAGENET: dict[str, Callable[..., dict[str, Tensor]]] = {
    RESNET: lambda **_: torchvision_imagenet("resnet18"),
    "soundfold.models.libraries.torchvision_network": torchvision_imagenet,
    "soundfold.models.libraries.timm_network": timm_imagenet,
}
TRAINING_OPTIONS = {field.name for field in fields(Model)}


def build_network(section: Mapping[str, Any], classes: int, weights: str = "none") -> nn.Module:
    """Build the network of the section ``model``.

    Args:
        section: plain values.
        classes: number of classes.
        weights: initial weights, see `initialize`.

    Raises:
        InputError: the target is not a network, or rejects its options.
    """
    target = section["_target_"]
    found = find_target("model", target, nn.Module)
    options = {name: value for name, value in section.items() if name not in TRAINING_OPTIONS}
    parameters = signature(found).parameters
    _check_options(target, options, parameters)
    count = "num_classes" if "num_classes" in parameters and "classes" not in parameters else "classes"
    network = build_target("model", {"_target_": target, **options}, nn.Module, **{count: classes})
    imagenet = partial(IMAGENET[target], **options) if target in IMAGENET else None
    initialize(network, classes, weights, section["stem"], imagenet)
    return network


def _check_options(target: str, options: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> None:
    for option in options:
        if option in ("classes", "num_classes"):
            raise InputError(f"model.{option} cannot be set: it is the number of classes of the data. Remove it.")
    own = {name: parameter for name, parameter in parameters.items() if name not in ("classes", "num_classes")}
    refuse_unknown_options("model", target, options, own, TRAINING_OPTIONS - {"_target_"})


def check_stored_network(section: Mapping[str, Any]) -> None:
    """Check the section ``model`` of a model file, which may come from a stranger, before anything is imported.

    It may name our networks and builders, with numbers and words as arguments, and classes of trusted modules. Our
    builders refuse names that their libraries do not list, and options that load weights.

    Raises:
        InputError: it names another class, or an option may be a path, a URL or a further class.
    """
    target = section["_target_"]
    require_trust("model", target, IMAGENET)
    for name, value in section.items():
        if name not in TRAINING_OPTIONS and not _is_plain(value):
            raise InputError(
                f"This model's option model.{name}={value!r:.80} is neither a number nor a word, so it is not used. "
                "Use an unmodified weights.pt of a run."
            )


def is_builtin(section: Mapping[str, Any]) -> bool:
    """Return whether the section ``model`` names one of our networks or builders."""
    return section["_target_"] in IMAGENET


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return not {*"/\\:"} & {*value}
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float)


def stages(network: nn.Module, option: str) -> list[nn.Module]:
    """Return the units of freezing and layer decay, from input to head.

    Args:
        network: see the module's docstring.
        option: that requires them, for the error message.

    Raises:
        ArgumentError: the network has no hook, or the stages do not hold every parameter once.
    """
    name = f"{type(network).__module__}.{type(network).__qualname__}"
    hook = getattr(network, "stages", None)
    if ismethod(hook):  # networks of timm have modules of this name
        found = list(hook())
    elif name.startswith(("torchvision.", "timm.")):
        found = library_stages(network)
    else:
        raise ArgumentError(
            f"`{option}` requires a method stages() of {name} that returns its modules from input to head. Add it, or "
            "omit the option."
        )
    held = [id(parameter) for stage in found for parameter in stage.parameters()]
    if sorted(held) != sorted(id(parameter) for parameter in network.parameters()):
        raise ArgumentError(f"`{option}` is not available: the stages of {name} do not hold every parameter once.")
    return found


def check_network(
    build: Callable[[], nn.Module], images: Mapping[bool, Tensor], classes: int, *, on_cpu: bool = False
) -> None:
    """Check that a network turns images into logits, without memory for its weights if it can be built so.

    Args:
        build: returns the network.
        images: images (2, 1, M, T) of evaluation (False) and training (True). Without any, the network is only built.
        classes: number of classes.
        on_cpu: with memory for its weights, and in their memory format.

    Raises:
        ArgumentError: it cannot take the images, or returns something else.
    """
    if not on_cpu:
        # an operation that depends on values, or a fault of the network, is looked for on the CPU
        with suppress(NotImplementedError, RuntimeError), on_meta(), torch.no_grad():
            return _check_outputs(build, images, classes, "meta")
    with torch.device("cpu"), torch.no_grad():
        return _check_outputs(build, images, classes, "cpu")


@contextmanager
def on_meta() -> Iterator[None]:
    """Build networks on the device ``meta``, without memory for their weights and without random initial values."""
    with torch.device("meta"), _WithoutInitialization():
        yield


class _WithoutInitialization(TorchFunctionMode):
    """Leaves initial values out: on the device ``meta`` they import PyTorch's compiler, for seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in (Tensor.normal_, Tensor.uniform_) else func(*args, **(kwargs or {}))


def _check_outputs(build: Callable[[], nn.Module], images: Mapping[bool, Tensor], classes: int, device: str) -> None:
    network = build()
    for is_training, image in images.items():
        size, mode = tuple(image.shape[1:]), "training" if is_training else "evaluation"
        try:
            output = network.train(is_training)(image.to(device))
        except Exception as error:  # of arbitrary code
            if is_out_of_memory(error) or (device == "meta" and isinstance(error, RuntimeError)):
                raise
            reason = (str(error).splitlines() or [""])[0].rstrip(".")
            raise ArgumentError(
                f"The network cannot take images of shape {size} in {mode} ({type(error).__name__}: {reason}). Set "
                "another `name` or `_target_`, or another size of the images by features and crops."
            ) from error
        if not isinstance(output, Tensor) or output.shape != (len(image), classes):
            found = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise ArgumentError(
                f"The network returns {found} in {mode} for {len(image)} images and {classes} classes, and must "
                f"return logits {(len(image), classes)}. Set another `name` or `_target_`, or an option that "
                "disables further outputs, such as model.aux_logits=false."
            )
