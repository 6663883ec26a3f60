"""Predict files one after the other; the work of ``soundfold predict``."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from soundfold.errors import InputError, printable
from soundfold.experiment.device import choose_device
from soundfold.inference.fold_models import run_folder
from soundfold.inference.novelty import Novelty, read_novelty
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
from soundfold.io.atomic import comparable_name, short_stem
from soundfold.io.audio import audio_files
from soundfold.io.console import Terminal, escape_bytes


def predict(args: Namespace) -> int:
    """Print the predictions of files and write timelines of long recordings.

    Unreadable files are reported and skipped. If a timeline cannot be written, the prediction is printed with a note.

    Args:
        args: arguments of ``soundfold predict``.

    Returns:
        The exit code: 1 if a file was skipped, or a timeline could not be written.

    Raises:
        InputError: the model, a folder or an option cannot be used.
    """
    predictor = Predictor.load(args.run, args.fold, choose_device(args.device, "--device"))
    predictor.hop_samples(args.hop)  # refuse an invalid hop once, not for every file
    predictor.novelty = _novelty(predictor, args)
    files = audio_files(args.files)
    err = Terminal(stderr=True, soft_wrap=True)
    for line in describe_models(predictor.models):
        err.print(line)
    if predictor.novelty is not None:
        novelty = predictor.novelty
        err.print(f"Unknown below {novelty.threshold:.4g} of {novelty.score}, {novelty.fitted}.")
    results: list[FileResult] = []
    exit_code = 0
    timeline_names: set[str] = set()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        for number, path in enumerate(files, 1):
            task = progress.add_task(f"{number}/{len(files)} {printable(path.name)}", total=None)
            result, timeline, error = _predict_file(predictor, path, args, timeline_names, progress, task)
            if error is not None:
                err.print(f"error: {error}")
                exit_code = 1
            shown = Path(escape_bytes(str(path)))
            results.append((shown, result))
            progress.remove_task(task)
            if args.format == "jsonl":
                print(prediction_as_json(shown, result, predictor.models, args.top, timeline), flush=True)
    if args.format == "table":
        print_predictions(results, args.top)
    elif args.format == "csv":
        text = predictions_as_csv(results, predictor.classes)
        print(printable(text, "\n") if sys.stdout.isatty() else text, end="")
    return exit_code


def _novelty(predictor: Predictor, args: Namespace) -> Novelty | None:
    """Return the score by which sounds are reported as unknown; None without ``--novelty`` and ``--threshold``."""
    if args.novelty is None and args.threshold is None:
        return None
    score = args.novelty or "softmax"
    if args.threshold is not None and score != "distance":
        return Novelty(score, args.threshold, "given")
    run = run_folder(args.run)
    if run is None:
        raise InputError(
            f"{args.run} is outside a run's folder, whose scored clips --novelty={score} requires. Name the run's "
            "folder, or set --threshold of softmax or energy."
        )
    return read_novelty(run, predictor.models, score, args.threshold)


def _predict_file(
    predictor: Predictor, path: Path, args: Namespace, timeline_names: set[str], progress: Progress, task: TaskID
) -> tuple[Prediction | str, list[Path], str | None]:
    """Predict a file; return the prediction or the error, the files of a long recording's timeline, and any error."""

    def advance(seconds: float, header_seconds: float) -> None:
        progress.update(task, completed=seconds, total=max(seconds, header_seconds))

    try:
        prediction = predictor.file(path, args.hop, sketch=True, progress=advance)
    except InputError as error:
        text = escape_bytes(str(error))
        return text, [], text
    if len(prediction.windows) == 1:
        return prediction, [], None
    name = _unused_name(short_stem(path.stem), timeline_names)
    try:
        timeline = write_timeline(prediction, predictor.band_centers, args.timelines, name)
    except InputError as error:
        # the prediction of a long recording may have taken hours
        notes = (*prediction.notes, "no timeline, see the error")
        return replace(prediction, notes=notes), [], escape_bytes(str(error))
    progress.console.print(escape_bytes(f"Timeline: {args.timelines / name}.csv, .png and .txt (Audacity)"))
    return prediction, timeline, None


def _unused_name(stem: str, used: set[str]) -> str:
    """Return the stem, numbered if a file of the same name in another folder used it."""
    name = next(name for name in _candidates(stem) if comparable_name(name) not in used)
    used.add(comparable_name(name))
    return name


def _candidates(stem: str) -> Iterator[str]:
    yield stem
    yield from (f"{stem}-{number}" for number in count(2))
