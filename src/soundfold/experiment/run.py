"""A cross-validation made of folds: what is finished is reused, the rest trained, the whole summed up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from soundfold.data.leakage import audit, check_leakage
from soundfold.data.splits import make_split
from soundfold.errors import InputError, TrainingError
from soundfold.evaluation.results import FoldResult, load_folds
from soundfold.experiment import build, environment
from soundfold.experiment.fold import check_split_sizes, epoch_count
from soundfold.experiment.processes import run_fold
from soundfold.experiment.setup import RunContext, open_run
from soundfold.io.atomic import explain_write_errors, remove_partial_files
from soundfold.io.console import console
from soundfold.io.locks import exclusive_lock
from soundfold.validation import config_keys, is_wandb_trial, parse_fold

REMEDY = "Free some space, or give paths.outputs=DIRECTORY elsewhere; the same command goes on from what is whole."


class Reporter(Protocol):
    """Shows results: on the terminal, as a page, in W&B."""

    def print_folds(self, results: Sequence[FoldResult]) -> None:
        """Print finished folds of a run that is not complete."""

    def report_run(
        self,
        folder: Path,
        results: list[FoldResult],
        options: DictConfig,
        logger: DictConfig | None,
        *,
        show_table: bool,
    ) -> None:
        """Summarise a complete run, see `soundfold.report.reporter.RunReporter`."""


@config_keys("split", "model")
def cross_validate(
    cfg: DictConfig,
    reporter: Reporter,
    watch: Callable[[list[FoldResult]], None] | None = None,
    opened: Callable[[Path], None] | None = None,
) -> float | None:
    """Train and score the folds that ``cfg.fold`` names; sum them up once all are finished.

    Finished folds are reused and an interrupted one continues from its last checkpoint. Writes
    ``<outputs>/<name>-<id>/fold<k>/`` and, with the last fold, ``cv.json``.

    Args:
        cfg: the composed configuration.
        reporter: shows the results, see `soundfold.report.reporter.RunReporter`.
        watch: called after every fold with the results so far; what it raises ends the cross-validation.
        opened: is told the run's folder before anything is trained. Given by a sweep, which shows a cross-validation
            that its jobs share when all have ended: a job of one fold then prints that fold only.

    Returns:
        The mean objective of the folds that ran: what a search maximises; None where nothing was scored.

    Raises:
        InputError: the configuration or the data breaks a rule.
        TrainingError: a fold could not be trained; the others are.
    """
    run = open_run(cfg)
    wanted = parse_fold(cfg.fold)
    numbers = run.collection.table.fold_numbers
    folds: list[int | None] = [None] if wanted == "none" else list(numbers) if wanted == "all" else [int(wanted)]
    if wanted != "none" and len(numbers) < 2:
        raise InputError(
            f"The table of clips has fold {numbers[0]} only, and a score needs two or more, whose spread says how far "
            "it can be trusted. Number the clips' folds in the table, or train without a score: fold=none."
        )
    for fold in folds:  # refuse the last fold's fault before the first is trained
        split = make_split(run.collection.table, build.protocol(cfg), fold, cfg.seed)
        found = audit(run.collection.table, split, run.collection.waves.hashes, seen=run.seen)
        check_leakage(found, build.protocol(cfg), fold)
        epoch_count(cfg, len(split.train))
        check_split_sizes(cfg, split)
    with explain_write_errors(run.folder, REMEDY):
        run.folder.mkdir(parents=True, exist_ok=True)
    if opened is not None:
        opened(run.folder)
    console.print(f"{run.group}: {len(run.collection.table)} clips, {len(run.collection.table.classes)} classes")
    results: list[FoldResult] = []
    failed: dict[int | None, TrainingError] = {}
    try:
        for fold in folds:
            try:
                results.append(_settled(run, fold))
            except TrainingError as error:
                # the others may well be trained; a search, which watches, has no use for them
                if watch is not None or len(folds) == 1:
                    raise
                failed[fold] = error
                console.print(f"Fold {fold} failed: {error}", style="red")
                continue
            if watch is not None:
                watch(results)
        if failed:
            kept = f" Fold {', '.join(str(r.fold) for r in results)} is finished and kept." if results else ""
            raise TrainingError(
                f"{run.group} has no score, as {len(failed)} of {len(folds)} folds could not be trained. "
                f"{next(iter(failed.values()))}{kept}"
            )
    except Exception:
        if is_wandb_trial():
            from soundfold.experiment.wandb_runs import cv_run

            plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
            # else the sweep would not hear of it
            with cv_run(cfg.logger.wandb, run.folder, run.cv_id, plain, leaky=build.protocol(cfg).leaky):
                raise
        raise
    if wanted == "none":
        console.print(f"Trained on every clip, so there is no score. The model: {run.folder / 'foldnone'}")
        return None
    if cfg.debug:
        reporter.print_folds(results)
        console.print("debug: a run of two batches says nothing of accuracy, and is not stored as finished.")
    else:
        # of jobs that end together each finds all folds finished; each then writes the same, one after the other
        done = load_folds(run.folder)
        whole = len(done) == len(numbers)
        show_table = wanted == "all" or opened is None
        if whole:
            reporter.report_run(run.folder, done, cfg.report, cfg.logger, show_table=show_table)
        if not (whole and show_table):
            reporter.print_folds(results)
    console.print(f"Outputs: {run.folder}", soft_wrap=True)
    return float(np.mean([r.objective for r in results]))


def _settled(run: RunContext, fold: int | None) -> FoldResult:
    """The fold's result: kept, or trained now. One process at a time: another that wants it waits, and reuses it."""
    name = f"fold{fold or 'none'}"
    with (
        explain_write_errors(run.folder, REMEDY),
        exclusive_lock(run.folder / f"{name}.lock", f"is training {name} of this run"),
    ):
        remove_partial_files((run.folder / name).rglob("*"))
        return _finished(run, fold) or run_fold(run, fold)


def _finished(run: RunContext, fold: int | None) -> FoldResult | None:
    """The fold's result where it is finished and may be reused, with a warning where other code made it."""
    path = run.folder / f"fold{fold or 'none'}" / "result.json"
    if run.cfg.debug or run.cfg.rerun or not path.is_file():
        if run.cfg.rerun:
            # what sums up the results that are given up is given up with them
            for stale in (path, run.folder / "cv.json", run.folder / "report.html"):
                stale.unlink(missing_ok=True)
            # else a rerun cut short would be continued from what it was to replace
            for checkpoint in (path.parent / "checkpoints").glob("*"):
                checkpoint.unlink()
        return None
    result = FoldResult.load(path)
    changed = environment.differences(result.environment, environment.describe(torch.device("cpu")))
    console.print(f"Fold {fold or 'none'} is finished; its result is reused (rerun=true redoes it).")
    if changed:
        console.print(f"warning: it was made by other code: {'; '.join(changed)}.", style="yellow")
    return result
