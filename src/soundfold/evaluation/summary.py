"""The summary of a finished run, ``cv.json``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from soundfold.evaluation.compare import RunResult, load_run
from soundfold.io.atomic import explain_write_errors, remove_partial_files
from soundfold.io.locks import exclusive_lock


def write_summary(folder: Path) -> RunResult:
    """Summarize a run in its ``cv.json``: means, standard deviations and the confidence interval.

    An incomplete run has no ``cv.json``, which other programs take for the score of a cross-validation.

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
    with explain_write_errors(folder, remedy), exclusive_lock(folder / "cv.lock", "is summarizing this run"):
        remove_partial_files(folder.glob("cv.json.*"))
        replace(run.total, interval=run.interval).save(folder / "cv.json")
    return run
