"""What `torch.compile` makes of the work of a training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

# a graph is of one shape, so a last, smaller batch has one of its own
COMPILATIONS: dict[str, dict[str, Any]] = {
    "default": {"mode": "default"},
    "graphs": {"mode": "reduce-overhead", "dynamic": False},
}


def compile_function(function: Callable, kind: str) -> Callable:
    """A function of tensors as it is (``none``), compiled (``default``), or compiled and replayed as CUDA graphs
    (``graphs``), which leave out the cost of starting kernels one by one.
    """
    if kind == "none":
        return function
    run = torch.compile(function, **COMPILATIONS[kind])
    if kind != "graphs":
        return run

    def replayed(*arguments: Any) -> Any:
        # the next replay, of any graph, writes over what this one gives
        return tree_map_only(Tensor, Tensor.clone, run(*arguments))

    return replayed
