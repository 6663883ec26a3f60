"""The result of a search: its trials, its best settings as an experiment file, and the commands that use them."""

from __future__ import annotations

import shlex
from typing import Any

import yaml
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from soundfold.config import CONF, search_path
from soundfold.errors import InputError
from soundfold.experiment.environment import config_dirs
from soundfold.experiment.metrics import flip_objective
from soundfold.experiment.study import ERROR, SearchStudy, describe_settings, describe_value
from soundfold.io.atomic import write_text
from soundfold.io.console import Terminal


def summarize_search(study: SearchStudy, cfg: DictConfig, overrides: list[str]) -> float:
    """Print the trials and the best settings; save these as ``experiment/<search.name>_best.yaml`` in the study folder.

    Args:
        overrides: the Hydra overrides that composed the search.

    Returns:
        The best objective.

    Raises:
        InputError: no trial is complete.
    """
    failed = [trial for trial in study.trials(TrialState.FAIL) if ERROR in trial.user_attrs]
    if not study.trials(TrialState.COMPLETE):
        errors = "; ".join(sorted({trial.user_attrs[ERROR] for trial in failed}))
        raise InputError(f"No trial of {study.folder} is complete: {errors or 'all were pruned'}")
    out = Terminal()
    out.print(_trials_table([*study.trials(TrialState.COMPLETE, TrialState.PRUNED), *failed], cfg))
    best = study.study.best_trial
    assert best.value is not None
    base = [override for override in overrides if not override.startswith(("search=", "search."))]
    experiment = f"{cfg.search.name}_best"
    (study.folder / "experiment").mkdir(exist_ok=True)
    text = _experiment_file(best, best.value, base, cfg, len(study.trials(TrialState.COMPLETE)))
    write_text(study.folder / "experiment" / f"{experiment}.yaml", text)
    out.print(f"Best: {describe_settings(best.params)}", soft_wrap=True, highlight=False)
    # an override of a searched key, or of the protocol, would win over the experiment file
    fixed = {"experiment", "split", *best.params}
    others = [override for override in base if override.split("=")[0].lstrip("+") not in fixed]
    # the file has the exact settings
    chosen = ["soundfold", "train", *_search_path(study), f"experiment={experiment}"]
    for purpose, split in (("Reproduce the validation score", "nested"), ("Score by split=benchmark", "benchmark")):
        out.print(f"{purpose}: {shlex.join([*chosen, f'split={split}', *others])}", soft_wrap=True, highlight=False)
    return best.value


def _search_path(study: SearchStudy) -> list[str]:
    """Return the arguments by which Hydra finds the experiment file, besides the user's own ``--config-dir``."""
    folders = config_dirs()
    if not folders:
        return ["--config-dir", str(study.folder)]
    return ["--config-dir", folders[0], search_path(study.folder)]


def _trials_table(trials: list[FrozenTrial], cfg: DictConfig) -> Table:
    """Return a row per complete trial, best first, then the pruned and failed ones."""
    monitor = cfg.selection.monitor
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    title = f"{cfg.search.name}: {monitor} on validation folds, {len(complete)} complete trials, best first"
    table = Table(title=title)
    for name in ("trial", *cfg.search.space, monitor, "folds"):
        table.add_column(name, justify="right", overflow="fold")
    others = [trial for trial in trials if trial.state != TrialState.COMPLETE]
    for trial in [*sorted(complete, key=lambda trial: trial.value or 0.0, reverse=True), *others]:
        # a failed trial may lack settings
        values = [describe_value(trial.params[key]) if key in trial.params else "" for key in cfg.search.space]
        score = trial.state.name.lower()
        if trial.state == TrialState.COMPLETE and trial.value is not None:
            score = f"{flip_objective(cfg, trial.value):.4g}"
        table.add_row(str(trial.number), *values, score, str(len(trial.intermediate_values)))
    return table


def _experiment_file(best: FrozenTrial, value: float, overrides: list[str], cfg: DictConfig, n_trials: int) -> str:
    """Return the best settings as the text of a file for ``conf/experiment``, on top of the search's own experiment."""
    base = [override.partition("=")[2] for override in overrides if override.startswith("experiment=")]
    groups = [key for key in best.params if (CONF / key).is_dir()]
    defaults: list[Any] = [*base, *({f"override /{key}": best.params[key]} for key in groups)]
    values: dict[str, Any] = {"defaults": defaults} if defaults else {}
    for key in (key for key in best.params if key not in groups):
        *sections, last = key.split(".")
        node = values
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = best.params[key]
    origin = f"best of {n_trials} trials over {', '.join(best.params)}; {cfg.selection.monitor} "
    origin += f"{flip_objective(cfg, value):.4g}"
    return f"# @package _global_\n# {origin} on validation folds\n{yaml.safe_dump(values, sort_keys=False)}"
