"""Hyperparameter search: each trial is a cross-validation, judged by its validation folds."""

from __future__ import annotations

import hashlib
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from soundfold.config import compose_config, install_command, stored_values
from soundfold.errors import InputError
from soundfold.evaluation.results import FoldResult
from soundfold.experiment.callbacks.progress import duration
from soundfold.experiment.run import Reporter, cross_validate
from soundfold.experiment.setup import open_run
from soundfold.io.console import console
from soundfold.validation import wandb_options

# Optuna is an optional dependency
try:
    import optuna
except ImportError:
    raise InputError(f"search requires Optuna, which is not installed: {install_command('search')}.") from None

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from soundfold.experiment.metrics import flip_objective
from soundfold.experiment.nested import score_nested
from soundfold.experiment.search_summary import summarize_search
from soundfold.experiment.study import SearchStudy, TrialFailed, as_overrides, describe_settings
from soundfold.experiment.study_checks import OBJECTIVES
from soundfold.experiment.study_storage import explain_study_errors

# a fault of the machine, such as a full disk, fails every trial: stop before it has used them all
MAX_CONSECUTIVE_FAILURES = 5


def search(cfg: DictConfig, overrides: list[str], reporter: Reporter) -> float:
    """Run the missing trials of a study and print the best settings.

    A trial is judged by its validation folds and never scored. Its run is stored in ``trials/`` of the study's folder.

    The study is stored in ``<outputs>/<name>-search-<id>``, or by ``search.storage`` on a server. The id is a hash of
    the configuration and the search space, so the same command continues its study, and a larger ``search.trials``
    extends it. Several processes can work on one study, see `SearchStudy`.

    Args:
        cfg: the composed configuration with a ``search`` section; trials vary the keys of ``search.space``.
        overrides: the Hydra overrides that composed ``cfg``; each trial adds its own to them.
        reporter: see `cross_validate`.

    Returns:
        The best trial's objective: the mean over validation folds of ``selection.monitor``, greater is better (a loss
        is negated).

    Raises:
        InputError: a value is invalid, or no trial is complete.
    """
    # failed trials are printed here
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = SearchStudy(_study_folder(cfg), cfg)
    with explain_study_errors(study.location):
        return _search(study, cfg, overrides, reporter)


def _search(study: SearchStudy, cfg: DictConfig, overrides: list[str], reporter: Reporter) -> float:
    n_trials = len(study.trials(TrialState.COMPLETE, TrialState.PRUNED))
    console.print(f"{study.folder.name}: {n_trials} of {cfg.search.trials} trials are finished", soft_wrap=True)
    failures = 0
    while state := study.run_trial(lambda trial: _validate_trial(study, trial, cfg, overrides, reporter)):
        failures = failures + 1 if state == TrialState.FAIL else 0
        if failures == MAX_CONSECUTIVE_FAILURES:
            console.print(f"{failures} trials in a row failed. Fix the cause; the same command continues the study.")
            break
    best = summarize_search(study, cfg, overrides)
    _log_to_wandb(study, cfg)
    if cfg.search.nested:
        if study.trials(TrialState.RUNNING):
            console.print("Other processes still run trials; the last process to finish scores the folds.")
        else:
            score_nested(study, cfg, overrides, reporter)
    return best


def _log_to_wandb(study: SearchStudy, cfg: DictConfig) -> None:
    if (options := wandb_options(cfg.logger)) is None:
        return
    from soundfold.experiment.wandb_runs import LoggedTrial, log_search

    finished = [trial for trial in study.trials(*TrialState) if trial.datetime_complete is not None]
    finished.sort(key=lambda trial: trial.datetime_complete or datetime.min)
    trials = []
    for trial in finished:
        # a pruned trial has the mean of its first folds
        objective = trial.value if trial.state == TrialState.COMPLETE else None
        state, folds = trial.state.name.lower(), len(trial.intermediate_values)
        trials.append(LoggedTrial(trial.number, state, trial.params, objective, folds))
    log_search(options, study.folder, stored_values(cfg), trials)


def _study_folder(cfg: DictConfig) -> Path:
    space: dict[str, Any] = OmegaConf.to_container(cfg.search.space, resolve=True)  # type: ignore[assignment]
    identity = json.dumps([open_run(cfg).cv_id, space, cfg.search.sampler, cfg.search.prune_after], sort_keys=True)
    return Path(cfg.paths.outputs) / f"{cfg.name}-search-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def _validate_trial(
    search: SearchStudy, trial: Trial, cfg: DictConfig, overrides: list[str], reporter: Reporter
) -> float:
    """Return the mean objective of the trial's settings over validation folds, and print a line.

    Raises:
        TrialPruned: the first folds are below the median.
        TrialFailed: a fold could not be trained.
    """
    started, n_folds = time.monotonic(), 0
    name = f"Trial {trial.number} ({describe_settings(trial.params)})"

    def value_of(objective: float) -> str:
        return f"{cfg.selection.monitor} {flip_objective(cfg, objective):.4g}"

    def report_fold(results: list[FoldResult]) -> None:
        nonlocal n_folds
        n_folds = len(results)
        mean = float(np.mean([result.objective for result in results]))
        trial.set_user_attr(OBJECTIVES, {str(result.fold): result.objective for result in results})
        trial.report(mean, n_folds)
        if n_folds < len(results[0].folds) and trial.should_prune():
            raise optuna.TrialPruned(f"{value_of(mean)} after {n_folds} folds")

    try:
        trial_cfg = compose_config(*overrides, *as_overrides(trial.params))
        trial_cfg.paths.outputs = str(search.folder / "trials")
        objective = cross_validate(trial_cfg, reporter, report_fold)
        assert objective is not None
    except optuna.TrialPruned as reason:
        console.print(f"{name} is pruned: {reason}.", highlight=False, soft_wrap=True)
        raise
    except UpdateFinishedTrialError:  # the study explains it
        raise
    except Exception as error:  # settings that cannot be trained must not end the search
        message = f"{type(error).__name__}: {error}"
        console.print(f"{name} failed: {message}", style="red", soft_wrap=True)
        raise TrialFailed(message) from error
    end = f"{n_folds} folds, {duration(time.monotonic() - started)}"
    console.print(f"{name}: {value_of(objective)}, {end}.", highlight=False, soft_wrap=True)
    return objective
