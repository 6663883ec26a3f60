"""Checks of stored trials: anyone who can write to the storage of a search could edit them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState

from soundfold.config import Parameter
from soundfold.errors import InputError

# user attribute of a trial: its validation objective by test fold
OBJECTIVES = "objectives"


def refuse_foreign_settings(trial: FrozenTrial, space: DictConfig, location: str) -> None:
    """Refuse a stored trial whose settings the search cannot have drawn: they become overrides of a configuration.

    Raises:
        InputError: the message has the trial and the setting.
    """
    # settings that were enqueued, but not yet drawn
    enqueued = trial.system_attrs.get("fixed_params") or {}
    drawn = list(trial.params.items())
    for key, value in [*drawn, *(enqueued.items() if isinstance(enqueued, dict) else [("fixed_params", enqueued)])]:
        if key not in space or not _is_in_range(value, Parameter(**space[key])):
            raise InputError(
                f"{location}: trial {trial.number} has {key}={value!r}, which is outside of the search space, so "
                "the study was edited or is damaged. Delete it to start again."
            )
    folds = trial.user_attrs.get(OBJECTIVES, {})
    if (trial.state == TrialState.COMPLETE and len(trial.params) < len(space)) or not _are_objectives(folds):
        raise InputError(
            f"{location}: trial {trial.number} lacks settings or scores of its folds, so the study was edited or is "
            "damaged. Delete it to start again."
        )
    if trial.state == TrialState.COMPLETE and not _is_mean(trial.value, list(folds.values())):
        raise InputError(
            f"{location}: trial {trial.number} has the score {trial.value}, which is not the mean of its folds, so the "
            "study was edited or is damaged. Delete it to start again; the finished folds are reused."
        )


def _is_mean(score: float | None, folds: list[float]) -> bool:
    """Return whether a score is finite, and the mean of the scores of the folds, if these are stored."""
    if score is None or not math.isfinite(score):
        return False
    return not folds or math.isclose(score, float(np.mean(folds)), rel_tol=1e-6, abs_tol=1e-9)


def _is_in_range(value: Any, parameter: Parameter) -> bool:
    if parameter.choices is not None:
        # 1, 1.0 and true are equal, but different overrides
        return repr(value) in map(repr, parameter.choices)
    if type(value) is not (int if parameter.integer else float):
        return False
    assert parameter.low is not None
    assert parameter.high is not None
    low, high = (round(parameter.low), round(parameter.high)) if parameter.integer else (parameter.low, parameter.high)
    return low <= value <= high


def _are_objectives(folds: Any) -> bool:
    """Return whether a value is a mapping of fold numbers to numbers."""
    return isinstance(folds, dict) and all(
        fold.isdecimal() and isinstance(value, int | float) for fold, value in folds.items()
    )
