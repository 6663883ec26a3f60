"""Predictions of files on the terminal, as CSV and as JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from soundfold.inference.fold_models import FoldModel
from soundfold.inference.predictor import Prediction

Found = tuple[Path, Prediction | str]


def describe_models(models: Sequence[FoldModel]) -> list[str]:
    """What predicts and how its probabilities were calibrated, a line each."""
    names = ", ".join(model.fold for model in models)
    what = {"?": "one kept model", "none": "the model trained on every clip"}.get(names, f"the model of fold {names}")
    if len(models) > 1:
        what = f"mean of the probabilities of the models of folds {names}"
    lines = [f"{what[0].upper()}{what[1:]}."]
    known = [model for model in models if model.temperature is not None]
    if len(known) == len(models):
        values = ", ".join(f"{model.temperature:.2f}" for model in models)
        lines.append(
            f"Calibrated by temperature {values}, {known[0].why}."
            if len(models) == 1
            else f"Calibrated by temperatures {values}, each fitted on the test predictions of the other folds."
        )
    else:
        lines.append(f"Uncalibrated: {next(model.why for model in models if model.temperature is None)}.")
    return lines


def print_predictions(found: Sequence[Found], top: int) -> None:
    """Print a row per file with its most probable classes and what is to be known of it."""
    table = Table(show_lines=len(found) > 1)
    table.add_column("file", overflow="fold", ratio=3)
    table.add_column("s", justify="right")
    calibrated = all(isinstance(one, str) or one.calibrated for _, one in found)
    table.add_column("probability %" if calibrated else "probability %, uncalibrated", ratio=3)
    table.add_column("note", ratio=4)
    for path, one in found:
        if isinstance(one, str):
            table.add_row(Text(path.name), "", "", Text("not predicted, see the error"))
            continue
        classes = "\n".join(f"{100 * value:5.1f}  {name}" for name, value in one.top(top))
        windows = (f"mean over {len(one.windows)} windows",) if len(one.windows) > 1 else ()
        table.add_row(Text(path.name), f"{one.seconds:.1f}", Text(classes), Text("; ".join((*windows, *one.notes))))
    Console(markup=False).print(table)


def predictions_as_csv(found: Sequence[Found], classes: Sequence[str]) -> str:
    """A row per file that could be predicted, with the probability of every class."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["file", "seconds", "windows", "calibrated", "seen", "notes", "prediction", "probability"]
    writer.writerow([*head, *(f"p_{name}" for name in classes)])
    for path, one in found:
        if isinstance(one, str):
            continue
        name, value = one.top(1)[0]
        row = [path, f"{one.seconds:.3f}", len(one.windows), one.calibrated, " ".join(one.seen), "; ".join(one.notes)]
        writer.writerow([*row, name, f"{value:.6f}", *(f"{p:.6f}" for p in one.probabilities)])
    return out.getvalue()


def prediction_as_json(
    path: Path, one: Prediction | str, models: Sequence[FoldModel], top: int, timeline: Sequence[Path]
) -> str:
    """One line: the prediction of a file, or the error that stood in its way."""
    if isinstance(one, str):
        return json.dumps({"file": str(path), "error": one})
    content: dict[str, Any] = {
        "file": str(path),
        "seconds": round(one.seconds, 3),
        "windows": len(one.windows),
        "top": [{"class": name, "probability": value} for name, value in one.top(top)],
        "probabilities": dict(zip(one.classes, one.probabilities.tolist(), strict=True)),
        "calibrated": one.calibrated,
        "models": [{"fold": model.fold, "temperature": model.temperature} for model in models],
        "seen": list(one.seen),
        "notes": list(one.notes),
        "timeline": [str(file) for file in timeline],
    }
    return json.dumps(content)
