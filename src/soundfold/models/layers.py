"""Vectors from inside a network: the input of its last layer, or the output of a named one."""

from __future__ import annotations

import difflib
from typing import Any

from torch import Tensor, nn

from soundfold.errors import ArgumentError


def layer_vectors(network: nn.Module, image: Tensor, layer: str | None = None) -> Tensor:
    """Return a vector per image from inside a network: images (B, 1, M, T) -> (B, D).

    Maps (B, D, H, W) are averaged over frequency and time, tokens (B, N, D) over tokens.

    >>> network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    >>> image = torch.zeros(4, 1, 16, 20)
    >>> layer_vectors(network, image).shape, layer_vectors(network, image, layer="3").shape
    (torch.Size([4, 8]), torch.Size([4, 2]))

    Args:
        network: in evaluation mode; see `soundfold.models.networks`.
        image: of any size that the network takes.
        layer: name of a module, as in ``network.named_modules()``, whose output is used. None is the input of the last
            layer with weights, which is the linear layer of most networks.

    Raises:
        ArgumentError: the network has no such layer, does not use it, or it has no vector per image.
    """
    found: list[Any] = []
    if layer is None:
        weighted = [m for m in network.modules() if m is not network and any(True for _ in m.parameters(recurse=False))]
        handles = [m.register_forward_pre_hook(lambda _, inputs: found.append(inputs)) for m in weighted]
    else:
        handles = [_find(network, layer).register_forward_hook(lambda _, inputs, output: found.append(output))]
    try:
        network(image)
    finally:
        for handle in handles:
            handle.remove()
    value = found[-1] if found else None
    # recurrent layers return their state beside the output
    vector = value[0] if isinstance(value, tuple) and value else value
    if isinstance(vector, Tensor) and len(vector) == len(image) and 2 <= vector.ndim <= 4:
        return vector.mean(dim=(2, 3)) if vector.ndim == 4 else vector.mean(dim=1) if vector.ndim == 3 else vector
    raise ArgumentError(
        f"{'The last layer' if layer is None else f'`layer`={layer}'} of {type(network).__name__} has no vector per "
        "image. Name another module by `layer`, one that the network calls on all images."
    )


def _find(network: nn.Module, layer: str) -> nn.Module:
    modules = {name: module for name, module in network.named_modules() if name}
    if layer not in modules:
        near = ", ".join(difflib.get_close_matches(layer, modules, n=3, cutoff=0.0))
        raise ArgumentError(f"`layer`={layer} is not a module of {type(network).__name__}. Did you mean one of {near}?")
    return modules[layer]
