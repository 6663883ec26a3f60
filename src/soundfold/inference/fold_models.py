"""Which trained models a path means, and how far each one's confidence is to be scaled."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soundfold.errors import InputError
from soundfold.evaluation.metrics import fit_temperature
from soundfold.evaluation.results import load_fold_predictions, load_folds
from soundfold.experiment.model_bundle import ModelBundle

WEIGHTS = Path("checkpoints") / "weights.pt"


@dataclass(frozen=True)
class FoldModel:
    """A kept model to use.

    Attributes:
        fold: ``1``, ``2``, ... ``none`` for one trained on every clip, and ``?`` for a file on its own.
        bundle: the model.
        temperature: its logits are divided by it; None where nothing says what it should be, and the probabilities are
            then uncalibrated.
        why: how the temperature was found, or why there is none, in words.
    """

    fold: str
    bundle: ModelBundle
    temperature: float | None
    why: str


def read_models(path: Path, fold: str | None = None) -> list[FoldModel]:
    """The models that a run's folder or a kept model's file means.

    A folder means its finished folds, to be averaged; where it has none, the model trained on every clip. Each model's
    temperature is fitted on the test predictions of the run's other folds, so that it is honest for the clips of the
    model's own fold; a file has one where it still lies in its run's folder.

    Args:
        path: outputs/<name>-<id>, or a weights.pt.
        fold: of a folder, ``1``, ``2``, ... or ``none``; None takes all finished folds.

    Raises:
        InputError: there is no such model, or it cannot be read.
    """
    # of os.path: a name that is too long is no file, not an error
    if os.path.isfile(path):
        if fold is not None:
            raise InputError(f"{path} is one model; leave out --fold={fold}, or give the run's folder.")
        own = path.resolve()
        in_run = len(own.parents) > 2 and own.parent.name == WEIGHTS.parent.name and own.name == WEIGHTS.name
        if in_run and own.parents[1].name.startswith("fold"):
            return [_model(own.parents[2], own.parents[1].name.removeprefix("fold"), own)]
        return [FoldModel("?", ModelBundle.load(path), None, "the file lies in no run's folder")]
    if not os.path.isdir(path):
        raise InputError(
            f"There is no model at {path}. Give a run's folder, outputs/<name>-<id>, or a fold's {WEIGHTS}."
        )
    kept = {found.parents[1].name.removeprefix("fold"): found for found in path.glob(f"fold*/{WEIGHTS}")}
    there = {
        name: found
        for name, found in kept.items()
        if (name.isdigit() or name == "none") and (found.parents[1] / "result.json").is_file()
    }
    if not there:
        raise InputError(
            f"{path} holds no finished fold with kept weights. Train one (scripts/train.py prints its folder); a run "
            "with checkpoints.keep=none keeps none."
        )
    if fold is not None and fold not in there:
        raise InputError(f"{path} has no kept model of fold {fold}; it has {', '.join(sorted(there))}.")
    folds = [fold] if fold is not None else sorted((k for k in there if k != "none"), key=int) or ["none"]
    return [_model(path, k, there[k]) for k in folds]


def _model(run: Path, fold: str, weights: Path) -> FoldModel:
    kept = ModelBundle.load(weights)
    others = [r for r in load_folds(run) if str(r.fold) != fold and tuple(r.classes) == kept.classes]
    if any(r.leaky for r in others):
        return FoldModel(fold, kept, None, "the run's protocol leaks, so its predictions say nothing of certainty")
    if not others:
        return FoldModel(fold, kept, None, "the run has no other finished fold to fit a temperature on")
    read = [load_fold_predictions(run, r) for r in others]
    logits, targets = (np.concatenate([getattr(part, name) for part in read]) for name in ("logits", "targets"))
    names = ", ".join(str(r.fold) for r in others)
    why = f"fitted on the {len(targets)} test predictions of fold{'s' if len(others) > 1 else ''} {names}"
    return FoldModel(fold, kept, fit_temperature(logits, targets), why)
