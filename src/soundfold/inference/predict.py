"""Predict files one after the other; the work of scripts/predict.py."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from soundfold.errors import InputError, printable
from soundfold.experiment.device import choose_device
from soundfold.inference.output import (
    FileResult,
    describe_models,
    prediction_as_json,
    predictions_as_csv,
    print_predictions,
)
from soundfold.inference.prediction import Prediction
from soundfold.inference.predictor import Predictor
from soundfold.inference.timeline import write_timeline
from soundfold.io.audio import audio_files
from soundfold.io.console import Terminal


def predict(args: Namespace) -> int:
    """Print the predictions of files and write timelines of long recordings.

    Unreadable files are reported and skipped.

    Args:
        args: arguments of scripts/predict.py.

    Returns:
        The exit code: 1 if a file was skipped.

    Raises:
        InputError: the model, a folder or an option cannot be used.
    """
    predictor = Predictor.load(args.run, args.fold, choose_device(args.device, "--device"))
    predictor.hop_samples(args.hop)  # refuse an invalid hop once, not for every file
    files = audio_files(args.files)
    err = Terminal(stderr=True, soft_wrap=True)
    for line in describe_models(predictor.models):
        err.print(line)
    results: list[FileResult] = []
    timeline_names: set[str] = set()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        for number, path in enumerate(files, 1):
            task = progress.add_task(f"{number}/{len(files)} {printable(path.name)}", total=None)
            result: Prediction | str
            try:
                result, timeline = _predict_file(predictor, path, args, timeline_names, progress, task)
            except InputError as error:
                result, timeline = str(error), []
                err.print(f"error: {printable(error)}")
            results.append((path, result))
            progress.remove_task(task)
            if args.format == "jsonl":
                print(prediction_as_json(path, result, predictor.models, args.top, timeline), flush=True)
    if args.format == "table":
        print_predictions(results, args.top)
    elif args.format == "csv":
        text = predictions_as_csv(results, predictor.classes)
        print(printable(text, "\n") if sys.stdout.isatty() else text, end="")
    return int(any(isinstance(result, str) for _, result in results))


def _predict_file(
    predictor: Predictor, path: Path, args: Namespace, timeline_names: set[str], progress: Progress, task: TaskID
) -> tuple[Prediction, list[Path]]:
    """Return the prediction of a file, and the files of its timeline if it is a long recording."""

    def advance(seconds: float, header_seconds: float) -> None:
        progress.update(task, completed=seconds, total=max(seconds, header_seconds))

    prediction = predictor.file(path, args.hop, sketch=True, progress=advance)
    if len(prediction.windows) == 1:
        return prediction, []
    name = _unused_name(path.stem, timeline_names)
    timeline = write_timeline(prediction, predictor.band_centers, args.timelines, name)
    progress.console.print(f"Timeline: {printable(args.timelines / name)}.csv, .png and .txt (Audacity)")
    return prediction, timeline


def _unused_name(stem: str, used: set[str]) -> str:
    """Return the stem, numbered if a file of the same name in another folder used it."""
    name = next(n for n in _candidates(stem) if n not in used)
    used.add(name)
    return name


def _candidates(stem: str) -> Iterator[str]:
    yield stem
    yield from (f"{stem}-{number}" for number in count(2))
