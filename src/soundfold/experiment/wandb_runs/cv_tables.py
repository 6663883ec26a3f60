"""Tables and charts of a cross-validation's W&B run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import wandb

from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.metrics import calibration, class_metrics, confusion_matrix, probabilities
from soundfold.experiment.cv_metrics import Curves

# W&B shows no more of a table
MAX_PREDICTIONS = 10_000
# a chart of W&B's with a colored cell for each pair of labels
HEAT_MAP = "wandb/confusion_matrix/v1"
# its fields, and the columns of the table that they show
RECALL_FIELDS = {"Actual": "class", "Predicted": "fold", "nPredictions": "recall"}


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


def score_media(run: RunResult) -> dict[str, Any]:
    """Return confusion matrix, scores by class, recall by class and fold, and calibration."""
    classes, confusion = run.total.classes, np.array(run.total.confusion)
    return {
        "cv/confusion": wandb.plot.confusion_matrix(
            y_true=run.targets.tolist(),
            preds=run.predictions.tolist(),
            class_names=classes,
            title="Confusion matrix, all folds",
        ),
        "cv/classes": _class_table(confusion, classes),
        "cv/recall": _recall_heat_map(run),
        "cv/calibration": _calibration_chart(run),
        "cv/audit": _audit_table(run.total.folds),
    }


def _class_table(confusion: np.ndarray, classes: Sequence[str]) -> wandb.Table:
    metrics = class_metrics(confusion)
    columns = {name: getattr(metrics, name).tolist() for name in ("precision", "recall", "f1", "clips")}
    rows = [list(row) for row in zip(classes, *columns.values(), strict=True)]
    return wandb.Table(columns=["class", *columns], data=rows)


def _recall_heat_map(run: RunResult) -> Any:
    classes, folds = run.total.classes, np.array([fold for fold, _ in run.clips])
    rows = []
    for fold in sorted(set(folds.tolist())):
        chosen = folds == fold
        confusion = confusion_matrix(run.targets[chosen], run.predictions[chosen], len(classes))
        metrics = class_metrics(confusion)
        values = zip(classes, metrics.recall.tolist(), metrics.clips.tolist(), strict=True)
        rows += [[name, f"fold {fold}", recall] for name, recall, clips in values if clips]
    return wandb.plot_table(
        vega_spec_name=HEAT_MAP,
        data_table=wandb.Table(columns=[*RECALL_FIELDS.values()], data=rows),
        fields=RECALL_FIELDS,
        string_fields={"title": "Recall by class and fold"},
    )


def _calibration_chart(run: RunResult) -> Any:
    result = calibration(probabilities(run.logits).max(axis=1), run.correct)
    filled = result.clips > 0
    confidence, accuracy = result.confidence[filled].tolist(), result.accuracy[filled].tolist()
    return wandb.plot.line_series(
        xs=[confidence, [0.0, 1.0]],
        ys=[accuracy, [0.0, 1.0]],
        keys=["accuracy", "perfect calibration"],
        title="Accuracy by confidence",
        xname="confidence",
    )


def _audit_table(folds: Sequence[Mapping[str, Any]]) -> wandb.Table:
    """Return the counts of the split's audit by fold, see `soundfold.data.leakage.Audit`."""
    columns: list[str | int] = list(dict.fromkeys(key for fold in folds for key in fold["audit"]))
    rows = [[fold["fold"], *(fold["audit"].get(key) for key in columns)] for fold in folds]
    return wandb.Table(columns=["fold", *columns], data=rows)


def curve_charts(curves: Curves) -> dict[str, Any]:
    """Return a chart per metric of `fold_curves`, with one line per fold."""
    charts = {}
    for metric, lines in curves.items():
        epochs = [np.flatnonzero(np.isfinite(values)) for values in lines.values()]
        charts[f"cv/curves/{metric}"] = wandb.plot.line_series(
            xs=[(finite + 1).tolist() for finite in epochs],
            ys=[values[finite].tolist() for values, finite in zip(lines.values(), epochs, strict=True)],
            keys=[f"fold {fold}" for fold in lines],
            title=f"{metric} by epoch",
            xname="epoch",
        )
    return charts


def prediction_table(run: RunResult, mistakes: Sequence[LoggedMistake]) -> wandb.Table:
    """Return a row per scored clip, with picture and sound of some mistakes.

    There are at most `MAX_PREDICTIONS` rows: the mistakes first, the most confident ones before others. No other table
    or gallery has the pictures and sounds, because W&B stores a copy for each.
    """
    media = {(mistake.fold, mistake.filename): _media_cells(mistake) for mistake in mistakes}
    # of all mistakes or of none
    names = list(next(iter(media.values()), {}))
    rows = [[*row, *media.get((row[4], row[0]), dict.fromkeys(names)).values()] for row in _prediction_rows(run)]
    return wandb.Table(columns=["file", "class", "predicted", "confidence", "fold", "correct", *names], data=rows)


def _media_cells(mistake: LoggedMistake) -> dict[str, Any]:
    caption = f"{mistake.filename}: {mistake.true} as {mistake.predicted}, {100 * mistake.confidence:.0f} %"
    cells: dict[str, Any] = {}
    if mistake.picture is not None:
        cells |= {"attribution": mistake.attribution, "picture": wandb.Image(mistake.picture, caption=caption)}
    if mistake.samples is not None:
        cells["sound"] = wandb.Audio(mistake.samples, mistake.sample_rate, caption=caption)
    return cells


def _prediction_rows(run: RunResult) -> list[list[Any]]:
    confidence, classes = probabilities(run.logits).max(axis=1), run.total.classes
    order = np.lexsort((-confidence, run.correct))[:MAX_PREDICTIONS]
    return [
        [
            run.clips[i][1],
            classes[run.targets[i]],
            classes[run.predictions[i]],
            float(confidence[i]),
            run.clips[i][0],
            bool(run.correct[i]),
        ]
        for i in order
    ]
