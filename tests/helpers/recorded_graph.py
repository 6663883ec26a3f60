"""A substitute on a CPU for a CUDA graph: the operations of an iteration are recorded once, and repeated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from soundfold.features import crops, pipeline, segments, transform
from soundfold.features.logmel import LogMel


class RecordedGraph(TorchDispatchMode):
    """Records the operations of a function; `replay` repeats them on the same tensors.

    As in a CUDA graph, only operations on tensors are repeated: numbers of Python, also those read from a tensor,
    remain what they were. A capture of CUDA computes nothing; this recording does, so its first replay is skipped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict[str, Any], list[Tensor]]] = []
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        # the shapes of now: an operation such as `transpose_` changes that of its argument, once
        inputs = tree_map_only(Tensor, Tensor.detach, (args, kwargs or {}))
        output = func(*args, **(kwargs or {}))
        if torch.Tag.inplace_view not in func.tags:
            self.calls.append((func, *inputs, [leaf.detach() for leaf in _tensors(output)]))
        return output

    def replay(self) -> None:
        self.replays += 1
        if self.replays == 1:
            return
        with torch.no_grad():
            for func, args, kwargs, outputs in self.calls:
                for old, new in zip(outputs, _tensors(func(*args, **kwargs)), strict=True):
                    # views and results of in-place operations are where they were
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def compute_as_on_a_gpu(monkeypatch: Any) -> None:
    """Let images be made as on a GPU: without reading a value of a tensor, which is free on a CPU only."""
    for module in (crops, segments, transform):
        monkeypatch.setattr(module, "is_readable", lambda x: False)
    monkeypatch.setattr(pipeline, "_clips_at_a_time", len)
    monkeypatch.setattr(LogMel, "_mel_product", lambda self, bank, power, factor: bank @ power)
