"""Explain files, or measure explanations of a run; the work of ``soundfold explain``."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from soundfold.errors import InputError, printable
from soundfold.evaluation.compare import load_run
from soundfold.experiment.device import choose_device
from soundfold.inference.explain_page import ExplainedFile, write_files_page, write_measurement_page
from soundfold.inference.explanation import ORDERS, ExplanationOptions, explain_clip, most_probable_window
from soundfold.inference.faithfulness import AREAS, comparisons, estimates, measure_run
from soundfold.inference.output import describe_models
from soundfold.inference.predictor import Predictor
from soundfold.io.atomic import explain_write_errors, write_text
from soundfold.io.audio import audio_files
from soundfold.io.console import Terminal, console, escape_bytes
from soundfold.models.faithfulness import Curves


def explain_files(args: Namespace) -> int:
    """Explain the predictions of files, and write ``explain.html`` and ``explain.json``.

    Args:
        args: arguments of ``soundfold explain``.

    Returns:
        The exit code: 1 if a file was skipped.

    Raises:
        InputError: the model, a folder or an option cannot be used, or no file can be read.
    """
    predictor = Predictor.load(args.run, args.fold, choose_device(args.device, "--device"))
    predictor.hop_samples(args.hop)  # refuse an invalid hop once, not for every file
    target = None if args.target is None else _class_index(args.target, predictor.classes)
    err = Terminal(stderr=True, soft_wrap=True)
    for line in describe_models(predictor.models):
        err.print(line)
    explained: list[ExplainedFile] = []
    errors: dict[str, str] = {}
    paths = audio_files(args.files)
    with Progress(console=err, transient=True) as progress:
        for path in progress.track(paths, description="Explaining"):
            try:
                explained.append(_explain_file(predictor, path, target, args))
            except InputError as error:
                shown = escape_bytes(str(path))
                errors[shown] = escape_bytes(str(error))
                err.print(f"error: {errors[shown]}")
    if not explained:
        return 1
    content = {"run": str(args.run), "options": asdict(_options(args)), "models": _models(predictor)}
    content["files"] = [file_values(file) for file in explained]
    content["errors"] = errors
    remedy = "Choose another --output=DIRECTORY."
    with explain_write_errors(args.output, remedy):
        args.output.mkdir(parents=True, exist_ok=True)
        write_text(args.output / "explain.json", json.dumps(content, indent=1))
        page = write_files_page(args.output / "explain.html", predictor, explained)
    _print_files(explained)
    console.print(f"Page: {page}", soft_wrap=True)
    return 1 if errors else 0


def measure(args: Namespace) -> int:
    """Measure explanations on scored clips of each fold; write ``<run>.html`` and ``<run>.json``.

    Args:
        args: arguments of ``soundfold explain``.

    Raises:
        InputError: the run, its models or its audio cannot be read, or an option is invalid.
    """
    if not args.run.is_dir():
        raise InputError(f"{args.run} is not a run's folder. Name one, outputs/<name>-<id>, or name sound files.")
    run, device = load_run(args.run), choose_device(args.device, "--device")
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Explaining")
        clips = measure_run(
            args.run,
            run,
            args.clips,
            _options(args),
            lambda fold: Predictor.load(args.run, str(fold), device),
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    areas, compared = estimates(clips), comparisons(clips)
    content = {
        "run": run.name,
        "protocol": run.total.protocol,
        "options": asdict(_options(args)),
        "sources": len({clip.source for clip in clips}),
        "areas": {order: {curve: e._asdict() for curve, e in values.items()} for order, values in areas.items()},
        "comparisons": [c._asdict() | {"difference": c.difference._asdict()} for c in compared],
        "clips": [asdict(clip) | {"curves": curve_values(clip.curves)} for clip in clips],
    }
    with explain_write_errors(args.output, "Choose another --output=DIRECTORY."):
        args.output.mkdir(parents=True, exist_ok=True)
        write_text(args.output / f"{run.name}.json", json.dumps(content, indent=1))
        page = write_measurement_page(args.output / f"{run.name}.html", run, clips, areas, compared)
    table = Table()
    for column in ("order", *(f"{curve} area" for curve in AREAS)):
        table.add_column(column)
    for order, values in areas.items():
        table.add_row(ORDERS[order], *(f"{e.mean:.3f} ({e.low:.3f} to {e.high:.3f})" for e in values.values()))
    terminal = Terminal()
    terminal.print(table)
    for comparison in compared:
        terminal.print(comparison.sentence())
    console.print(f"Page: {page}", soft_wrap=True)
    return 0


def _options(args: Namespace) -> ExplanationOptions:
    return ExplanationOptions(args.rows, args.columns, args.fill, args.steps)


def _class_index(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise InputError(f"--class={name} is not a class of the model, which has {', '.join(classes)}.")
    return classes.index(name)


def _explain_file(predictor: Predictor, path: Path, target: int | None, args: Namespace) -> ExplainedFile:
    prediction = predictor.file(path, args.hop)
    if target is None:
        target = int(prediction.probabilities.argmax())
    number, pcm = most_probable_window(predictor, path, prediction, target, args.hop)
    start, end = float(prediction.starts[number]), float(prediction.ends[number])
    explanation = explain_clip(predictor, pcm, target, _options(args))
    return ExplainedFile(Path(escape_bytes(str(path))), prediction, start, end, pcm, explanation)


def _models(predictor: Predictor) -> list[dict[str, Any]]:
    return [{"fold": model.fold, "temperature": model.temperature} for model in predictor.models]


def file_values(file: ExplainedFile) -> dict[str, Any]:
    """Return an explained file as plain values."""
    explanation = file.explanation
    return {
        "file": str(file.path),
        "start": round(file.start, 3),
        "end": round(file.end, 3),
        "class": file.target,
        "probability": explanation.probability,
        "heard": {
            "map": explanation.heard_map,
            "probability": explanation.heard_probability,
            "probability_of_the_rest": explanation.rest_probability,
        },
        "agreement": explanation.agreement,
        "blocks": {name: values.tolist() for name, values in explanation.blocks.items()},
        "curves": curve_values(explanation.curves),
        "seen_in_training": list(file.prediction.seen_in_training),
        "notes": list(file.prediction.notes),
    }


def curve_values(curves: dict[str, Curves]) -> dict[str, Any]:
    """Return curves and their areas as plain values."""
    return {
        name: {
            "deletion_area": curve.deletion_area,
            "insertion_area": curve.insertion_area,
            "fraction": curve.fraction.tolist(),
            "deletion": curve.deletion.tolist(),
            "insertion": curve.insertion.tolist(),
        }
        for name, curve in curves.items()
    }


def _print_files(explained: Sequence[ExplainedFile]) -> None:
    table = Table()
    orders = list(explained[0].explanation.curves)
    for column in ("file", "class", "probability %", *(ORDERS[order] for order in orders)):
        table.add_column(column, overflow="fold")
    for file in explained:
        areas = [f"{c.deletion_area:.2f} / {c.insertion_area:.2f}" for c in file.explanation.curves.values()]
        name, probability = printable(file.path.name), f"{100 * file.explanation.probability:.1f}"
        table.add_row(Text(name), Text(printable(file.target)), probability, *areas)
    terminal = Terminal()
    terminal.print(table)
    terminal.print("Areas under the curves, deletion (lower is better) / insertion (higher is better).")
