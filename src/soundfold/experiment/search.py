"""A search over settings: each trial a cross-validation, judged by its validation folds, in a study that survives."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from soundfold.config import CONF, Parameter, compose_config
from soundfold.errors import InputError
from soundfold.evaluation.results import FoldResult
from soundfold.experiment.nested import OBJECTIVES, as_overrides, score_nested
from soundfold.experiment.run import Reporter, cross_validate
from soundfold.experiment.setup import open_run
from soundfold.io.atomic import write_text
from soundfold.io.console import console

if TYPE_CHECKING:
    import optuna

# a space of more is not used up by trials of minutes each
MOST_SETTINGS = 10_000
# a full disk fails every trial: it must not use them up
MOST_FAILURES = 5


def search(cfg: DictConfig, overrides: list[str], reporter: Reporter) -> float:
    """Run the trials of a study that are missing, and say which settings were best.

    The study lies in ``<outputs>/<name>-search-<id>/study.db``; the id is that of the configuration with its space, so
    the same command continues its own study and ``search.trials`` extends it. Several processes may work at it at
    once: each takes the next trial under a lock, and one whose process has died is taken up by the next that looks,
    at the fold where it stopped. Trial n draws from a generator seeded by (seed, n): a study killed and continued
    tries what an uninterrupted one would.

    Args:
        cfg: with ``search``; the space's keys are what is varied.
        overrides: the words that composed it, which each trial repeats before its own.
        reporter: see `cross_validate`.

    Returns:
        The best trial's objective: the mean over validation folds of ``selection.monitor``, greater is better.

    Raises:
        InputError: a value breaks its rule, Optuna is not installed, or every trial failed.
    """
    try:
        import optuna
    except ImportError:
        raise InputError("search needs Optuna, which is not installed: pip install -e '.[search]'.") from None

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    run = open_run(cfg)
    space: dict[str, Any] = OmegaConf.to_container(cfg.search.space)  # type: ignore[assignment]
    rules = json.dumps([run.cv_id, space, cfg.search.sampler, cfg.search.prune_after], sort_keys=True)
    folder = Path(cfg.paths.outputs) / f"{cfg.name}-search-{hashlib.sha256(rules.encode()).hexdigest()[:8]}"
    try:
        (folder / "locks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}. Give paths.outputs=DIRECTORY.") from error
    with FileLock(folder / "locks" / "study.lock"):
        study = optuna.create_study(
            storage=f"sqlite:///{(folder / 'study.db').resolve()}",
            study_name=cfg.search.name,
            direction="maximize",
            load_if_exists=True,
        )
    study.pruner = optuna.pruners.NopPruner()
    if cfg.search.prune_after is not None:
        # the first trials set the standard, and every trial gets its first folds
        study.pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=cfg.search.prune_after)
    console.print(f"{folder.name}: {len(_counted(study))} of {cfg.search.trials} trials are there", soft_wrap=True)
    failures = 0
    while True:
        with _next_trial(study, folder, cfg) as trial:
            if trial is None:
                break
            failures = 0 if _run_trial(study, trial, overrides, reporter) else failures + 1
        if failures == MOST_FAILURES:
            console.print(f"{failures} trials in a row failed; the same command goes on when that is mended.")
            break
    best = _say(study, cfg, overrides, folder)
    if cfg.search.nested:
        if any(trial.state == optuna.trial.TrialState.RUNNING for trial in _counted(study)):
            console.print("Others still run trials; the process that ends last scores the folds.")
        else:
            score_nested(study, cfg, overrides, folder, reporter)
    return best


def _counted(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials but those that failed, whose settings may be tried again, or were drawn twice."""
    import optuna

    failed = optuna.trial.TrialState.FAIL
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != failed]


@contextmanager
def _next_trial(study: optuna.Study, folder: Path, cfg: DictConfig) -> Iterator[optuna.Trial | None]:
    """A trial left behind by a process that died, or a new one; None where none is missing. Held by a lock of its own.

    The operating system lets go of a lock when its holder dies: that tells a trial that was left from one that runs.
    """
    import optuna

    def lock_of(trial: optuna.trial.FrozenTrial | optuna.Trial) -> FileLock:
        return FileLock(folder / "locks" / f"trial{trial.number}.lock", timeout=0)

    trial, lock = None, None
    with FileLock(folder / "locks" / "study.lock"):
        for frozen in _counted(study):
            if frozen.state != optuna.trial.TrialState.RUNNING:
                continue
            try:
                lock = lock_of(frozen).acquire().lock
            except Timeout:
                continue
            if study.get_trials(deepcopy=False)[frozen.number].state != optuna.trial.TrialState.RUNNING:
                # it ended between the list and the lock
                lock.release()
                lock = None
                continue
            trial = optuna.Trial(study, frozen._trial_id)
            break
        if trial is None and len(_counted(study)) < cfg.search.trials:
            trial = _draw(study, cfg)
            lock = None if trial is None else lock_of(trial).acquire().lock
        elif trial is not None:
            _suggest(study, trial, cfg)
    try:
        yield trial
    finally:
        if lock is not None:
            lock.release()


def _draw(study: optuna.Study, cfg: DictConfig) -> optuna.Trial | None:
    """A new trial with settings that no other has; None where the space is used up."""
    import optuna

    tried = [trial.params for trial in _counted(study)]
    left = _untried(cfg, tried)
    if left == []:
        console.print("The space holds no more settings that have not been tried.")
        return None
    trial = study.ask()
    _suggest(study, trial, cfg)
    if left is not None and trial.params in tried:
        # a sampler keeps to what was good, and a small space is soon drawn twice
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(left[np.random.default_rng([cfg.seed, trial.number]).integers(len(left))])
        trial = study.ask()
        _suggest(study, trial, cfg)
    return trial


def _untried(cfg: DictConfig, tried: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """All settings of a space that have not been tried; None where it holds too many to count."""
    sizes, options = 1, []
    for parameter in cfg.search.space.values():
        if parameter.choices is not None:
            options.append(list(parameter.choices))
        elif parameter.integer:
            options.append(list(range(round(parameter.low), round(parameter.high) + 1)))
        else:
            return None
        sizes *= len(options[-1])
    if sizes > MOST_SETTINGS:
        return None
    every = (dict(zip(cfg.search.space, values, strict=True)) for values in product(*options))
    return [settings for settings in every if settings not in tried]


def _sampler(cfg: DictConfig, number: int) -> optuna.samplers.BaseSampler:
    import optuna

    seed = int(np.random.SeedSequence([cfg.seed, number]).generate_state(1)[0])
    if cfg.search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # what other processes try at the moment counts as poor, or they would all try the same place
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8, constant_liar=True)


def _suggest(study: optuna.Study, trial: optuna.Trial, cfg: DictConfig) -> None:
    """Give the trial its settings; those that it has stay."""
    study.sampler = _sampler(cfg, trial.number)
    for key, parameter in cfg.search.space.items():
        parameter = Parameter(**parameter)
        if parameter.choices is not None:
            trial.suggest_categorical(key, list(parameter.choices))
            continue
        assert parameter.low is not None
        assert parameter.high is not None
        if parameter.integer:
            trial.suggest_int(key, round(parameter.low), round(parameter.high), log=parameter.log)
        else:
            trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)


def _run_trial(study: optuna.Study, trial: optuna.Trial, overrides: list[str], reporter: Reporter) -> bool:
    """Cross-validate with the trial's settings; whether that could be done."""
    import optuna

    words = as_overrides(trial.params)
    console.rule(f"trial {trial.number}: {' '.join(words)}")

    def watch(results: list[FoldResult]) -> None:
        mean = float(np.mean([result.objective for result in results]))
        trial.set_user_attr(OBJECTIVES, {str(result.fold): result.objective for result in results})
        # a trial taken up again has reported its first folds
        if len(results) not in study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            trial.report(mean, len(results))
        if len(results) < len(results[0].folds) and trial.should_prune():
            raise optuna.TrialPruned(f"{mean:.4f} after {len(results)} folds")

    try:
        value = cross_validate(compose_config(*overrides, *words), reporter, watch)
        study.tell(trial, value)
    except optuna.TrialPruned as end:
        console.print(f"Trial {trial.number} is given up: {end}.")
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except Exception as error:  # one setting that cannot be trained must not end the search
        trial.set_user_attr("error", f"{type(error).__name__}: {error}")
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        console.print(f"Trial {trial.number} failed: {type(error).__name__}: {error}", style="red", soft_wrap=True)
        return False
    return True


def _say(study: optuna.Study, cfg: DictConfig, overrides: list[str], folder: Path) -> float:
    """Print the trials and the best settings, and save these as an overlay; return the best objective."""
    import optuna

    done = [trial for trial in _counted(study) if trial.state == optuna.trial.TrialState.COMPLETE]
    if not done:
        errors = {trial.user_attrs["error"] for trial in study.trials if "error" in trial.user_attrs}
        raise InputError(
            f"No trial of {folder} has come to its end: {'; '.join(sorted(errors)) or 'all were given up'}"
        )
    table = Table(title=f"{cfg.search.name}: {cfg.selection.monitor} on validation folds, best first")
    for name in ("trial", *cfg.search.space, "objective", "folds"):
        table.add_column(name, justify="right")
    # who is left running is another process's
    shown = [*_counted(study), *(trial for trial in study.trials if "error" in trial.user_attrs)]
    for trial in sorted(shown, key=lambda trial: -trial.value if trial.value is not None else np.inf):
        complete = trial.state == optuna.trial.TrialState.COMPLETE
        told = f"{trial.value:.4f}" if complete else trial.state.name.lower()
        values = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in trial.params.values()]
        table.add_row(str(trial.number), *values, told, str(len(trial.intermediate_values)))
    out = Console(markup=False)
    out.print(table)
    best = study.best_trial
    repeated = [word for word in overrides if not word.startswith(("search=", "search."))]
    out.print(f"Best: {' '.join(as_overrides(best.params))}", soft_wrap=True, highlight=False)
    command = shlex.join(["python", "scripts/train.py", *repeated, "split=nested", *as_overrides(best.params)])
    out.print(f"The same validation figure: {command}", soft_wrap=True, highlight=False)
    (folder / "experiment").mkdir(exist_ok=True)
    text = _overlay(best.params, repeated, f"{best.value:.4f}", cfg, len(done))
    write_text(folder / "experiment" / f"{cfg.search.name}_best.yaml", text)
    # what the overlay says, or the protocol, must not be said otherwise by a word after it
    said = {"experiment", "split", *best.params}
    others = [word for word in repeated if word.split("=")[0].lstrip("+") not in said]
    overlay = ["--config-dir", str(folder), f"experiment={cfg.search.name}_best", "split=benchmark"]
    command = shlex.join(["python", "scripts/train.py", *overlay, *others])
    out.print(f"Scored, by split=benchmark: {command}", soft_wrap=True, highlight=False)
    assert best.value is not None
    return best.value


def _overlay(params: dict[str, Any], overrides: list[str], value: str, cfg: DictConfig, trials: int) -> str:
    """The best settings as a file for conf/experiment."""
    base = [word.partition("=")[2] for word in overrides if word.startswith("experiment=")]
    defaults: list[Any] = [*base, *({f"override /{key}": params[key]} for key in params if (CONF / key).is_dir())]
    values: dict[str, Any] = {"defaults": defaults} if defaults else {}
    for key in (key for key in params if not (CONF / key).is_dir()):
        *sections, last = key.split(".")
        node = values
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = params[key]
    found = f"best of {trials} trials over {', '.join(params)}; {cfg.selection.monitor} {value} on validation folds"
    return f"# @package _global_\n# {found}\n{yaml.safe_dump(values, sort_keys=False)}"
