"""A nested search: for each fold, the settings that were best without it, scored on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from soundfold.config import compose_config
from soundfold.experiment.run import Reporter, cross_validate
from soundfold.io.atomic import write_text

if TYPE_CHECKING:
    import optuna

# what each fold's validation gave, kept with its trial
OBJECTIVES = "objectives"


def as_overrides(params: dict[str, Any]) -> list[str]:
    """Settings as Hydra's overrides."""
    return [f"{key}={'null' if value is None else value}" for key, value in params.items()]


def best_trials(objectives: np.ndarray) -> np.ndarray:
    """The trial to score each fold with: objectives (trials, folds) -> int64 (folds,); the earliest of equals.

    Column k is of trainings that fold k had no part in: it was to be scored, and neither trained nor validated.
    """
    return objectives.argmax(axis=0)


def score_nested(
    study: optuna.Study, cfg: DictConfig, overrides: list[str], folder: Path, reporter: Reporter
) -> dict[str, Any]:
    """Score every fold once, under ``split=benchmark``, with the settings of the trial that its own validation chose.

    The mean over folds estimates how good *searching* is on clips that no choice has seen, where the best settings of
    all folds together, scored on the same folds, have been chosen on them. A fold that was scored with the same
    settings before is reused. Writes ``nested.json`` into the study's folder.

    Source: G. Cawley and N. Talbot, On Over-fitting in Model Selection, JMLR 11, 2010.

    Args:
        study: its trials finished, each on every fold.
        overrides: the words that composed the search.
        reporter: see `cross_validate`.
    """
    import optuna

    complete = optuna.trial.TrialState.COMPLETE
    done = [t for t in study.get_trials(deepcopy=False) if t.state == complete and OBJECTIVES in t.user_attrs]
    chosen = best_trials(np.array([list(trial.user_attrs[OBJECTIVES].values()) for trial in done]))
    rows = []
    for fold, index in zip(done[0].user_attrs[OBJECTIVES], chosen, strict=True):
        trial = done[index]
        # all that the search was composed of but for what makes it one
        scored = compose_config(*overrides, *as_overrides(trial.params), f"fold={fold}")
        scored.search, scored.split = None, compose_config("split=benchmark").split
        score = cross_validate(scored, reporter)
        rows.append(
            {
                "fold": int(fold),
                "trial": trial.number,
                "settings": trial.params,
                "objective": trial.user_attrs[OBJECTIVES][fold],
                "accuracy": score,
            }
        )
    scores = [row["accuracy"] for row in rows]
    summary = {
        "protocol": "nested search: settings by each fold's own validation, scored by split=benchmark",
        "monitor": cfg.selection.monitor,
        "trials": len(done),
        "folds": rows,
        "accuracy": float(np.mean(scores)),
        "std": float(np.std(scores, ddof=1)),
    }
    write_text(folder / "nested.json", json.dumps(summary, indent=2) + "\n")
    _print(summary)
    return summary


def _print(summary: dict[str, Any]) -> None:
    table = Table(title="each fold scored with the settings that were chosen without it")
    for name in ("fold", "trial", "settings", summary["monitor"], "accuracy %"):
        table.add_column(name, justify="left" if name == "settings" else "right")
    for row in summary["folds"]:
        settings = " ".join(as_overrides(row["settings"]))
        told = (f"{row['objective']:.4f}", f"{100 * row['accuracy']:.2f}")
        table.add_row(str(row["fold"]), str(row["trial"]), settings, *told)
    table.add_row("mean ± sd", "", "", "", f"{100 * summary['accuracy']:.2f} ± {100 * summary['std']:.2f}")
    Console(markup=False).print(table)
