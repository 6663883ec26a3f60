"""Nested search: score each fold with the settings that were chosen without it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from omegaconf import DictConfig
from optuna.trial import TrialState
from rich.table import Table

from soundfold.config import compose_config
from soundfold.errors import InputError
from soundfold.experiment.metrics import flip_objective
from soundfold.experiment.run import Reporter, cross_validate
from soundfold.experiment.study import SearchStudy, as_overrides, describe_settings
from soundfold.experiment.study_checks import OBJECTIVES
from soundfold.io.atomic import write_text
from soundfold.io.console import Terminal


def score_nested(study: SearchStudy, cfg: DictConfig, overrides: list[str], reporter: Reporter) -> dict[str, Any]:
    """Score every fold once, under ``split=benchmark``, with the settings that its own validation chose.

    The mean over folds estimates the accuracy of the search procedure on clips that no choice has used. The best
    settings over all folds, scored on the same folds, would be biased: those folds chose them. A fold that was already
    scored with the same settings is reused. Writes ``nested.json`` to the study's folder.

    Source: G. Cawley and N. Talbot, On Over-fitting in Model Selection, JMLR 11, 2010.

    Args:
        study: finished, with every trial run on every fold.
        overrides: the Hydra overrides that composed the search.
        reporter: see `cross_validate`.

    Raises:
        InputError: no trial has a score of every fold.
    """
    complete = study.trials(TrialState.COMPLETE)
    n_folds = max((len(trial.user_attrs.get(OBJECTIVES, ())) for trial in complete), default=0)
    trials = [trial for trial in complete if len(trial.user_attrs.get(OBJECTIVES, ())) == n_folds]
    if not n_folds:
        raise InputError("No trial has a score of every fold. Start another study with search.name; folds are reused.")
    # (trials, folds): column k is from trainings that used fold k neither to train nor to validate
    objectives = np.array([list(trial.user_attrs[OBJECTIVES].values()) for trial in trials])
    rows = []
    for fold, index in zip(trials[0].user_attrs[OBJECTIVES], objectives.argmax(axis=0), strict=True):
        trial = trials[index]
        scored = compose_config(*overrides, *as_overrides(trial.params), f"fold={fold}")
        scored.search, scored.split = None, compose_config("split=benchmark").split
        rows.append(
            {
                "fold": int(fold),
                "trial": trial.number,
                "settings": trial.params,
                "validation": flip_objective(cfg, trial.user_attrs[OBJECTIVES][fold]),
                "accuracy": cross_validate(scored, reporter),
            }
        )
    accuracies = [row["accuracy"] for row in rows]
    summary = {
        "protocol": "nested search: settings by each fold's own validation, scored by split=benchmark",
        "monitor": cfg.selection.monitor,
        "trials": len(trials),
        "folds": rows,
        "accuracy": float(np.mean(accuracies)),
        "std": float(np.std(accuracies, ddof=1)),
    }
    write_text(study.folder / "nested.json", json.dumps(summary, indent=2) + "\n")
    _print_summary(summary)
    return summary


def _print_summary(summary: dict[str, Any]) -> None:
    table = Table(title="Each fold scored with the settings that were chosen without it")
    for name in ("fold", "trial", "settings", summary["monitor"], "accuracy %"):
        table.add_column(name, justify="left" if name == "settings" else "right", overflow="fold")
    for row in summary["folds"]:
        settings = describe_settings(row["settings"])
        scores = (f"{row['validation']:.4g}", f"{100 * row['accuracy']:.2f}")
        table.add_row(str(row["fold"]), str(row["trial"]), settings, *scores)
    table.add_row("mean ± sd", "", "", "", f"{100 * summary['accuracy']:.2f} ± {100 * summary['std']:.2f}")
    Terminal().print(table)
