"""Rules of metrics and of the one that selects weights."""

from __future__ import annotations

import difflib
import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from soundfold.config.frozen import first_metrics
from soundfold.errors import InputError


def metric_entries(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """Return the entries of ``metrics`` by name, without those that are null.

    Raises:
        InputError: ``metrics`` is not a mapping, as a reference to another value need not be.
    """
    if not isinstance(cfg.metrics, DictConfig):
        raise InputError(f"metrics={cfg.metrics} must be a mapping of names to entries with _target_.")
    entries: Any = OmegaConf.to_container(cfg.metrics, resolve=True)
    return {name: entry for name, entry in entries.items() if entry is not None}


def check_metrics(cfg: DictConfig) -> None:
    for name, entry in metric_entries(cfg).items():
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", str(name)) or name.endswith("_sd"):
            raise InputError(
                f"metrics.{name}: a name has letters, digits and underscores, begins with a letter, and does not end "
                "in _sd, which is the standard deviation over folds."
            )
        if not isinstance(entry, dict) or not isinstance(entry.get("_target_"), str):
            raise InputError(f"metrics.{name} requires _target_, the class of a torchmetrics.Metric.")
        if name in first_metrics() and entry != first_metrics()[name]:
            raise InputError(
                f"metrics.{name} has a fixed definition, so that it means the same in every result "
                f"({first_metrics()[name]}). Give another metric another name; metrics.{name}=null removes it."
            )


def check_monitor(cfg: DictConfig) -> None:
    monitor = cfg.selection.monitor
    choices = [f"val/{name}" for name in ("loss", "accuracy", *metric_entries(cfg))]
    if not monitor.startswith("val/"):
        raise InputError(
            f"selection.monitor={monitor}: weights may be chosen on the validation fold only, never on the fold that "
            f"is scored. Set one of {', '.join(choices)}."
        )
    if monitor not in choices:
        near = difflib.get_close_matches(monitor, choices, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(
            f"selection.monitor={monitor} must be one of {', '.join(choices)}.{hint} Others are entries of metrics."
        )
