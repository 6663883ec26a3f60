"""The W&B run of a cross-validation: its scores, charts and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb

from soundfold.config import Wandb
from soundfold.evaluation.compare import RunResult
from soundfold.experiment.cv_metrics import curve_rows, cv_scores, fold_curves
from soundfold.experiment.wandb_runs.artifacts import use_collection
from soundfold.experiment.wandb_runs.cv_tables import (
    MAX_PREDICTIONS,
    LoggedMistake,
    curve_charts,
    prediction_table,
    score_media,
)
from soundfold.experiment.wandb_runs.session import first_step, open_wandb_run, wandb_mode
from soundfold.io.atomic import write_text

# a table with its header
Rows = Sequence[Sequence[Any]]


def needs_logging(folder: Path, options: Wandb) -> bool:
    """Return False if W&B is disabled or already has this ``cv.json``."""
    logged = folder / "wandb" / "cv.json"
    unchanged = logged.is_file() and logged.read_text() == (folder / "cv.json").read_text()
    return wandb_mode(options) != "disabled" and not unchanged


def log_cv(
    folder: Path, run: RunResult, options: Wandb, mistakes: Sequence[LoggedMistake], shortcuts: Rows | None = None
) -> None:
    """Log a cross-validation: scores with spread and interval, curves, every prediction, charts and tables.

    Args:
        folder: of the cross-validation, with its ``cv.json``; a copy in ``wandb/`` records what was logged.
        run: see `load_run`.
        mistakes: with pictures and sounds for the table of predictions.
        shortcuts: scores of classifiers of properties of the files, of ``soundfold explore``, with a header.

    Raises:
        InputError: W&B cannot open the run.
    """
    total = run.total
    cv_json = (folder / "cv.json").read_text()
    config = run.config | {
        "cv_id": total.cv_id,
        "protocol": total.protocol,
        "commit": ", ".join(sorted({fold["environment"]["commit"] for fold in total.folds})),
        "audit": {f"fold{fold['fold']}": fold["audit"] for fold in total.folds},
    }
    command, first = total.folds[0].get("command"), total.folds[0]["fold"]
    curves = fold_curves(folder, [fold["fold"] for fold in total.folds])
    names = {"job_type": "cv", "name": f"{folder.name} cv", "id": f"cv-{total.cv_id}"}
    with open_wandb_run(options, folder, config, leaky=total.leaky, command=command, dir=folder, **names) as wandb_run:
        use_collection(wandb_run, folder / f"fold{first}")
        _define_metrics(wandb_run)
        results = {
            "cv/objective": total.objective,
            **score_media(run),
            **(
                {}
                if shortcuts is None
                else {"cv/shortcuts": wandb.Table(columns=list(shortcuts[0]), data=list(shortcuts[1:]))}
            ),
            "cv/predictions": prediction_table(run, mistakes),
            **curve_charts(curves),
        }
        # what was sent before has the steps before these
        for step, row in enumerate([*curve_rows(curves), results], first_step(wandb_run)):
            wandb_run.log(row, step=step)
        scores = {"cv/protocol": total.protocol, "cv/leaky": total.leaky, **cv_scores(run)}
        wandb_run.summary.update({**scores, "cv/predictions_omitted": max(0, total.n - MAX_PREDICTIONS)})
    write_text(folder / "wandb" / "cv.json", cv_json)


def _define_metrics(run: wandb.Run) -> None:
    """Set the axis of the curves over folds, which are not scores: the summary has none of their values."""
    run.define_metric("cv/epoch", hidden=True, summary="none")
    for band in ("mean", "low", "high"):
        run.define_metric(f"cv/{band}/*", step_metric="cv/epoch", summary="none")
