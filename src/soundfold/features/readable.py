"""Whether the values of a tensor can be read at once."""

from __future__ import annotations

import torch
from torch import Tensor


def is_readable(x: Tensor) -> bool:
    """Return whether values can be read without a synchronization, which is also impossible while a graph is traced."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.compiler.is_exporting()
