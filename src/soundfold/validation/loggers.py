"""Rules of loggers and of the trials of a W&B sweep."""

from __future__ import annotations

import importlib.util
import os

from omegaconf import DictConfig

from soundfold.errors import InputError


def is_wandb_trial() -> bool:
    """Return whether W&B's agent started this process as a trial of a sweep."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def check_wandb(cfg: DictConfig) -> None:
    options = cfg.logger.wandb
    if options is None:
        return
    if invalid := [tag for tag in options.tags if not 1 <= len(tag) <= 64]:
        raise InputError(f"logger.wandb.tags has {invalid[0]!r}; W&B takes tags of 1 to 64 characters.")
    if options.artifact and cfg.checkpoints.keep == "none":
        raise InputError(
            "logger.wandb.artifact=true uploads each fold's weights and requires checkpoints.keep=weights or all."
        )


def check_tensorboard(cfg: DictConfig) -> None:
    if cfg.logger.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "logger=tensorboard requires TensorBoard, which is not installed: pip install -e '.[tensorboard]'. "
            "metrics.csv has the same values without it."
        )


def check_wandb_trial(cfg: DictConfig) -> None:
    if not is_wandb_trial():
        return
    if cfg.logger.wandb is None or cfg.fold != "all" or cfg.debug:
        raise InputError(
            "WANDB_SWEEP_ID is set, so this is a trial of a W&B sweep, whose objective is the mean over all folds. "
            "Remove debug and fold, and set logger=wandb. Outside a sweep, unset WANDB_SWEEP_ID."
        )
    if cfg.split.protocol != "nested":
        raise InputError(
            "WANDB_SWEEP_ID is set, so this is a trial of a W&B sweep, which would choose on the scored clips under "
            f"split={cfg.split.protocol}. Set split=nested, which chooses on validation clips. A plain grid needs no "
            "sweep: scripts/train.py -m KEY=VALUE,VALUE."
        )
