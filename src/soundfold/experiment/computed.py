"""How this machine computes a fold, see `soundfold.evaluation.computed`, and whether finished folds agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from soundfold.evaluation.computed import check_alike, resumed
from soundfold.evaluation.results import FoldResult
from soundfold.experiment.callbacks.checkpoints import read_computed
from soundfold.experiment.device import choose_precision, multiplies_bfloat16
from soundfold.experiment.setup import RunContext
from soundfold.features.augment_params import DRAWS
from soundfold.io.console import console


def new_values(cfg: DictConfig) -> dict[str, Any]:
    """Return the properties of a fold that is trained here from its start."""
    return {"precision": choose_precision(cfg), "draws": DRAWS}


def resumed_values(run: RunContext, fold: int | None) -> dict[str, Any]:
    """Return the properties of a fold that is trained here: those of its checkpoint if there is one.

    Raises:
        InputError: the fold cannot be resumed here.
    """
    current = new_values(run.cfg)
    stored = read_computed(run.fold_folder(fold) / "checkpoints" / "last.ckpt")
    return current if stored is None else resumed(f"Fold {fold or 'none'} of {run.group}", stored, current)


def print_resumed(run: RunContext, fold: int | None, values: dict[str, Any]) -> None:
    """Print a line if a resumed fold has another precision than a new one would have here."""
    if (precision := values["precision"]) == choose_precision(run.cfg):
        return
    is_slow = precision == "bf16-mixed" and not multiplies_bfloat16(run.cfg)
    console.print(
        f"Fold {fold or 'none'} was begun with trainer.precision={precision}, and goes on with it"
        f"{': slowly, because this hardware emulates bfloat16' if is_slow else ''}.",
        soft_wrap=True,
    )


def check_computed(run: RunContext, folds: Sequence[int | None]) -> None:
    """Refuse to train folds whose scores could not be summarized with those of the run's other finished folds.

    Raises:
        InputError: a fold of ``folds`` cannot be resumed here, or would be computed in another way than another fold.
    """
    if run.cfg.debug or folds == [None]:
        return
    computed: dict[int, dict[str, Any]] = {}
    for fold in run.collection.table.fold_numbers:
        path = run.fold_folder(fold) / "result.json"
        if run.cfg.rerun and fold in folds:
            computed[fold] = new_values(run.cfg)
        elif path.is_file():
            computed[fold] = FoldResult.load(path).computed
        elif fold in folds:
            computed[fold] = resumed_values(run, fold)
    check_alike(run.group, computed)
