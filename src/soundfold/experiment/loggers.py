"""The Lightning loggers of a fold."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from soundfold.experiment import build, environment
from soundfold.experiment.setup import RunContext


@contextmanager
def fold_loggers(run: RunContext, folder: Path, fold: int | None) -> Iterator[list[Logger]]:
    """Open the loggers that ``logger`` selects in addition to metrics.csv: W&B, TensorBoard, both or none."""
    cfg = run.cfg
    loggers: list[Logger] = []
    with ExitStack() as stack:
        if cfg.logger.tensorboard:
            from lightning.pytorch.loggers import TensorBoardLogger

            # `MetricsCsv` logs the earlier epochs of a resumed fold again
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
            board = TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
            stack.callback(board.finalize, "success")
            loggers.append(board)
        if cfg.logger.wandb is not None:
            # imported here: W&B takes a second to import
            from soundfold.experiment.wandb_runs import fold_logger

            protocol = build.protocol(cfg)
            config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
            config |= {"fold": fold, "cv_id": run.cv_id, "protocol": protocol.name}
            config["commit"] = environment.describe(torch.device("cpu"))["commit"]
            fresh = cfg.rerun or cfg.debug
            opened = fold_logger(cfg.logger.wandb, folder, run.cv_id, config, leaky=protocol.leaky, fresh=fresh)
            loggers.append(stack.enter_context(opened))
        yield loggers
