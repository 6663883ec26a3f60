"""The W&B run of a cross-validation: its scores, charts and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from soundfold.config import Wandb
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.metrics import class_metrics
from soundfold.evaluation.results import load_curves
from soundfold.experiment.wandb_runs.session import open_wandb_run, wandb_mode
from soundfold.io.atomic import write_text
from soundfold.validation import is_wandb_trial

SUMMARY = (
    "accuracy",
    "accuracy_sd",
    "loss",
    "loss_sd",
    "objective",
    "n",
    "seconds",
    "protocol",
    "leaky",
)


@dataclass(frozen=True)
class LoggedMistake:
    """A misclassified clip. Either all mistakes of a run have a picture or none; the same is true of sounds.

    Attributes:
        filename, fold, true, predicted: of the clip.
        confidence: probability of the predicted class.
        attribution: author and license of the sound.
        picture: uint8 (H, W, 4).
        samples: int16 (N,).
        sample_rate: Hz.
    """

    filename: str
    fold: int
    true: str
    predicted: str
    confidence: float
    attribution: str | None = None
    picture: np.ndarray | None = None
    samples: np.ndarray | None = None
    sample_rate: int | None = None


@contextmanager
def cv_run(options: Wandb, folder: Path, cv_id: str, config: dict[str, Any], *, leaky: bool) -> Iterator[wandb.Run]:
    """Open the W&B run of a cross-validation: the trial's under W&B's agent, else ``cv-<id>``; see `open_wandb_run`."""
    init: dict[str, Any] = {"job_type": "cv", "name": f"{folder.name} cv", "dir": folder}
    init["id"] = None if is_wandb_trial() else f"cv-{cv_id}"
    with open_wandb_run(options, folder, config, leaky=leaky, is_cv=True, **init) as run:
        yield run


def needs_logging(folder: Path, options: Wandb) -> bool:
    """Return False if W&B is disabled or already has this ``cv.json``."""
    logged = folder / "wandb" / "cv.json"
    unchanged = logged.is_file() and logged.read_text() == (folder / "cv.json").read_text()
    return wandb_mode(options) != "disabled" and not unchanged


def log_trial(options: Wandb, folder: Path, cv_id: str, config: dict[str, Any], objective: float) -> None:
    """Log the objective of a trial of a W&B sweep, which reads it from the history; see `open_wandb_run`."""
    with cv_run(options, folder, cv_id, config | {"cv_id": cv_id}, leaky=False) as wandb_run:
        wandb_run.log({"cv/objective": objective})


def log_cv(folder: Path, run: RunResult, options: Wandb, mistakes: Sequence[LoggedMistake]) -> None:
    """Log a cross-validation: scores with spread and interval, confusion matrix, scores by class, curves, mistakes.

    Args:
        folder: of the cross-validation, with its ``cv.json``; a copy in ``wandb/`` records what was logged.
        run: see `load_run`.
        mistakes: rows of the table of mistakes, in order.

    Raises:
        InputError: W&B cannot open the run.
    """
    total = run.total
    cv_json = (folder / "cv.json").read_text()
    summary = {f"cv/{name}": getattr(total, name) for name in SUMMARY}
    summary |= {f"cv/{name}": value for name, value in total.metrics.items()}
    summary |= {f"cv/{name}_sd": value for name, value in total.metrics_sd.items()}
    summary["cv/accuracy_low"], summary["cv/accuracy_high"] = run.interval
    config = run.config | {
        "cv_id": total.cv_id,
        "protocol": total.protocol,
        "commit": ", ".join(sorted({fold["environment"]["commit"] for fold in total.folds})),
        "audit": {f"fold{fold['fold']}": fold["audit"] for fold in total.folds},
    }
    with cv_run(options, folder, total.cv_id, config, leaky=total.leaky) as wandb_run:
        wandb_run.summary.update(summary)
        wandb_run.log(
            {
                "cv/objective": total.objective,
                "cv/confusion": wandb.plot.confusion_matrix(
                    y_true=run.targets.tolist(),
                    preds=run.predictions.tolist(),
                    class_names=total.classes,
                    title="Confusion matrix, all folds",
                ),
                "cv/classes": _class_table(np.array(total.confusion), total.classes),
                **_mistake_media(mistakes),
                **_curve_charts(folder, [fold["fold"] for fold in total.folds]),
            }
        )
    write_text(folder / "wandb" / "cv.json", cv_json)


def _class_table(confusion: np.ndarray, classes: Sequence[str]) -> wandb.Table:
    metrics = class_metrics(confusion)
    columns = {name: getattr(metrics, name).tolist() for name in ("precision", "recall", "f1", "clips")}
    rows = [list(row) for row in zip(classes, *columns.values(), strict=True)]
    return wandb.Table(columns=["class", *columns], data=rows)


def _curve_charts(folder: Path, folds: Sequence[int]) -> dict[str, Any]:
    """Return a chart per metric, with one line per fold."""
    curves: dict[str, dict[str, np.ndarray]] = {}
    for fold in folds:
        for metric, (values,) in load_curves(folder, [fold]).items():
            if "/" in metric:
                curves.setdefault(metric, {})[f"fold {fold}"] = values
    charts = {}
    for metric, lines in curves.items():
        # NaN before the first epoch that logged the metric
        epochs = [np.flatnonzero(np.isfinite(values)) for values in lines.values()]
        charts[f"cv/curves/{metric}"] = wandb.plot.line_series(
            xs=[(finite + 1).tolist() for finite in epochs],
            ys=[values[finite].tolist() for values, finite in zip(lines.values(), epochs, strict=True)],
            keys=list(lines),
            title=f"{metric} by epoch",
            xname="epoch",
        )
    return charts


def _mistake_media(mistakes: Sequence[LoggedMistake]) -> dict[str, Any]:
    """Return the table of mistakes, and galleries of its pictures and sounds: the table shows them row by row."""
    pictures, sounds, rows = [], [], []
    for mistake in mistakes:
        caption = f"{mistake.filename}: {mistake.true} as {mistake.predicted}, {100 * mistake.confidence:.0f} %"
        row = [mistake.filename, mistake.fold, mistake.true, mistake.predicted, mistake.confidence]
        if mistake.picture is not None:
            pictures.append(wandb.Image(mistake.picture, caption=caption))
            row += [mistake.attribution, pictures[-1]]
        if mistake.samples is not None:
            sounds.append(wandb.Audio(mistake.samples, mistake.sample_rate, caption=caption))
            row.append(sounds[-1])
        rows.append(row)
    columns: list[str | int] = ["clip", "fold", "true", "predicted", "confidence"]
    columns += (["attribution", "picture"] if pictures else []) + (["sound"] if sounds else [])
    galleries = {"cv/mistakes/pictures": pictures, "cv/mistakes/sounds": sounds}
    return {
        "cv/mistakes": wandb.Table(columns=columns, data=rows),
        **{name: gallery for name, gallery in galleries.items() if gallery},
    }
