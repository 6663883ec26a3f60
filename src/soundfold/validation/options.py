"""Validation of the configurations of the other commands."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from soundfold.config import CONF, Report, explain_refusal, refuse_unknown_keys
from soundfold.errors import InputError
from soundfold.validation.collection import validate_data, validate_features
from soundfold.validation.values import check_values


def validate_explore(cfg: DictConfig) -> None:
    """Check the configuration of an exploration.

    Raises:
        InputError: a value is invalid.
    """
    validate_data(cfg)
    validate_features(cfg)


def report_options(settings: list[str]) -> DictConfig:
    """Return the options of a report outside a training: a full page, unless settings override it.

    Args:
        settings: overrides such as ``report.audio=false``.

    Raises:
        InputError: a key is unknown, or a value is invalid.
    """
    refuse_unknown_keys([setting.split("=")[0] for setting in settings])
    defaults = OmegaConf.load(CONF / "base" / "training.yaml")
    try:
        overrides = OmegaConf.from_dotlist(settings).get("report", {})
        layers = (defaults.report, {"page": "full"}, overrides)
        options: Any = OmegaConf.merge(OmegaConf.structured(Report), *layers)
    except OmegaConfBaseException as error:
        raise InputError(explain_refusal(" ".join(settings), error)) from error
    check_values(options, "report.")
    return options
