"""Cross-validation: reuse finished folds, train missing ones, summarize the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from omegaconf import DictConfig

from soundfold.errors import InputError, TrainingError
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.results import FoldResult
from soundfold.evaluation.summary import finished_folds, write_summary
from soundfold.experiment.callbacks.progress import duration
from soundfold.experiment.computed import check_computed
from soundfold.experiment.finished import check_modules, find_result
from soundfold.experiment.fold_checks import check_folds
from soundfold.experiment.loggers import log_cv
from soundfold.experiment.metrics import flip_objective
from soundfold.experiment.processes import run_fold
from soundfold.experiment.ranks import Ranks, join_ranks
from soundfold.experiment.setup import RunContext, open_run
from soundfold.experiment.trainer import fold_name
from soundfold.io.atomic import explain_write_errors
from soundfold.io.console import console
from soundfold.io.locks import exclusive_lock
from soundfold.validation import is_wandb_trial, wandb_options

REMEDY = "Free some space, or set paths.outputs=DIRECTORY. The same command resumes the run."


class Reporter(Protocol):
    """Shows results: in the terminal, as a page, in W&B."""

    def print_folds(self, name: str, results: Sequence[FoldResult]) -> None:
        """Print a row per fold."""

    def report_run(
        self,
        folder: Path,
        run: RunResult,
        options: DictConfig,
        logger: DictConfig | None,
        *,
        show_table: bool,
        once: bool = False,
    ) -> None:
        """Show the finished folds of a run, see `soundfold.report.reporter.RunReporter`."""

    def write_cards(self, folder: Path) -> None:
        """Write a model card beside each model of a run."""


def cross_validate(
    cfg: DictConfig,
    reporter: Reporter,
    watch: Callable[[list[FoldResult]], None] | None = None,
    record_folder: Callable[[Path], None] | None = None,
) -> float | None:
    """Train and score the folds of ``cfg.fold``, and report all finished folds of the run.

    A trial of a search is only validated: nothing is scored, summarized or printed.

    Finished folds are reused, and an interrupted one resumes from its last checkpoint. Writes
    ``<outputs>/<name>-<id>/fold<k>/`` and, after the last fold, ``cv.json``.

    Args:
        cfg: the composed configuration.
        reporter: shows the results, see `soundfold.report.reporter.RunReporter`.
        watch: called after every fold with the results so far. An exception from it ends the cross-validation.
        record_folder: called with the run's folder before training. Passed by a job of a sweep, which leaves the table
            of the entire run to the sweep if it trains a single fold or has validation folds to compare settings on.

    Returns:
        The mean objective of the folds in ``cfg.fold``, which a search maximizes; None for ``fold=none``.

    Raises:
        InputError: the configuration or the data is invalid.
        TrainingError: a fold could not be trained. The other folds are trained first.
    """
    if cfg.fold == "each":
        raise InputError(
            "fold=each makes a job of every fold: `soundfold train -m fold=each` does, on the command line and with "
            "Hydra's own sweeper. Set fold=all, which trains every fold here."
        )
    with join_ranks(cfg) as ranks:
        run, folds = ranks.agree(partial(_open, cfg))
        if record_folder is not None and ranks.is_first:
            record_folder(run.folder)
        show_scores = record_folder is None or cfg.split.protocol != "nested"
        with _open_trial(run) as watch_trial:
            results = _run_folds(run, folds, ranks, watch or watch_trial, show_scores=show_scores)
        show_table = cfg.fold == "all" or record_folder is None
        return ranks.share(lambda: _finish(run, results, reporter, show_table=show_table, show_scores=show_scores))


def _open(cfg: DictConfig) -> tuple[RunContext, list[int | None]]:
    """Return the run and the folds to train, after all checks, and with a folder."""
    run = open_run(cfg)
    folds = select_folds(run)
    for check in (check_folds, check_modules, check_computed):
        check(run, folds)
    with explain_write_errors(run.folder, REMEDY):
        run.folder.mkdir(parents=True, exist_ok=True)
    if not run.is_trial:
        console.print(f"{run.group}: {len(run.collection.table)} clips, {len(run.collection.table.classes)} classes")
    return run, folds


def _finish(
    run: RunContext, results: list[FoldResult], reporter: Reporter, *, show_table: bool, show_scores: bool
) -> float | None:
    """Write the models' cards, report the run, print where its files are, and return its objective."""
    if not (run.is_trial or run.cfg.debug):
        reporter.write_cards(run.folder)
    if results[0].fold is None:
        console.print(f"Trained on every clip, so there is no score. Model: {run.fold_folder(None)}", soft_wrap=True)
        _print_upload(run)
        return None
    objective = float(np.mean([result.objective for result in results]))
    if run.is_trial:
        _print_trial(run, objective)
        return objective
    _report(run, results, reporter, show_table=show_table, show_scores=show_scores)
    console.print(f"Outputs: {run.folder}", soft_wrap=True)
    _print_upload(run)
    return objective


def select_folds(run: RunContext) -> list[int | None]:
    """Return the numbers of the folds of ``cfg.fold``; None is the model trained on every clip.

    Raises:
        InputError: the collection has one fold only.
    """
    fold, numbers = run.cfg.fold, run.collection.table.fold_numbers
    if fold == "none":
        return [None]
    if len(numbers) < 2:
        raise InputError(
            f"The table of clips has fold {numbers[0]} only, but cross-validation requires at least two. Assign the "
            "clips to folds in the table, or train without a score: fold=none."
        )
    return list(numbers) if fold == "all" else [int(fold)]


def _run_folds(
    run: RunContext,
    folds: list[int | None],
    ranks: Ranks,
    watch: Callable[[list[FoldResult]], None] | None,
    *,
    show_scores: bool,
) -> list[FoldResult]:
    """Return the results of the folds; raise after the last if one could not be trained."""
    results: list[FoldResult] = []
    errors: list[TrainingError] = []
    for fold in folds:
        try:
            results.append(_reuse_or_train(run, fold, ranks, show_scores=show_scores))
        except TrainingError as error:
            # a search has no use for the other folds of a failed trial, and other ranks may wait within this fold
            if watch is not None or len(folds) == 1 or ranks.group is not None:
                raise
            errors.append(error)
            console.print(f"Fold {fold} failed: {error}", style="red")
            continue
        if watch is not None:
            watch(results)
    if errors:
        finished = f" Finished: fold {', '.join(str(result.fold) for result in results)}." if results else ""
        raise TrainingError(
            f"{run.group} has no score, because {len(errors)} of {len(folds)} folds could not be trained. "
            f"{errors[0]}{finished}"
        )
    return results


def _reuse_or_train(run: RunContext, fold: int | None, ranks: Ranks, *, show_scores: bool) -> FoldResult:
    """Return the fold's result. If another process is training it, wait for it and reuse its result."""
    path = run.folder / f"{run.fold_folder(fold).name}.lock"
    with (
        explain_write_errors(run.folder, REMEDY),
        exclusive_lock(path, f"is training {path.stem} of this run") if ranks.is_first else nullcontext(),
    ):
        if (finished := ranks.share(partial(find_result, run, fold))) is not None:
            return finished
        result = run_fold(run, fold)
        if not run.is_trial:
            _print_result(run, result, show_scores=show_scores)
        return result


def _print_result(run: RunContext, result: FoldResult, *, show_scores: bool) -> None:
    """Print a line when a fold ends."""
    name, monitor = fold_name(run, result.fold), run.cfg.selection.monitor
    scores = []
    if result.chosen_epoch is not None:
        scores.append(f"best epoch {result.chosen_epoch}")
    if result.protocol == "nested" and result.objective is not None and monitor != "val/accuracy":
        scores.append(f"{monitor} {flip_objective(run.cfg, result.objective):.4g}")
    if result.val_accuracy is not None:
        scores.append(f"validation accuracy {100 * result.val_accuracy:.2f} %")
    if result.accuracy is not None and show_scores:
        scores.append(f"accuracy {100 * result.accuracy:.2f} %{' LEAKY' if result.leaky else ''}")
    end = f"epoch {result.epochs}, {result.steps} steps, {duration(result.seconds)}"
    console.print(f"{name.capitalize()}: {', '.join([*scores, end])}.", highlight=False, soft_wrap=True)


def _open_trial(run: RunContext) -> AbstractContextManager[Callable[[list[FoldResult]], None] | None]:
    """Open the W&B run of a trial of a W&B sweep for the whole cross-validation; None outside of W&B's agent."""
    if not is_wandb_trial():
        return nullcontext()
    from soundfold.experiment.wandb_runs import open_trial

    return open_trial(run)


def _print_trial(run: RunContext, objective: float) -> None:
    """Print the objective of a trial of a W&B sweep; a search prints its trials itself."""
    if is_wandb_trial():
        value = f"{run.cfg.selection.monitor} {flip_objective(run.cfg, objective):.4g}"
        console.print(f"{run.group}: {value} on validation folds.", soft_wrap=True)


def _print_upload(run: RunContext) -> None:
    """Print where W&B shows the run, or how it gets there."""
    if (options := wandb_options(run.cfg.logger)) is not None:
        from soundfold.experiment.wandb_runs import describe_upload

        if line := describe_upload(options, run.folder):
            console.print(line, soft_wrap=True)


def _report(
    run: RunContext, results: list[FoldResult], reporter: Reporter, *, show_table: bool, show_scores: bool
) -> None:
    """Report the finished folds of the run; a job of a sweep only prints its own unless the run is complete."""
    cfg = run.cfg
    if cfg.debug:
        reporter.print_folds(run.group, results)
        console.print("debug: accuracy after two batches means nothing, and no fold is stored as finished.")
        return
    finished = finished_folds(run.folder)
    if finished and (show_table or len(finished) == len(run.collection.table.fold_numbers)):
        summary = write_summary(run.folder)
        if summary.total.is_complete:
            log_cv(run, summary)
        tables = show_table and show_scores
        reporter.report_run(run.folder, summary, cfg.report, cfg.logger, show_table=tables, once=not show_table)
    if show_scores and not (finished and show_table):
        reporter.print_folds(run.group, results)
