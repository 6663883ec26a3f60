"""Initial weights of a network, ImageNet's or of a file, fitted to one input channel and the number of classes."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn, zeros_like

from soundfold.errors import ArgumentError, is_out_of_memory
from soundfold.io.checkpoints import load_checkpoint

STEMS = ("sum", "random")
IMAGENET_CLASSES = 1000
State = dict[str, Tensor]


def initialize(
    network: nn.Module, classes: int, weights: str, stem: str = "sum", imagenet: Callable[[], State] | None = None
) -> None:
    """Load initial weights into a network.

    Args:
        network: with its random weights.
        classes: the network's number of classes.
        weights: ``none`` (keep the random ones), ``imagenet``, or the path of a file: a state dict of the network with
            one or three input channels, or weights.pt of a finished fold. A head with another number of classes is
            refused, unless it is ImageNet's.
        stem: for three-channel weights: ``sum`` over the color channels, which gives a gray image the response that it
            has in color; or ``random``.
        imagenet: returns the network's state dict with ImageNet's weights; None if there are none.

    Raises:
        ArgumentError: the weights are not available or do not fit.
    """
    if stem not in STEMS:
        raise ArgumentError(f"`stem`={stem} is unknown. Set one of {', '.join(STEMS)}.")
    if weights == "none":
        return
    name = type(network).__name__
    if weights != "imagenet":
        state = _load_weights(Path(weights))
    elif imagenet is None:
        raise ArgumentError(
            f"`weights`=imagenet: {name} has no such weights. Set `weights`=none or the path of a file."
        )
    else:
        state = imagenet()
    for key, initial in network.state_dict().items():
        value = state.get(key)
        if value is None or value.shape == initial.shape:
            continue
        if value.ndim == initial.ndim == 4 and value.shape[1] == 3:
            state[key] = _sum_channels(value, initial.shape[1]) if stem == "sum" else initial
        elif initial.ndim and len(initial) == classes and value.shape[1:] == initial.shape[1:]:
            if weights != "imagenet" and len(value) != IMAGENET_CLASSES:
                raise ArgumentError(
                    f"`weights`={weights} was trained for {len(value)} classes and the data has {classes}. "
                    "Set weights of the same classes, `weights`=imagenet, or `weights`=none."
                )
            state[key] = initial
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise ArgumentError(f"`weights`={weights} does not fit this {name}: {reason}") from error


def _sum_channels(kernel: Tensor, in_channels: int) -> Tensor:
    """Sum a kernel over its color channels; further input channels start at zero."""
    gray = kernel.sum(dim=1, keepdim=True)
    if in_channels == 1:
        return gray
    summed = zeros_like(kernel[:, :1]).repeat(1, in_channels, 1, 1)
    summed[:, :1] = gray
    return summed


def weights_digest(weights: str) -> str:
    """Return what identifies initial weights: their name, or the SHA-256 of the file.

    Raises:
        ArgumentError: the file cannot be read.
    """
    if weights in ("none", "imagenet"):
        return weights
    try:
        # reading a pipe or a device might block forever
        if not Path(weights).is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with Path(weights).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ArgumentError(
            f"`weights`={weights} cannot be read ({error.strerror}). Set imagenet, none, or the path of a file."
        ) from error


def _load_weights(path: Path) -> State:
    weights_digest(str(path))
    try:
        content = load_checkpoint(path)
    except Exception as error:  # torch raises many types for files of another kind
        if is_out_of_memory(error):
            raise
        # without torch's own message, which suggests unsafe loading
        raise ArgumentError(
            f"`weights`={path} is not a file of weights that torch can load safely ({type(error).__name__})."
        ) from error
    state = content.get("network", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ArgumentError(f"`weights`={path} contains no state dict of a network.")
    if damaged := next((name for name, value in state.items() if not value.isfinite().all()), None):
        raise ArgumentError(f"`weights`={path} has values in {damaged} that are not finite. Use another file.")
    return dict(state)
