"""Workarounds for behavior of Lightning and PyTorch that has no public option, each with a test."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.optim.optimizer import Optimizer, _use_grad_for_differentiable

from soundfold.deferred_imports import disable_in_graphs, is_loaded


def disable_signal_handlers(trainer: pl.Trainer) -> None:
    """Leave SIGTERM and SIGUSR1 to `soundfold.io.signals` or to a job scheduler's own handlers.

    Lightning's SIGTERM handler ends the process with exit code 0, as if the run had finished.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def resume_at_epoch_end(trainer: pl.Trainer) -> None:
    """Treat checkpoints as the end of an epoch, also with ``max_steps``.

    With ``max_steps`` Lightning assumes that a checkpoint was taken within an epoch, and skips the next one.
    """
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]


def count_last_epoch(trainer: pl.Trainer) -> None:
    """Make ``trainer.current_epoch`` the number of finished epochs after a fit.

    A checkpoint is saved before its epoch is counted. Resuming a fit that is already complete leaves it uncounted.
    """
    progress = trainer.fit_loop.epoch_progress.current
    progress.completed = progress.processed  # type: ignore[attr-defined]


def run_without_compiler(kind: Any) -> None:
    """Let an optimizer of PyTorch work without importing ``torch._dynamo``, which takes longer than many first steps.

    Its methods import it to exclude themselves from compiled graphs. They do so as before once something else has
    imported it, because nothing is compiled until then.

    Args:
        kind: class of the optimizer. One that is not derived from PyTorch's, and a function, stay as they are.
    """
    excluded = torch._disable_dynamo(len).__code__  # type: ignore[attr-defined]
    for method in vars(Optimizer).values():
        # where PyTorch stores the excluded function after the first call
        if getattr(method, "__code__", None) is excluded and not hasattr(method.__wrapped__, "__dynamo_disable"):
            method.__wrapped__.__dynamo_disable = disable_in_graphs(method.__wrapped__)
    splits = _use_grad_for_differentiable(len).__code__
    step: Any = getattr(kind, "step", None)
    if hasattr(step, "hooked"):  # PyTorch's hook of the profiler, which the first object adds to its class
        step = step.__wrapped__
    if getattr(step, "__code__", None) is splits:
        kind.step = _without_graph_breaks(step)


def _without_graph_breaks(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method ``step`` that only breaks compiled graphs if ``torch._dynamo`` has been imported."""

    @functools.wraps(step)
    def call(self: Optimizer, *args: Any, **options: Any) -> Any:
        if is_loaded("torch._dynamo"):
            return step(self, *args, **options)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step.__wrapped__(self, *args, **options)  # type: ignore[attr-defined]

    return call


def set_rank(rank: int) -> None:
    """Let loggers write if this process has rank 0 of its run.

    Lightning takes the rank from variables such as ``SLURM_PROCID`` and ``LOCAL_RANK``, which a job that is not part of
    this run may have set. Loggers of other ranks write nothing, without notice.
    """
    rank_zero_only.rank = rank  # type: ignore[attr-defined]
