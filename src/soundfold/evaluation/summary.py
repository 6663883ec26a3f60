"""The summary of a finished run, ``cv.json``, which the last of its processes writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from soundfold.evaluation.compare import RunResult, load_run
from soundfold.evaluation.results import FoldResult, fold_folders, load_folds
from soundfold.io.atomic import explain_write_errors, refresh, remove_partial_files
from soundfold.io.leases import lease


def finished_folds(folder: Path) -> list[FoldResult]:
    """Return the finished folds of a run, see `load_folds`, also those that other machines have just finished.

    A process that calls this after its result was renamed into place sees all results that were renamed before, also on
    NFS. So of processes that finish the folds of a run at the same time, at least one sees them all.
    """
    refresh(folder)
    for fold in fold_folders(folder).values():
        refresh(fold)
    return load_folds(folder)


def write_summary(folder: Path) -> RunResult:
    """Summarize a run in its ``cv.json``: means, standard deviations and the confidence interval.

    An incomplete run has no ``cv.json``, which other programs take for the score of a cross-validation. The same folds
    give the same bytes, whichever process writes them.

    Args:
        folder: the run's folder.

    Returns:
        The run, see `load_run`.

    Raises:
        InputError: no fold is finished, a fold is damaged, or the file cannot be written.
    """
    run = load_run(folder)
    if not run.total.is_complete:
        return run
    remedy = "Free some space, or copy the run to a folder that can be written."
    with explain_write_errors(folder, remedy), lease(folder / "cv.lock", "is summarizing this run"):
        remove_partial_files(folder.glob("cv.json.*"))
        replace(run.total, interval=run.interval).save(folder / "cv.json")
    return run
