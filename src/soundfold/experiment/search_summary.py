"""The result of a search: its trials, its best settings as an experiment file, and the commands that use them."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import yaml
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from soundfold.config import CONF
from soundfold.errors import InputError
from soundfold.experiment.study import SearchStudy, as_overrides
from soundfold.io.atomic import write_text
from soundfold.io.console import OutputConsole


def summarize_search(study: SearchStudy, cfg: DictConfig, overrides: list[str]) -> float:
    """Print the trials and the best settings; save these as ``experiment/<search.name>_best.yaml`` in the study folder.

    Args:
        overrides: the Hydra overrides that composed the search.

    Returns:
        The best objective.

    Raises:
        InputError: no trial is complete.
    """
    failed = [trial for trial in study.trials(TrialState.FAIL) if "error" in trial.user_attrs]
    if not study.trials(TrialState.COMPLETE):
        errors = "; ".join(sorted({trial.user_attrs["error"] for trial in failed}))
        raise InputError(f"No trial of {study.folder} is complete: {errors or 'all were pruned'}")
    out = OutputConsole(markup=False)
    out.print(_trials_table([*study.trials(), *failed], cfg))
    best = study.study.best_trial
    assert best.value is not None
    base = [override for override in overrides if not override.startswith(("search=", "search."))]
    experiment = f"{cfg.search.name}_best"
    (study.folder / "experiment").mkdir(exist_ok=True)
    text = _experiment_file(best, base, cfg, len(study.trials(TrialState.COMPLETE)))
    write_text(study.folder / "experiment" / f"{experiment}.yaml", text)
    settings = as_overrides(best.params)
    out.print(f"Best: {' '.join(settings)}", soft_wrap=True, highlight=False)
    command = shlex.join(["python", "scripts/train.py", *base, "split=nested", *settings])
    out.print(f"Reproduce the validation score: {command}", soft_wrap=True, highlight=False)
    # an override of a searched key, or of the protocol, would win over the experiment file
    fixed = {"experiment", "split", *best.params}
    others = [override for override in base if override.split("=")[0].lstrip("+") not in fixed]
    chosen = ["--config-dir", str(study.folder), f"experiment={experiment}", "split=benchmark"]
    command = shlex.join(["python", "scripts/train.py", *chosen, *others])
    out.print(f"Score by split=benchmark: {command}", soft_wrap=True, highlight=False)
    return best.value


def _trials_table(trials: list[FrozenTrial], cfg: DictConfig) -> Table:
    table = Table(title=f"{cfg.search.name}: {cfg.selection.monitor} on validation folds, best first")
    for name in ("trial", *cfg.search.space, "objective", "folds"):
        table.add_column(name, justify="right")
    for trial in sorted(trials, key=lambda trial: -trial.value if trial.value is not None else np.inf):
        values = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in trial.params.values()]
        complete = trial.state == TrialState.COMPLETE
        objective = f"{trial.value:.4f}" if complete else trial.state.name.lower()
        table.add_row(str(trial.number), *values, objective, str(len(trial.intermediate_values)))
    return table


def _experiment_file(best: FrozenTrial, overrides: list[str], cfg: DictConfig, n_trials: int) -> str:
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
    origin = f"best of {n_trials} trials over {', '.join(best.params)}; {cfg.selection.monitor} {best.value:.4f}"
    return f"# @package _global_\n# {origin} on validation folds\n{yaml.safe_dump(values, sort_keys=False)}"
