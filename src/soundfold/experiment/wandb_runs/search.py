"""The W&B run of a hyperparameter search: its trials and the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb

from soundfold.config import Wandb
from soundfold.experiment import environment
from soundfold.experiment.wandb_runs.session import first_step, open_wandb_run


@dataclass(frozen=True)
class LoggedTrial:
    """A finished trial of a search.

    Attributes:
        number: from 0.
        state: ``complete``, ``pruned`` or ``fail``.
        settings: by dotted key.
        objective: greater is better; None unless it is complete.
        folds: number of validated folds.
    """

    number: int
    state: str
    settings: dict[str, Any]
    objective: float | None
    folds: int


def log_search(options: Wandb, folder: Path, config: dict[str, Any], trials: Sequence[LoggedTrial]) -> None:
    """Log a search: a row of history per complete trial, a table of all trials, and the best settings.

    Args:
        folder: of the study; it names the group and the run.
        config: plain values of the search.
        trials: in the order in which they finished, so that more trials only add rows.

    Raises:
        InputError: W&B cannot open the run.
    """
    init: dict[str, Any] = {"job_type": "search", "name": f"{folder.name} search", "id": f"search-{folder.name}"}
    init |= {"dir": folder, "command": environment.command()}
    complete = [trial for trial in trials if trial.objective is not None]
    best = max(complete, key=lambda trial: trial.objective or 0.0)
    keys = list(best.settings)
    with open_wandb_run(options, folder, config, leaky=False, **init) as run:
        run.define_metric("search/*", step_metric="search/trial")
        # a search that goes on has logged the earlier rows
        first, highest = first_step(run), float("-inf")
        for step, trial in enumerate(complete):
            highest = max(highest, trial.objective or 0.0)
            row: dict[str, Any] = {"search/trial": trial.number, "search/objective": trial.objective}
            row |= {"search/best": highest, **{f"sweep/{key}": value for key, value in trial.settings.items()}}
            if step == len(complete) - 1:
                # in this row, because another would take the step of the next trial
                row["search/trials"] = _table(trials, keys)
            if step >= first:
                run.log(row, step=step)
        run.summary.update({f"best/{key}": value for key, value in best.settings.items()})
        run.summary.update({"search/best": best.objective, "best/trial": best.number})


def _table(trials: Sequence[LoggedTrial], keys: Sequence[str]) -> wandb.Table:
    rows = [
        [trial.number, trial.state, *(trial.settings.get(key) for key in keys), trial.objective, trial.folds]
        for trial in trials
    ]
    return wandb.Table(columns=["trial", "state", *keys, "objective", "folds"], data=rows, allow_mixed_types=True)
