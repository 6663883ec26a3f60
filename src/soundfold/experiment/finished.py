"""Folds that are finished: their results are reused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from soundfold.evaluation.results import FoldResult
from soundfold.experiment import environment
from soundfold.experiment.callbacks.checkpoints import can_resume
from soundfold.experiment.metrics import add_metrics
from soundfold.experiment.model_bundle import WEIGHTS
from soundfold.experiment.setup import RunContext
from soundfold.experiment.user_modules import read_modules, refuse_changed_modules
from soundfold.io.atomic import remove_partial_files
from soundfold.io.console import console
from soundfold.validation import count_processes


def find_result(run: RunContext, fold: int | None) -> FoldResult | None:
    """Return the result of a finished fold; otherwise remove what a training of it must not find, and return None."""
    folder = run.fold_folder(fold)
    remove_partial_files(folder.rglob("*"))
    if run.cfg.rerun:
        _discard(run, folder)
    check_modules(run, [fold])  # another process may have trained it
    path = folder / "result.json"
    if run.cfg.debug or not path.is_file():
        if count_processes(run.cfg) > 1:
            can_resume(folder / "checkpoints")  # deletes damaged ones before several processes read them
        return None
    result = FoldResult.load(path)
    if run.is_trial:
        return result
    console.print(f"Fold {fold or 'none'} is finished; its result is reused (rerun=true trains it again).")
    result = add_metrics(run.cfg, run.folder, result)
    if run.cfg.checkpoints.keep != "none" and not (folder / WEIGHTS).is_file():
        console.print(
            "warning: It has no weights.pt: it was trained with checkpoints.keep=none, or the file was removed. "
            "rerun=true trains it again and saves one.",
            style="yellow",
        )
    changed = environment.differences(result.environment, environment.describe(torch.device("cpu"), run.packages))
    if changed:
        console.print(f"warning: Its result was made with other code: {'; '.join(changed)}.", style="yellow")
    return result


def check_modules(run: RunContext, folds: Sequence[int | None]) -> None:
    """Refuse to reuse finished and interrupted folds that other code of the user's trained."""
    if run.cfg.debug or run.cfg.rerun:
        return
    for fold in folds:
        folder = run.fold_folder(fold)
        stored: dict[str, str] | None = {}
        if (path := folder / "result.json").is_file():
            stored = FoldResult.load(path).modules
        elif (folder / "checkpoints" / "last.ckpt").is_file():
            stored = read_modules(folder)
        refuse_changed_modules(stored or {}, run.modules, f"fold {fold or 'none'} of {run.group}")


def _discard(run: RunContext, folder: Path) -> None:
    """Delete a fold's result, the run's summary, and the checkpoints, which an interrupted rerun would resume from."""
    for path in (folder / "result.json", run.folder / "cv.json", run.folder / "report.html"):
        path.unlink(missing_ok=True)
    for path in (folder / "checkpoints").glob("*"):
        path.unlink()
