"""Workarounds for Lightning behavior that has no public option, each with a test.

Every use of a private attribute of Lightning is here.
"""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.utilities.rank_zero import rank_zero_only


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


def set_rank(rank: int) -> None:
    """Let loggers write if this process has rank 0 of its run.

    Lightning takes the rank from variables such as ``SLURM_PROCID`` and ``LOCAL_RANK``, which a job that is not part of
    this run may have set. Loggers of other ranks write nothing, without notice.
    """
    rank_zero_only.rank = rank  # type: ignore[attr-defined]
