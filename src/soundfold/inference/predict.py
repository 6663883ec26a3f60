"""What scripts/predict.py does: files predicted one after the other, a bad one told and passed over."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from soundfold.errors import InputError
from soundfold.experiment.device import choose_device
from soundfold.inference.output import Found, describe_models, prediction_as_json, predictions_as_csv, print_predictions
from soundfold.inference.predictor import Prediction, Predictor
from soundfold.inference.timeline import write_timeline
from soundfold.io.audio import audio_files


def predict(given: Namespace) -> int:
    """Print what the files sound like and write timelines; the exit code: 1 where a file could not be predicted.

    Args:
        given: arguments of scripts/predict.py.

    Raises:
        InputError: the model, a folder or an option cannot be used.
    """
    predictor = Predictor.load(given.run, given.fold, choose_device(given.device, "--device"))
    predictor.hop_samples(given.hop)  # refused once, not for every file
    files = audio_files(given.files)
    err = Console(stderr=True, markup=False, soft_wrap=True)
    for line in describe_models(predictor.models):
        err.print(line)
    found: list[Found] = []
    taken: set[str] = set()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        for number, path in enumerate(files, 1):
            task = progress.add_task(f"{number}/{len(files)} {path.name}", total=None)

            def told(seconds: float, claimed: float, task: TaskID = task) -> None:
                progress.update(task, completed=seconds, total=max(seconds, claimed))

            timeline: list[Path] = []
            one: Prediction | str
            try:
                one = predictor.file(path, given.hop, sketch=True, progress=told)
                if len(one.windows) > 1:
                    name = next(n for n in _names(path.stem) if n not in taken)
                    taken.add(name)
                    timeline = write_timeline(one, predictor.centres, given.timelines, name)
                    err.print(f"Timeline: {given.timelines / name}.csv, .png and .txt (Audacity)")
            except InputError as error:
                one = str(error)
                err.print(f"error: {error}")
            found.append((path, one))
            progress.remove_task(task)
            if given.format == "jsonl":
                print(prediction_as_json(path, one, predictor.models, given.top, timeline), flush=True)
    if given.format == "table":
        print_predictions(found, given.top)
    elif given.format == "csv":
        print(predictions_as_csv(found, predictor.classes), end="")
    return int(any(isinstance(one, str) for _, one in found))


def _names(stem: str) -> Iterator[str]:
    """Of files in several folders that are named alike."""
    yield stem
    yield from (f"{stem}-{number}" for number in count(2))
