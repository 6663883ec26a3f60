"""W&B's run of one cross-validation: what `run_page` shows of it, as figures, charts and tables to filter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import wandb
from omegaconf import DictConfig, OmegaConf

from soundfold.config import Wandb
from soundfold.errors import InputError
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.metrics import class_metrics
from soundfold.evaluation.results import load_curves
from soundfold.experiment.wandb_runs import cv_run, wandb_mode
from soundfold.io.atomic import write_text
from soundfold.report.drawing import pixels
from soundfold.report.mistakes import Mistake, list_mistakes, render_mistakes
from soundfold.validation import is_wandb_trial

FIGURES = (
    "accuracy",
    "accuracy_sd",
    "f1",
    "f1_sd",
    "loss",
    "loss_sd",
    "objective",
    "n",
    "seconds",
    "protocol",
    "leaky",
)


def log_cv(folder: Path, run: RunResult, report: DictConfig, logged_to: Any) -> str | None:
    """Log the figures of the whole cross-validation: mean, spread and interval, pooled confusion matrix, scores of
    each class, learning curves of the folds, and the most confident mistakes to see and to hear.

    What was logged is kept as ``wandb/cv.json``: figures that are no others than those are not logged again, except for
    a sweep, which hears of every trial.

    Args:
        folder: of the run.
        run: see `load_run`.
        report: `soundfold.config.Report`; its mistakes and audio hold here too.
        logged_to: values of `soundfold.config.Wandb`.

    Returns:
        Why the mistakes have neither pictures nor sound; None where they have.

    Raises:
        InputError: W&B cannot open the run.
    """
    total = run.total
    options: Any = OmegaConf.merge(OmegaConf.structured(Wandb), logged_to)
    figures, logged = (folder / "cv.json").read_text(), folder / "wandb" / "cv.json"
    same = logged.is_file() and logged.read_text() == figures
    if wandb_mode(options) == "disabled" or (same and not is_wandb_trial()):
        return None
    mistakes, missing = _mistakes(folder, run, report)
    summary = {f"cv/{name}": getattr(total, name) for name in FIGURES}
    summary["cv/accuracy_low"], summary["cv/accuracy_high"] = run.interval
    config = run.config | {
        "cv_id": total.cv_id,
        "protocol": total.protocol,
        "commit": ", ".join(sorted({fold["environment"]["commit"] for fold in total.folds})),
        "audit": {f"fold{fold['fold']}": fold["audit"] for fold in total.folds},
    }
    with cv_run(options, folder, total.cv_id, config, leaky=total.leaky) as opened:
        opened.summary.update(summary)
        opened.log(
            {
                # a sweep reads its objective from what is logged
                "cv/objective": total.objective,
                "cv/confusion": wandb.plot.confusion_matrix(
                    y_true=run.targets.tolist(),
                    preds=run.predictions.tolist(),
                    class_names=total.classes,
                    title="Confusion matrix, all folds",
                ),
                "cv/classes": _classes(np.array(total.confusion), total.classes),
                **mistakes,
                **_curves(folder, [fold["fold"] for fold in total.folds]),
            }
        )
    write_text(logged, figures)
    return missing


def _classes(confusion: np.ndarray, classes: Sequence[str]) -> wandb.Table:
    scores = class_metrics(confusion)
    columns = {name: getattr(scores, name).tolist() for name in ("precision", "recall", "f1", "clips")}
    return wandb.Table(
        columns=["class", *columns], data=[list(row) for row in zip(classes, *columns.values(), strict=True)]
    )


def _curves(folder: Path, folds: Sequence[int]) -> dict[str, Any]:
    """A chart for each metric, with a line for each fold that has it."""
    lines: dict[str, dict[str, np.ndarray]] = {}
    for fold in folds:
        for metric, (values,) in load_curves(folder, [fold]).items():
            if "/" in metric:
                lines.setdefault(metric, {})[f"fold {fold}"] = values
    charts = {}
    for metric, of_folds in lines.items():
        # a metric that began later is not a number before
        epochs = [np.flatnonzero(np.isfinite(values)) for values in of_folds.values()]
        charts[f"cv/curves/{metric}"] = wandb.plot.line_series(
            xs=[(kept + 1).tolist() for kept in epochs],
            ys=[values[kept].tolist() for values, kept in zip(of_folds.values(), epochs, strict=True)],
            keys=list(of_folds),
            title=f"{metric} by epoch",
            xname="epoch",
        )
    return charts


def _mistakes(folder: Path, run: RunResult, report: DictConfig) -> tuple[dict[str, Any], str | None]:
    """A table of the mistakes, and galleries of their pictures and sounds; why there are no galleries, where so."""
    columns: list[str | int] = ["clip", "fold", "true", "predicted", "confidence"]
    try:
        seen = list(render_mistakes(folder, run, report.mistakes))
    except InputError as error:
        named = list_mistakes(run, report.mistakes)
        return {"cv/mistakes": wandb.Table(columns=columns, data=[_row(mistake) for mistake in named])}, str(error)
    galleries: dict[str, list[Any]] = {"picture": []} | ({"sound": []} if report.audio else {})
    table = wandb.Table(columns=[*columns, "attribution", *galleries])
    for mistake, evidence in seen:
        caption = f"{mistake.filename}: {mistake.true} as {mistake.predicted}, {100 * mistake.confidence:.0f} %"
        # uint8: W&B takes fractions of 1 for shades of 255, and shows black
        galleries["picture"].append(wandb.Image(pixels(evidence.picture), caption=caption))
        if report.audio:
            galleries["sound"].append(wandb.Audio(evidence.samples, evidence.sample_rate, caption=caption))
        media = [gallery[-1] for gallery in galleries.values()]
        table.add_data(*_row(mistake), evidence.attribution.text, *media)
    # beside the table, whose pictures and sounds W&B shows one row at a time
    shown = {f"cv/mistakes/{name}s": gallery for name, gallery in galleries.items() if gallery}
    return {"cv/mistakes": table, **shown}, None


def _row(mistake: Mistake) -> list[Any]:
    return [mistake.filename, mistake.fold, mistake.true, mistake.predicted, float(mistake.confidence)]
