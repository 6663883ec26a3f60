"""Find the trained models of a path, and fit their temperatures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soundfold.errors import InputError
from soundfold.evaluation.metrics import fit_temperature
from soundfold.evaluation.predictions import load_fold_predictions
from soundfold.evaluation.results import FOLD_FOLDER, fold_folders, load_folds
from soundfold.experiment.model_bundle import WEIGHTS, ModelBundle
from soundfold.inference.model_sources import local_model


@dataclass(frozen=True)
class FoldModel:
    """A trained model and its calibration.

    Attributes:
        fold: ``1``, ``2``, ...; ``none`` for a model trained on all clips; ``?`` for a file outside a run's folder.
        bundle: the model.
        temperature: divides the logits; None if none can be fitted, and the probabilities are uncalibrated.
        calibration: how the temperature was fitted, or why there is none.
    """

    fold: str
    bundle: ModelBundle
    temperature: float | None
    calibration: str


def read_models(path: Path, fold: str | None = None) -> list[FoldModel]:
    """Read the models of a run's folder or of a single weights file.

    A folder means the models of its finished folds or, if it has none, the model trained on all clips. A model's
    temperature is fitted on the test predictions of the run's other folds, so that it is unbiased for the clips of the
    model's own fold. A file in its run's folder gets a temperature, too.

    Args:
        path: outputs/<name>-<id>, a weights.pt, an archive, or a name on the Hub, see `local_model`.
        fold: of a folder, ``1``, ``2``, ... or ``none``; None selects all finished folds.

    Raises:
        InputError: the model does not exist or cannot be read.
    """
    with local_model(path) as local:
        return _read_local(local, fold)


def _read_local(path: Path, fold: str | None) -> list[FoldModel]:
    # `Path.is_file` raises an OSError for a name that is too long
    if os.path.isfile(path):
        if fold is not None:
            raise InputError(f"{path} is a single model. Omit --fold={fold}, or name the run's folder.")
        return [_read_file(path)]
    if not os.path.isdir(path):
        raise InputError(
            f"There is no model at {path}. Name a run's folder, outputs/<name>-<id>, or a fold's {WEIGHTS}."
        )
    weights = _finished_weights(path)
    if not weights:
        raise InputError(
            f"{path} has no finished fold with saved weights. Train one (`soundfold train` prints its folder); a run "
            "with checkpoints.keep=none saves none."
        )
    if fold is not None and fold not in weights:
        raise InputError(f"{path} has no saved model of fold {fold}; it has {', '.join(sorted(weights))}.")
    folds = [fold] if fold is not None else [name for name in weights if name != "none"] or ["none"]
    return [_read_fold(path, name, weights[name]) for name in folds]


def run_folder(path: Path) -> Path | None:
    """Return the run's folder of a model: the path itself, or that of a weights.pt in its place; None outside a run."""
    if path.is_dir():
        return path
    resolved = path.resolve()
    in_checkpoints = len(resolved.parents) > 2 and (resolved.parent.name, resolved.name) == WEIGHTS.parts
    return resolved.parents[2] if in_checkpoints and FOLD_FOLDER.fullmatch(resolved.parents[1].name) else None


def _read_file(path: Path) -> FoldModel:
    resolved = path.resolve()
    if (run := run_folder(path)) is not None:
        return _read_fold(run, resolved.parents[1].name.removeprefix("fold"), resolved)
    return FoldModel("?", ModelBundle.load(path), None, "the file is outside a run's folder")


def _finished_weights(run: Path) -> dict[str, Path]:
    """Return the weights file of each finished fold, by the fold's name."""
    return {
        name: folder / WEIGHTS
        for name, folder in fold_folders(run).items()
        if (folder / WEIGHTS).is_file() and (folder / "result.json").is_file()
    }


def _read_fold(run: Path, fold: str, weights: Path) -> FoldModel:
    bundle = ModelBundle.load(weights)
    others = [r for r in load_folds(run) if str(r.fold) != fold and tuple(r.classes) == bundle.classes]
    if any(r.leaky for r in others):
        return FoldModel(
            fold, bundle, None, "the run's split leaks, so its test predictions cannot calibrate the model"
        )
    if not others:
        return FoldModel(fold, bundle, None, "the run has no other finished fold to fit a temperature on")
    predictions = [load_fold_predictions(run, r) for r in others]
    logits = np.concatenate([p.logits for p in predictions])
    targets = np.concatenate([p.targets for p in predictions])
    names = ", ".join(str(r.fold) for r in others)
    calibration = f"fitted on the {len(targets)} test predictions of fold{'s' if len(others) > 1 else ''} {names}"
    return FoldModel(fold, bundle, fit_temperature(logits, targets), calibration)
