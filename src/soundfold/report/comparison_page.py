"""The page that lays several cross-validations side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from soundfold.config import NOT_IDENTITY, drop_keys, flatten
from soundfold.errors import InputError
from soundfold.evaluation.compare import RunResult, compare, describe_seeds, seed_groups
from soundfold.evaluation.metrics import calibration, class_metrics, probabilities
from soundfold.evaluation.published import published_leaderboard
from soundfold.evaluation.results import load_curves
from soundfold.report import plots
from soundfold.report.drawing import inline_svg, save_figure
from soundfold.report.page import display_name, write_page


def write_comparison_page(folders: Sequence[Path], runs: Sequence[RunResult]) -> Path:
    """Write ``comparison-<id>/report.html`` and its figures beside the first run; the id is a hash of the runs' names.

    Args:
        folders: of the runs.
        runs: see `load_run`.

    Returns:
        The page.

    Raises:
        InputError: the folder cannot be written.
    """
    names = [run.name for run in runs]
    identity = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    folder = folders[0].resolve().parent / f"comparison-{identity}"
    figures = {
        "accuracies": plots.accuracies(
            names,
            np.array([run.correct.mean() for run in runs]),
            np.array([run.interval for run in runs]),
            [[fold["accuracy"] for fold in run.total.folds] for run in runs],
            [run.total.leaky for run in runs],
        )
    }
    curves = {
        run.name: load_curves(place, [fold["fold"] for fold in run.total.folds])
        for place, run in zip(folders, runs, strict=True)
    }
    if any(curves.values()):
        figures["curves"] = plots.curves_beside(curves)
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            save_figure(figure, folder / "figures", name)
        page = folder / "report.html"
        write_page(
            page,
            "comparison.html.j2",
            title=f"{len(runs)} runs side by side",
            leaky=[run.name for run in runs if run.total.leaky],
            rows=[_row(run) for run in runs],
            figures={name: inline_svg(figure, ALT[name]) for name, figure in figures.items()},
            sentences=[_verdict(a, b) for a, b in combinations(runs, 2)],
            seeds=[describe_seeds(group, summary) for group, summary in seed_groups(runs)],
            leaderboard_rows=published_leaderboard(runs),
            names=names,
            chosen=_chosen(runs),
            class_rows=_class_rows(runs),
            sections=_sections(runs, "curves" in figures),
            footer="Written by soundfold.",
        )
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}. Copy the runs' folders to a place that can.") from error
    return page


ALT = {
    "accuracies": "Accuracy of each run with its 95 % interval and its folds; the figures stand in the table",
    "curves": "Loss and accuracy on training and validation clips by epoch, mean over folds, a line for each run",
}


def _sections(runs: Sequence[RunResult], curves: bool) -> list[tuple[str, str]]:
    names = {"runs": "Runs", "verdict": "Which is better", "chosen": "What differs"}
    names |= {"curves": "Learning curves"} if curves else {}
    names |= {"classes": "Classes"} if _class_rows(runs) else {}
    return list(names.items())


def _row(run: RunResult) -> list[Any]:
    total, (low, high) = run.total, run.interval
    return [
        run.name,
        f"{total.protocol}{', LEAKY' if total.leaky else ''}",
        run.trained_on(),
        total.n,
        f"{100 * total.accuracy:.2f} ± {100 * total.accuracy_sd:.2f}",
        f"{100 * low:.2f} to {100 * high:.2f}",
        f"{100 * total.f1:.2f}",
        f"{100 * calibration(probabilities(run.logits).max(axis=1), run.correct).error:.1f}",
        run.leaks(),
        f"{total.seconds:.0f}",
    ]


def _verdict(a: RunResult, b: RunResult) -> str:
    try:
        return compare(a, b).describe()
    except InputError as error:
        return str(error)


def _chosen(runs: Sequence[RunResult]) -> list[list[Any]]:
    """Keys whose values differ between the runs, with each run's."""
    values = [flatten(drop_keys(run.config, NOT_IDENTITY)) for run in runs]
    keys = sorted(set().union(*values))
    return [
        [key, *(str(value.get(key, "not set")) for value in values)]
        for key in keys
        if len({str(value.get(key, "not set")) for value in values}) > 1
    ]


def _class_rows(runs: Sequence[RunResult]) -> list[list[Any]]:
    """F1 of each class in each run, in %; empty where the runs' classes differ."""
    classes = runs[0].total.classes
    if any(run.total.classes != classes for run in runs):
        return []
    f1 = [class_metrics(np.array(run.total.confusion)).f1 for run in runs]
    return [[display_name(name), *(f"{100 * of_run[i]:.1f}" for of_run in f1)] for i, name in enumerate(classes)]
