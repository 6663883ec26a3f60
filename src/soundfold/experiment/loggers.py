"""The Lightning loggers of a fold, and of its cross-validation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig

from soundfold.config import stored_values
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.results import FoldResult
from soundfold.experiment.cv_metrics import curve_rows, cv_scores, fold_curves
from soundfold.experiment.lightning_objects import make_cv_loggers, make_loggers
from soundfold.experiment.setup import RunContext
from soundfold.io.atomic import write_text
from soundfold.io.leases import lease


@contextmanager
def fold_loggers(run: RunContext, folder: Path, fold: int | None) -> Iterator[list[Logger]]:
    """Open the loggers that ``logger`` has in addition to metrics.csv, and close them."""
    loggers: list[Logger] = []
    with ExitStack() as stack:
        if run.cfg.logger.get("tensorboard") is not None:
            board = _tensorboard(folder)
            stack.callback(board.finalize, "success")
            loggers.append(board)
        if run.cfg.logger.get("wandb") is not None:
            # imported here: W&B takes a second to import
            from soundfold.experiment.wandb_runs import fold_logger

            loggers.append(stack.enter_context(fold_logger(run, folder, fold)))
        loggers += [stack.enter_context(_finalized(logger)) for logger in _configured(run.cfg, folder)]
        yield loggers


def log_outcome(loggers: Sequence[Logger], cfg: DictConfig, result: FoldResult) -> None:
    """Log audit and environment of a finished fold; TensorBoard also gets its hyperparameters and objective."""
    for logger in loggers:
        logger.log_hyperparams({"audit": result.audit, "environment": result.environment})
        if isinstance(logger, TensorBoardLogger) and result.objective is not None:
            # its table of hyperparameters has only runs with a metric
            logger.log_hyperparams(stored_values(cfg), {"hp_metric": result.objective}, result.steps)


def log_cv(run: RunContext, result: RunResult) -> None:
    """Log a complete cross-validation to TensorBoard and the loggers of other classes, which get a run for it.

    It has the curves over folds by epoch, and after the last epoch the scores, see `cv_metrics`. It is logged once,
    which a copy of ``cv.json`` records.
    """
    others = {name for name, entry in run.cfg.logger.items() if entry is not None} - {"wandb"}
    if not others:
        return
    with lease(run.folder / "cv.lock", "is logging this run"):
        record, content = run.folder / "logged.json", (run.folder / "cv.json").read_text()
        if record.is_file() and record.read_text() == content:
            return
        _log_scores(run, result)
        write_text(record, content)


def _log_scores(run: RunContext, result: RunResult) -> None:
    """Log the curves and the scores."""
    scores = cv_scores(result)
    rows = list(curve_rows(fold_curves(run.folder, [fold["fold"] for fold in result.total.folds])))
    last = int(rows[-1]["cv/epoch"]) if rows else 0
    with ExitStack() as stack:
        loggers = [stack.enter_context(_finalized(logger)) for logger in make_cv_loggers(run.cfg, run.folder)]
        if run.cfg.trainer.enable_autolog_hparams:
            for logger in loggers:
                logger.log_hyperparams(stored_values(run.cfg) | {"cv_id": run.cv_id})
        if run.cfg.logger.get("tensorboard") is not None:
            board = stack.enter_context(_finalized(_tensorboard(run.folder)))
            board.log_hyperparams(stored_values(run.cfg), {"hp_metric": result.total.objective}, last)
            loggers.append(board)
        for logger in loggers:
            for row in rows:
                logger.log_metrics(row, int(row["cv/epoch"]))
            logger.log_metrics(scores, last)


def _tensorboard(folder: Path) -> TensorBoardLogger:
    """Return a logger that starts over, because `History` logs the earlier epochs of a resumed fold again."""
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)


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
