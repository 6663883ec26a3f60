"""Rules of loggers and of the trials of a W&B sweep."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from soundfold.config import LOGGERS, Wandb, explain_refusal, install_command, refuse_unknown_keys
from soundfold.errors import InputError
from soundfold.validation.values import check_values

# options of conf/logger: the package that each requires, its module, and the command that installs it
PACKAGES = {
    "tensorboard": ("TensorBoard", "tensorboard", install_command("tensorboard")),
    "mlflow": ("MLflow", "mlflow", install_command("mlflow")),
    "comet": ("Comet", "comet_ml", "pip install comet-ml"),
}


def is_wandb_trial() -> bool:
    """Return whether W&B's agent started this process as a trial of a sweep."""
    return wandb_sweep() is not None


def wandb_sweep() -> str | None:
    """Return the id of the W&B sweep whose agent started this process, if one did."""
    return os.environ.get("WANDB_SWEEP_ID", "").replace("/", "-") or None


def wandb_options(loggers: Mapping[str, Any]) -> Wandb | None:
    """Return the options of W&B in ``logger``, of the schema's types; None if W&B is disabled.

    Raises:
        InputError: a value has another type.
    """
    entry: Any = loggers.get("wandb")
    if entry is None:
        return None
    values: Any = OmegaConf.to_container(entry, resolve=True) if OmegaConf.is_config(entry) else entry
    options: Any = OmegaConf.structured(Wandb)
    for name, value in values.items():
        try:
            options[name] = value
        except OmegaConfBaseException as error:
            raise InputError(explain_refusal(f"logger.wandb.{name}={value}", error)) from error
    return options


def check_loggers(cfg: DictConfig) -> None:
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    loggers = values["logger"]
    if not isinstance(loggers, dict):
        raise InputError(f"logger={loggers} must be a mapping of names to options.")
    for name, entry in loggers.items():
        if entry is None:
            continue
        if not isinstance(entry, dict):
            raise InputError(f"logger.{name}={entry} must be a mapping of options, or null to disable it.")
        if name in LOGGERS:
            refuse_unknown_keys([f"logger.{name}.{option}" for option in entry])
        elif not isinstance(entry.get("_target_"), str):
            raise InputError(f"logger.{name} requires _target_, the class of a Lightning logger.")


def check_wandb(cfg: DictConfig) -> None:
    options: Any = wandb_options(cfg.logger)
    if options is None:
        return
    if missing := OmegaConf.missing_keys(options):
        raise InputError(
            f"logger.wandb lacks {', '.join(sorted(missing))}: set logger=wandb too, which has a default for every key."
        )
    check_values(options, "logger.wandb.")
    if invalid := [tag for tag in options.tags if not 1 <= len(tag) <= 64]:
        raise InputError(f"logger.wandb.tags has {invalid[0]!r}; W&B takes tags of 1 to 64 characters.")
    if options.artifact and cfg.checkpoints.keep == "none":
        raise InputError(
            "logger.wandb.artifact=true uploads each fold's weights and requires checkpoints.keep=weights or all."
        )


def check_logger_packages(cfg: DictConfig) -> None:
    for name, (package, module, installed_by) in PACKAGES.items():
        if cfg.logger.get(name) is not None and importlib.util.find_spec(module) is None:
            raise InputError(
                f"logger={name} requires {package}, which is not installed: {installed_by}. "
                "metrics.csv has the same values without it."
            )


def check_wandb_trial(cfg: DictConfig) -> None:
    if not is_wandb_trial():
        return
    if cfg.logger.get("wandb") is None or cfg.fold != "all" or cfg.debug:
        raise InputError(
            "WANDB_SWEEP_ID is set, so this is a trial of a W&B sweep, whose objective is the mean over all folds. "
            "Remove debug and fold, and set logger=wandb. Outside a sweep, unset WANDB_SWEEP_ID."
        )
    if cfg.split.protocol != "nested":
        raise InputError(
            "WANDB_SWEEP_ID is set, so this is a trial of a W&B sweep, which would choose on the scored clips under "
            f"split={cfg.split.protocol}. Set split=nested, which chooses on validation clips. A plain grid needs no "
            "sweep: soundfold train -m KEY=VALUE,VALUE."
        )
