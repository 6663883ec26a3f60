"""Modes of `torch.compile` for the training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

# dynamic=False: a CUDA graph has fixed shapes, so a smaller last batch is captured separately
COMPILATIONS: dict[str, dict[str, Any]] = {
    "default": {"mode": "default"},
    "graphs": {"mode": "reduce-overhead", "dynamic": False},
}


def compile_function(function: Callable, kind: str) -> Callable:
    """Return a function of tensors, compiled as requested.

    Args:
        kind: ``none`` (unchanged), ``default``, or ``graphs``: compiled and replayed as CUDA graphs, which avoid the
            launch cost of each kernel.
    """
    if kind == "none":
        return function
    compiled = torch.compile(function, **COMPILATIONS[kind])
    if kind != "graphs":
        return compiled

    def replay(*args: Any) -> Any:
        # CUDA graphs reuse output buffers: clone before the next replay
        return tree_map_only(Tensor, Tensor.clone, compiled(*args))

    return replay
