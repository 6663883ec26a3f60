"""Lay out a model as a folder or a zip archive that can be given away: its card, results and weights."""

from __future__ import annotations

import shutil
import zipfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from soundfold.errors import InputError, printable
from soundfold.evaluation.results import fold_folders
from soundfold.experiment.model_bundle import WEIGHTS
from soundfold.inference.fold_models import read_models
from soundfold.io.atomic import atomic_file, atomic_folder
from soundfold.report.model_card import CardSource, loading_text, model_card

# of every fold, since a model's temperature is fitted on the predictions of the other folds
FILES = ("config.yaml", "result.json", "predictions.csv")


def write_shared(args: Namespace) -> None:
    """Write the folder or the archive of ``soundfold export --format=hub|zip``, and print how to publish and load it.

    Raises:
        InputError: see `write_hub_folder` and `write_zip`.
    """
    if args.format == "zip":
        path = args.out or args.run / f"{args.run.resolve().name}.zip"
        write_zip(args.run, path, args.fold)
        print(
            f"{printable(path)}: {path.stat().st_size / 1e6:.1f} MB. Load it with soundfold predict {printable(path)}"
        )
    else:
        path = args.out or args.run / "hub"
        write_hub_folder(args.run, path, args.fold)
        print(
            f"{printable(path)}: read README.md, then publish with: hf upload OWNER/NAME {printable(path)}\n"
            "Load it with: soundfold predict hf:OWNER/NAME recording.wav"
        )


def write_hub_folder(run: Path, folder: Path, fold: str | None = None) -> None:
    """Write a folder in the layout of a repository of the Hugging Face Hub, completely or not at all.

    ``README.md`` is the model card. The other files are those of a run's folder, so `Predictor.load` reads the folder,
    and fits the same temperatures.

    Args:
        run: folder of a run.
        folder: to be written; does not exist, or is empty.
        fold: include only the weights of this fold, or of ``none``; None includes all finished folds.

    Raises:
        InputError: the run has no such model, or the folder is not empty or cannot be written.
    """
    names, card = _card(run, fold, "hf:OWNER/NAME")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty. Remove it, or set --out=DIRECTORY.")
    try:
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder.absolute()) as part:
            (part / "README.md").write_text(card, encoding="utf-8")
            for path in _files(run, names):
                (part / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(run / path, part / path)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}. Set --out=DIRECTORY.") from error


def write_zip(run: Path, path: Path, fold: str | None = None) -> None:
    """Write the same files as `write_hub_folder` as one zip archive, atomically.

    Raises:
        InputError: the run has no such model, or the file cannot be written.
    """
    names, card = _card(run, fold, path.name)
    try:
        with atomic_file(path) as stream, zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("README.md", card)
            for name in _files(run, names):
                archive.write(run / name, name)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}. Set --out=FILE.") from error


def _card(run: Path, fold: str | None, model: str) -> tuple[list[str], str]:
    if not run.is_dir():
        raise InputError(f"{run} is not the folder of a run. Name outputs/<name>-<id>; --fold=K selects one model.")
    names = [bundle.fold for bundle in read_models(run, fold)]
    return names, model_card(CardSource.load(run), names, loading_text(model))


def _files(run: Path, names: Sequence[str]) -> list[str]:
    paths = ["cv.json", *(f"{folder.name}/{file}" for folder in fold_folders(run).values() for file in FILES)]
    paths += [f"fold{name}/{WEIGHTS.as_posix()}" for name in names]
    return [path for path in paths if (run / path).is_file()]
