"""Compilation of the training step by `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable

import torch


def compile_function(function: Callable, kind: str) -> Callable:
    """Return a function of tensors, compiled as requested.

    Args:
        kind: ``none`` (unchanged) or ``default`` (`torch.compile`).
    """
    return function if kind == "none" else torch.compile(function)
