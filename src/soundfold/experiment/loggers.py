"""The Lightning loggers of a fold."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from soundfold.config import stored_values
from soundfold.experiment.lightning_objects import make_loggers
from soundfold.experiment.setup import RunContext


@contextmanager
def fold_loggers(run: RunContext, folder: Path, fold: int | None) -> Iterator[list[Logger]]:
    """Open the loggers that ``logger`` has in addition to metrics.csv, and close them."""
    loggers: list[Logger] = []
    with ExitStack() as stack:
        if run.cfg.logger.get("tensorboard") is not None:
            from lightning.pytorch.loggers import TensorBoardLogger

            # `MetricsCsv` logs the earlier epochs of a resumed fold again
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
            board = TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
            stack.callback(board.finalize, "success")
            loggers.append(board)
        if run.cfg.logger.get("wandb") is not None:
            # imported here: W&B takes a second to import
            from soundfold.experiment.wandb_runs import fold_logger

            loggers.append(stack.enter_context(fold_logger(run, folder, fold)))
        loggers += [stack.enter_context(_finalized(logger)) for logger in _configured(run.cfg, folder)]
        yield loggers


def _configured(cfg: DictConfig, folder: Path) -> list[Logger]:
    """Return the loggers of other classes, which have the configuration as their hyperparameters."""
    loggers = make_loggers(cfg, folder)
    for logger in loggers if cfg.trainer.enable_autolog_hparams else ():
        logger.log_hyperparams(stored_values(cfg))
    return loggers


@contextmanager
def _finalized(logger: Logger) -> Iterator[Logger]:
    status = "failed"
    try:
        yield logger
        status = "success"
    finally:
        logger.finalize(status)
