"""The Optuna study of a search: the next trial to run, among processes that share the study and may be killed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from omegaconf import DictConfig
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from soundfold.config import Parameter
from soundfold.errors import InputError
from soundfold.experiment import study_storage
from soundfold.experiment.study_checks import refuse_foreign_settings
from soundfold.experiment.study_storage import STORAGE_ERRORS, describe_storage, explain_study_errors, open_storage
from soundfold.io.console import console

# larger grids are not enumerated: no search exhausts them
MAX_GRID_SIZE = 10_000
# user attributes of a trial: why it failed; that it was not run, because another process took the last trial or the
# same setting at the same moment
ERROR, WITHDRAWN = "error", "withdrawn"
RETRY = RetryHeartbeatStaleTrialCallback(max_retry=study_storage.MAX_RETRIES)


class TrialFailed(Exception):
    """The settings of a trial could not be trained; the message has the reason."""


class _Withdrawn(Exception):
    """The trial is not needed."""


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


class SearchStudy:
    """An Optuna study whose trials several processes share, and may die in.

    Optuna's storage decides which process runs a trial. A running trial has a heartbeat: if it stops, another process,
    or the next one, retries the trial as a new one with the same settings, whose run resumes the dead trial's folds and
    checkpoint. A trial draws from a generator seeded by the position of its setting in the study: a study that is
    killed and continued tries the settings of an uninterrupted one.

    Args:
        folder: of the study; created if it does not exist.
        cfg: the composed configuration of the search.

    Raises:
        InputError: the folder cannot be written, the storage cannot be used, or a stored trial has settings outside of
            the search space.
    """

    def __init__(self, folder: Path, cfg: DictConfig) -> None:
        self.folder, self.search, self.seed = folder, cfg.search, cfg.seed
        self.location = describe_storage(cfg.search.storage, folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error}. Set paths.outputs=DIRECTORY.") from error
        # a server holds many studies
        name = folder.name if "://" in cfg.search.storage else cfg.search.name
        # reading a damaged file raises errors of many types
        with explain_study_errors(self.location, Exception):
            self._storage = open_storage(cfg.search.storage, folder, RETRY)
            self.study = optuna.create_study(
                storage=self._storage, study_name=name, direction="maximize", load_if_exists=True
            )
            if self.study.direction != StudyDirection.MAXIMIZE:
                raise ValueError("its direction is not to maximize")
            self._start_heartbeats()
        self.study.pruner = optuna.pruners.NopPruner()
        if cfg.search.prune_after is not None:
            # the median needs a few complete trials to be meaningful
            self.study.pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=cfg.search.prune_after)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states; all that count toward ``search.trials``, if no state is given.

        Of a retried trial this is the last attempt. Failed trials do not count, except a dead one that is about to be
        retried.

        Raises:
            InputError: a stored trial has settings that the search cannot have drawn.
        """
        trials = self._last_attempts(self.study.get_trials(deepcopy=False))
        return [trial for trial in trials if (trial.state in states if states else _counts(trial))]

    def _last_attempts(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        last = {}
        for trial in trials:
            refuse_foreign_settings(trial, self.search.space, self.location)
            last[_first_attempt(trial)] = trial
        return [trial for trial in last.values() if WITHDRAWN not in trial.user_attrs]

    def run_trial(self, objective: Callable[[Trial], float]) -> TrialState | None:
        """Run a trial that waits for its retry, or a new one, and store its result.

        Args:
            objective: returns the value of a trial, or raises `optuna.TrialPruned` or `TrialFailed`.

        Returns:
            The state of the finished trial; None if ``search.trials`` exist or the space is exhausted. Before that, it
            waits until every running trial is finished, or for the time in which a dead one is noticed.
        """
        while self._find_work():
            trials: list[Trial] = []
            try:
                self.study.optimize(
                    lambda trial, trials=trials: self._run(trial, trials, objective),  # type: ignore[misc]
                    n_trials=1,
                    catch=(TrialFailed, _Withdrawn),
                )
            except (AssertionError, ValueError, UpdateFinishedTrialError):
                # Optuna stores no result of a trial that another process has failed because its heartbeat had stopped
                if not trials or not self._was_taken_over(trials[0]):
                    raise
                console.print(f"Trial {trials[0].number} was paused for too long: another process retries it.")
                continue
            except UnboundLocalError as error:
                # raised by Optuna 5 if the storage fails when a result is stored; the context is the storage's error
                cause = error.__context__ or error
                raise cause from cause.__cause__
            except BaseException:
                # SIGTERM, Ctrl-C, a fault of the storage: the next process need not wait for the heartbeat to stop
                with suppress(*STORAGE_ERRORS):
                    self._give_back(trials)
                raise
            stored = self._stored(trials[0])
            if WITHDRAWN not in stored.user_attrs:
                return stored.state
        return None

    def _run(self, trial: Trial, trials: list[Trial], objective: Callable[[Trial], float]) -> float:
        trials.append(trial)
        self._draw(trial)
        try:
            return objective(trial)
        except TrialFailed as error:
            trial.set_user_attr(ERROR, str(error))
            raise

    def _stored(self, trial: Trial) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[trial.number]

    def _give_back(self, trials: list[Trial]) -> None:
        """Let a trial that has no result be retried, unless another process does so already."""
        for trial in trials:
            stored = self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            histories = map(RetryHeartbeatStaleTrialCallback.retry_history, self.study.get_trials(deepcopy=False))
            if stored.state == TrialState.FAIL and not any(trial.number in history for history in histories):
                RETRY(self.study, stored)

    def _was_taken_over(self, trial: Trial) -> bool:
        stored = self._stored(trial)
        return stored.state == TrialState.FAIL and len(stored.params) == len(self.search.space)

    def _start_heartbeats(self) -> None:
        """Let running trials without a heartbeat count as dead after the grace period.

        These are trials of earlier releases, and those whose process died before the first heartbeat. A process that is
        alive replaces this one by its own.
        """
        optuna.storages.fail_stale_trials(self.study)
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        for trial in self.trials(TrialState.RUNNING):
            trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            self._storage.record_heartbeat(trial_id)

    def _find_work(self) -> bool:
        """Return whether a trial waits or is missing; False only after dead trials would have been noticed."""
        deadline = None
        while True:
            optuna.storages.fail_stale_trials(self.study)
            trials = self.trials()
            if any(trial.state == TrialState.WAITING for trial in trials):
                return True
            missing = len(trials) < self.search.trials
            if missing and untried_settings(self.search.space, [trial.params for trial in trials]) != []:
                return True
            running = [trial.number for trial in trials if trial.state == TrialState.RUNNING]
            if deadline is None:
                deadline = time.monotonic() + study_storage.GRACE_PERIOD + 2 * study_storage.HEARTBEAT_INTERVAL
                if running:
                    numbers = ", ".join(map(str, running))
                    wait = f"waiting up to {deadline - time.monotonic():.0f} s, in case one has died"
                    console.print(f"Other processes run trials {numbers}; {wait}.", highlight=False, soft_wrap=True)
            if not running or time.monotonic() > deadline:
                break
            time.sleep(study_storage.HEARTBEAT_INTERVAL / 2)
        if missing:
            console.print("Every setting in the search space has been tried.")
        return False

    def _draw(self, trial: Trial) -> None:
        """Draw the trial's settings; a retried trial has some or all of them.

        Other processes start trials at the same moment, and no lock prevents it. The storage numbers trials in one
        order for all, so a trial after the last one that is wanted withdraws itself.
        """
        trials = self.study.get_trials(deepcopy=False)
        first = _first_attempt(trials[trial.number])
        earlier = [other for other in self._last_attempts(trials) if _first_attempt(other) < first]
        if WITHDRAWN in trial.user_attrs or sum(map(_counts, earlier)) >= self.search.trials:
            self._withdraw(trial)
        # retries draw no new settings
        position = sum(other.number == _first_attempt(other) for other in trials[:first])
        self._suggest(trial, position)
        if untried_settings(self.search.space, []) is None:
            return
        # read after the settings were stored: of two processes with the same ones, at least one sees the other's
        tried = [other.params for other in self.trials() if other.number != trial.number]
        if trial.params in tried:
            # samplers repeat good settings, and would repeat those of a small grid again and again
            if untried := untried_settings(self.search.space, tried):
                rng = np.random.default_rng([self.seed, trial.number])
                self.study.enqueue_trial(untried[rng.integers(len(untried))])
            else:
                # both processes with the last setting may withdraw: let one try again first
                time.sleep(random.uniform(0, 0.5))
            self._withdraw(trial)

    def _withdraw(self, trial: Trial) -> None:
        trial.set_user_attr(WITHDRAWN, True)
        raise _Withdrawn

    def _suggest(self, trial: Trial, position: int) -> None:
        """Draw the settings that the trial lacks, by the generator of its position in the study."""
        self.study.sampler = self._sampler(position)
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

    def _sampler(self, position: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, position]).generate_state(1)[0])
        if self.search.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        # constant_liar assumes a poor objective for running trials, so that parallel processes explore apart
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, constant_liar=True)


def _counts(trial: FrozenTrial) -> bool:
    """Return whether a trial counts toward ``search.trials``: a dead one does, since it is about to be retried."""
    return trial.state != TrialState.FAIL or ERROR not in trial.user_attrs


def _first_attempt(trial: FrozenTrial) -> int:
    """Return the number of the trial that this one retries, directly or not; its own number if there is none."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


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
