"""The Optuna study of a search: the next trial to run, among processes that share the study and may be killed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from omegaconf import DictConfig
from optuna.exceptions import StorageInternalError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from soundfold.config import Parameter
from soundfold.errors import InputError
from soundfold.io.console import console

# larger grids are not enumerated: no search exhausts them
MAX_GRID_SIZE = 10_000
# user attribute of a trial: its validation objective by test fold
OBJECTIVES = "objectives"
STORAGE_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError, StorageInternalError)


def as_overrides(params: dict[str, Any]) -> list[str]:
    """Return settings as Hydra overrides."""
    return [f"{key}={'null' if value is None else value}" for key, value in params.items()]


def describe_settings(params: dict[str, Any]) -> str:
    """Return settings for a message, with rounded numbers."""
    return " ".join(f"{key}={describe_value(value)}" for key, value in params.items())


def describe_value(value: Any) -> str:
    """Return the value of a setting for a table: a float with four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "null" if value is None else str(value)


@contextmanager
def explain_study_errors(path: Path, *types: type[Exception]) -> Iterator[None]:
    """Convert errors of Optuna's storage, and of other types, to one sentence.

    Raises:
        InputError: the file of the study is damaged, of a newer Optuna, locked, or not a file.
    """
    try:
        yield
    except InputError:
        raise
    except (*STORAGE_ERRORS, *types) as error:
        # StorageInternalError replaces the error of SQLite
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = str(getattr(cause, "orig", cause) or type(cause).__name__).splitlines()[0].removesuffix(".")
        remedy = "Move it away: the same command starts the study again, and reuses the folds of its trials."
        if "locked" in reason:
            remedy = "Another process holds it: wait for its end, or end it."
        elif "no longer compatible" in reason:
            reason, remedy = "a newer Optuna wrote it", "Update Optuna."
        raise InputError(f"The study {path} cannot be used ({reason}). {remedy}") from error


class SearchStudy:
    """An Optuna study in a folder. Several processes can share it, and it survives their death.

    Each process holds the lock of the trial that it runs. The operating system releases the locks of a dead process, so
    a running trial with a free lock was abandoned, and the next process to ask for work resumes it. Trial n draws from
    a generator seeded by (seed, n): a study that is killed and continued tries the settings of an uninterrupted one.

    Args:
        folder: holds ``study.db`` and ``locks/``; created if it does not exist.
        cfg: the composed configuration of the search.

    Raises:
        InputError: the folder cannot be written, the file of the study cannot be used, or a stored trial has settings
            outside of the search space.
    """

    def __init__(self, folder: Path, cfg: DictConfig) -> None:
        self.folder, self.search, self.seed = folder, cfg.search, cfg.seed
        try:
            (folder / "locks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error}. Set paths.outputs=DIRECTORY.") from error
        path = folder / "study.db"
        # reading a damaged file raises errors of many types
        with self._lock("study"), explain_study_errors(path, Exception):
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{path.resolve()}")
            self.study = optuna.create_study(
                storage=self._storage, study_name=cfg.search.name, direction="maximize", load_if_exists=True
            )
            if self.study.direction != StudyDirection.MAXIMIZE:
                raise ValueError("its direction is not to maximize")
            for trial in self.study.get_trials(deepcopy=False):
                _refuse_foreign_settings(trial, self.search.space, path)
        self.study.pruner = optuna.pruners.NopPruner()
        if cfg.search.prune_after is not None:
            # the median needs a few complete trials to be meaningful
            self.study.pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=cfg.search.prune_after)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states; all except the failed ones, which may be retried, if no state is given."""
        wanted = states or tuple(state for state in TrialState if state != TrialState.FAIL)
        return [trial for trial in self.study.get_trials(deepcopy=False) if trial.state in wanted]

    @contextmanager
    def next_trial(self) -> Iterator[Trial | None]:
        """Yield an abandoned or a new trial, locked; None once ``search.trials`` exist or the space is exhausted."""
        with self._lock("study"):
            trial, lock = self._abandoned_trial()
            if trial is None and len(self.trials()) < self.search.trials:
                trial = self._new_trial()
                lock = None if trial is None else self._lock(f"trial{trial.number}", timeout=0)
                if lock is not None:
                    lock.acquire()
        try:
            yield trial
        finally:
            if lock is not None:
                lock.release()

    def _lock(self, name: str, timeout: float = -1) -> FileLock:
        return FileLock(self.folder / "locks" / f"{name}.lock", timeout=timeout)

    def _abandoned_trial(self) -> tuple[Trial | None, FileLock | None]:
        """Return a trial whose process died, with its lock held."""
        for frozen in self.trials(TrialState.RUNNING):
            lock = self._lock(f"trial{frozen.number}", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            # its process may have finished it before releasing the lock
            if self.study.get_trials(deepcopy=False)[frozen.number].state == TrialState.RUNNING:
                study_id = self._storage.get_study_id_from_name(self.study.study_name)
                trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, frozen.number)
                trial = Trial(self.study, trial_id)
                self._suggest(trial)
                return trial, lock
            lock.release()
        return None, None

    def _new_trial(self) -> Trial | None:
        """Return a trial with settings that no other trial has; None if the space is exhausted."""
        tried = [trial.params for trial in self.trials()]
        untried = untried_settings(self.search.space, tried)
        if untried == []:
            console.print("Every setting in the search space has been tried.")
            return None
        trial = self.study.ask()
        self._suggest(trial)
        if untried is not None and trial.params in tried:
            # samplers repeat good settings, and would repeat those of a small grid again and again
            self.study.tell(trial, state=TrialState.FAIL)
            self.study.enqueue_trial(untried[np.random.default_rng([self.seed, trial.number]).integers(len(untried))])
            trial = self.study.ask()
            self._suggest(trial)
        return trial

    def _suggest(self, trial: Trial) -> None:
        """Draw the trial's settings; a resumed trial already has some or all."""
        self.study.sampler = self._sampler(trial.number)
        for key, values in self.search.space.items():
            parameter = Parameter(**values)
            if parameter.choices is not None:
                trial.suggest_categorical(key, list(parameter.choices))
                continue
            assert parameter.low is not None
            assert parameter.high is not None
            if parameter.integer:
                trial.suggest_int(key, round(parameter.low), round(parameter.high), log=parameter.log)
            else:
                trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)

    def _sampler(self, trial_number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, trial_number]).generate_state(1)[0])
        if self.search.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        # constant_liar assumes a poor objective for running trials, so that parallel processes explore apart
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, constant_liar=True)


def _refuse_foreign_settings(trial: FrozenTrial, space: DictConfig, path: Path) -> None:
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
                f"{path}: trial {trial.number} has {key}={value!r}, which is outside of the search space, so the file "
                "was edited or is damaged. Delete it to start the study again."
            )
    folds = trial.user_attrs.get(OBJECTIVES, {})
    if (trial.state == TrialState.COMPLETE and len(trial.params) < len(space)) or not _are_objectives(folds):
        raise InputError(
            f"{path}: trial {trial.number} lacks settings or scores of its folds, so the file was edited or is "
            "damaged. Delete it to start the study again."
        )
    if trial.state == TrialState.COMPLETE and not _is_mean(trial.value, list(folds.values())):
        raise InputError(
            f"{path}: trial {trial.number} has the score {trial.value}, which is not the mean of its folds, so the "
            "file was edited or is damaged. Delete it to start the study again; the finished folds are reused."
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


def untried_settings(space: DictConfig, tried: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the settings of a grid that have not been tried; None if the space is continuous or too large."""
    size, options = 1, []
    for parameter in space.values():
        if parameter.choices is not None:
            options.append(list(parameter.choices))
        elif parameter.integer:
            options.append(list(range(round(parameter.low), round(parameter.high) + 1)))
        else:
            return None
        size *= len(options[-1])
    if size > MAX_GRID_SIZE:
        return None
    grid = (dict(zip(space, values, strict=True)) for values in product(*options))
    return [settings for settings in grid if settings not in tried]
