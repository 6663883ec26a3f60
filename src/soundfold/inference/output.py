"""Format predictions as a terminal table, as CSV and as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from soundfold.errors import printable
from soundfold.inference.fold_models import FoldModel
from soundfold.inference.prediction import UNKNOWN, Prediction
from soundfold.io.console import Terminal, escape_bytes
from soundfold.io.csv_text import csv_text

# a file with its prediction, or with the error that prevented it
FileResult = tuple[Path, Prediction | str]


def describe_models(models: Sequence[FoldModel]) -> list[str]:
    """Return a line that names the models, and one that describes their calibration."""
    folds = ", ".join(model.fold for model in models)
    if len(models) > 1:
        line = f"Mean of the probabilities of the models of folds {folds}."
    else:
        line = {"?": "A single model.", "none": "The model trained on all clips."}.get(
            folds, f"The model of fold {folds}."
        )
    reasons = [model.calibration for model in models if model.temperature is None]
    if reasons:
        return [line, f"Uncalibrated: {reasons[0]}."]
    values = ", ".join(f"{model.temperature:.2f}" for model in models)
    if len(models) == 1:
        return [line, f"Calibrated by temperature {values}, {models[0].calibration}."]
    return [line, f"Calibrated by temperatures {values}, each fitted on the test predictions of the other folds."]


def print_predictions(results: Sequence[FileResult], top: int) -> None:
    """Print a row per file with its most probable classes and its notes."""
    table = Table(show_lines=len(results) > 1)
    table.add_column("file", overflow="fold", ratio=3)
    table.add_column("s", justify="right")
    calibrated = all(isinstance(result, str) or result.calibrated for _, result in results)
    table.add_column("probability %" if calibrated else "probability %, uncalibrated", ratio=3)
    table.add_column("note", ratio=4)
    for path, result in results:
        if isinstance(result, str):
            table.add_row(Text(printable(path.name)), "", "", Text("not predicted, see the error"))
            continue
        lines = [f"{100 * value:5.1f}  {printable(name)}" for name, value in result.top(top)]
        classes = "\n".join([*([UNKNOWN] if result.is_unknown else []), *lines])
        notes = [f"mean over {len(result.windows)} windows"] if len(result.windows) > 1 else []
        notes += result.notes
        if result.mean_familiarity is not None:
            notes.append(f"familiarity {result.mean_familiarity:.4g}, threshold {result.threshold:.4g}")
        cells = Text(printable(path.name)), f"{result.seconds:.1f}", Text(classes), Text(printable("; ".join(notes)))
        table.add_row(*cells)
    Terminal().print(table)


def predictions_as_csv(results: Sequence[FileResult], classes: Sequence[str]) -> str:
    """Return a CSV row per predicted file, with the probability of every class."""
    header = ["file", "seconds", "windows", "calibrated", "seen_in_training", "notes", "prediction", "probability"]
    novelty = any(not isinstance(result, str) and result.threshold is not None for _, result in results)
    header += ["familiarity", "threshold"] if novelty else []
    rows: list[list[object]] = [[*header, *(f"p_{name}" for name in classes)]]
    for path, result in results:
        if isinstance(result, str):
            continue
        value = result.top(1)[0][1]
        about: list[object] = [path, f"{result.seconds:.3f}", len(result.windows), result.calibrated]
        about += [" ".join(result.seen_in_training), "; ".join(result.notes)]
        about += [result.label, f"{value:.6f}"]
        if result.mean_familiarity is not None:
            about += [f"{result.mean_familiarity:.6g}", f"{result.threshold:.6g}"]
        rows.append([*about, *(f"{p:.6f}" for p in result.probabilities)])
    return csv_text(rows)


def prediction_as_json(
    path: Path, result: Prediction | str, models: Sequence[FoldModel], top: int, timeline: Sequence[Path]
) -> str:
    """Return one JSON line: the prediction of a file, or the error that prevented it."""
    if isinstance(result, str):
        return json.dumps({"file": str(path), "error": result})
    content: dict[str, Any] = {
        "file": str(path),
        "seconds": round(result.seconds, 3),
        "windows": len(result.windows),
        "top": [{"class": name, "probability": value} for name, value in result.top(top)],
        "probabilities": dict(zip(result.classes, result.probabilities.tolist(), strict=True)),
        "calibrated": result.calibrated,
        "models": [{"fold": model.fold, "temperature": model.temperature} for model in models],
        "seen_in_training": list(result.seen_in_training),
        "notes": list(result.notes),
        "timeline": [escape_bytes(str(file)) for file in timeline],
    }
    if result.mean_familiarity is not None:
        novelty = {"unknown": result.is_unknown, "familiarity": result.mean_familiarity, "threshold": result.threshold}
        content |= novelty
    return json.dumps(content)
