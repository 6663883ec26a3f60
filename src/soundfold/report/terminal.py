"""Terminal tables: folds of a run, jobs of a sweep, several runs, published results."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence, Set
from math import inf
from pathlib import Path
from statistics import fmean

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from soundfold.errors import InputError, printable
from soundfold.evaluation.compare import RunResult, describe_seeds, load_run
from soundfold.evaluation.cv_result import CVResult, summarise
from soundfold.evaluation.published import published_leaderboard
from soundfold.evaluation.results import FoldResult, load_folds
from soundfold.evaluation.statistics import SeedSummary
from soundfold.experiment.sweep import Job
from soundfold.experiment.sweep_folds import merge_folds
from soundfold.io.console import Terminal
from soundfold.report.scores import mean_and_sd, metric_names, score_label, score_text


def print_folds(name: str, results: Sequence[FoldResult], total: CVResult | None = None) -> None:
    """Print a row per fold of the run ``name`` and, given ``total``, the mean ± standard deviation."""
    first, clips = results[0], sum(r.n for r in results)
    part = f"{len(results)} of {len(first.folds)} folds, " if len(results) < len(first.folds) else ""
    title = f"{name}: {part}split={first.protocol}, {clips} clips scored once"
    names = ["accuracy", *metric_names(results)]
    columns = ["fold", "clips", *map(score_label, names), "loss", "seconds"]
    if first.leaky:
        # random_clips draws a test set per repeat, so a clip may be scored several times
        title = f"{name}: {part}LEAKY split={first.protocol}, {clips} clips scored"
        columns[0], columns[2] = "repeat", "accuracy % LEAKY"
    is_nested = first.protocol == "nested"
    if is_nested:
        columns[2:2] = ["validation %", "best epoch"]
    table = _table(title, columns, right=columns)
    for r in sorted(results, key=lambda r: r.fold or 0):
        if r.accuracy is not None:
            values = {"accuracy": r.accuracy, **r.metrics}
            scores = [score_text(name, values.get(name)) for name in names]
            validation = "" if r.val_accuracy is None else f"{100 * r.val_accuracy:.2f}"
            chosen = (validation, str(r.chosen_epoch or "")) if is_nested else ()
            table.add_row(str(r.fold), str(r.n), *chosen, *scores, score_text("loss", r.loss), f"{r.seconds:.1f}")
    if total and total.accuracy_sd is not None:
        table.add_section()
        means = [mean_and_sd(total, name) for name in (*names, "loss")]
        table.add_row("mean ± sd", str(total.n), *(("", "") if is_nested else ()), *means, f"{total.seconds:.1f}")
    _print(table)


def print_interval(run: RunResult) -> None:
    """Print the pooled accuracy with its interval, and the overlap with training."""
    low, high = (100 * end for end in run.interval)
    part = f"{run.total.part}: " if run.total.part else ""
    _print(
        f"{part}{'LEAKY, so too high: ' if run.total.leaky else ''}Pooled accuracy {100 * run.correct.mean():.2f} % "
        f"over {len(run.correct)} clips; 95 % interval {low:.2f} to {high:.2f} % "
        f"(bootstrap over {run.resampled()}). Shared with training: {run.leaks()}."
    )


def print_run(results: Sequence[FoldResult], run: RunResult) -> None:
    """Print a run: its finished folds and interval."""
    print_folds(run.name, results, run.total)
    print_interval(run)


def print_jobs(jobs: Sequence[Job], args: Sequence[str], settings: Sequence[range] = ()) -> None:
    """Print a row per job of a sweep, the errors of failed jobs, and the runs that the jobs belong to.

    The jobs of a setting whose folds are jobs have one row.

    Jobs of ``split=nested`` are sorted by their validation figure. If their settings differ, no test figure is shown;
    under ``split=benchmark`` a note says that such a comparison on scored clips is optimistic.

    Args:
        jobs: see `soundfold.experiment.sweep.read_jobs`.
        args: of the command that started the sweep.
        settings: numbers of the jobs of each setting, see `soundfold.experiment.sweep.Sweep`.
    """
    started, jobs = jobs, merge_folds(jobs, settings)
    results = {job.run: _load_folds(job.run) for job in jobs}
    # the protocol of a damaged record is unknown
    is_nested = {job.protocol for job in jobs} - {""} == {"nested"}
    shared = _common([job.overrides for job in started]) | _common([job.overrides for job in jobs])
    shows_scores = not is_nested or not _compares_settings(jobs)
    columns = {"accuracy %": _job_score} if shows_scores else {}
    title = f"Sweep of {len(started)} jobs"
    if len(jobs) < len(started):
        title = f"Sweep of {len(jobs)} setting{'s' if len(jobs) > 1 else ''}, {len(started)} jobs"
    if is_nested:
        columns = {next(job.monitor for job in jobs if job.monitor): _job_validation, **columns}
        title += ", best validation first"
        jobs = sorted(jobs, key=lambda job: _job_objective(job, results[job.run]), reverse=True)
    table = _table(title, ["job", "overrides", *columns, "run"], ["job", *columns])
    for job in jobs:
        # Text: overrides may contain brackets, which rich would take for markup
        scores = [text_of(job, results[job.run]) for text_of in columns.values()]
        cells = (_job_numbers(job, settings), _own_overrides(job, shared), *scores, _relative(job.run))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    _print(table)
    if _compares_settings([job for job in jobs if job.protocol == "benchmark"]):
        others = [arg for arg in args if not arg.startswith("split=")]
        command = shlex.join(["soundfold", "train", *others, "split=nested"])
        _print(
            "Settings that are compared on scored clips look better than they are: the best is partly best by chance. "
            f"Compare them on validation clips, then score the best by split=benchmark: {command}"
        )
    _print_job_errors(started, shared)
    if shows_scores:
        # the scores of several settings are in the table
        of_folds = started if len(jobs) == 1 else jobs
        for run in dict.fromkeys(job.run for job in of_folds if isinstance(job.fold, int) and results.get(job.run)):
            _print_single_folds(run, results[run])


def _job_numbers(job: Job, settings: Sequence[range]) -> str:
    """Return the number of a job, or the first and the last number of jobs that are folds of a setting."""
    numbers = next((numbers for numbers in settings if job.number in numbers), [job.number])
    return f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else str(job.number)


def _common(overrides: Sequence[Sequence[str]]) -> set[str]:
    return set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()


def _own_overrides(job: Job, shared: Set[str]) -> str:
    return " ".join(override for override in job.overrides if override not in shared)


def _print_job_errors(jobs: Sequence[Job], shared: Set[str]) -> None:
    for job in jobs:
        if job.status != "finished":
            error = job.error or "it is still running, or was killed."
            trace = f" Traceback: {_relative(job.traceback)}" if job.traceback else ""
            message = f"job {job.number} ({_own_overrides(job, shared)}): {error}{trace}"
            print(f"error: {printable(message)}", file=sys.stderr)


def _compares_settings(jobs: Sequence[Job]) -> bool:
    """Return whether jobs differ in more than what is trained or repeated: fold, seed, or a whole experiment."""
    overrides = [set(job.overrides) for job in jobs]
    if not overrides:
        return False
    varied = overrides[0].union(*overrides) - overrides[0].intersection(*overrides)
    return bool({override.split("=")[0].lstrip("+~") for override in varied} - {"fold", "seed", "experiment"})


def _load_folds(run: str | None) -> list[FoldResult]:
    """Return a run's results; print the error and return none if they cannot be read, so that other jobs are shown."""
    try:
        return load_folds(Path(run)) if run else []
    except InputError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return []


def _job_objective(job: Job, results: Sequence[FoldResult]) -> float:
    """Return the mean objective of a job's folds, -inf if it has none."""
    if job.status != "finished":
        return -inf
    folds = [r.objective for r in results if job.fold in ("all", r.fold) and r.objective is not None]
    return fmean(folds) if folds else -inf


def _job_validation(job: Job, results: Sequence[FoldResult]) -> str:
    """Return the validation figure of a job of ``split=nested``: the mean over its folds of ``selection.monitor``."""
    objective = _job_objective(job, results)
    return _job_score(job, results) if objective == -inf else f"{-objective if job.mode == 'min' else objective:.4g}"


def _job_score(job: Job, results: Sequence[FoldResult]) -> str:
    """Return the accuracy of a job's fold, or the mean over folds of a job that ran them all."""
    if job.status != "finished":
        status = "unfinished" if job.status == "running" else job.status
        return (
            f"{status} ({len(results)} of {len(results[0].folds)} folds)" if job.fold == "all" and results else status
        )
    if job.fold == "all" and results:
        return accuracy_text(summarise(results))
    scores = [100 * r.accuracy for r in results if r.fold == job.fold and r.accuracy is not None]
    return f"{scores[0]:.2f}{' LEAKY' if results[0].leaky else ''}" if scores else "no score"


def _print_single_folds(run: str | None, results: list[FoldResult]) -> None:
    """Print a run whose folds were separate jobs of the sweep."""
    missing = sorted(set(results[0].folds) - {r.fold for r in results})
    if missing:
        print(f"{printable(_relative(run))}: no mean, because fold(s) {', '.join(map(str, missing))} are missing.")
    elif run is not None:
        try:
            print_run(results, load_run(Path(run)))
        except InputError as error:
            print(f"error: {printable(error)}", file=sys.stderr)


def print_runs(runs: Sequence[RunResult], groups: Sequence[tuple[list[RunResult], SeedSummary]]) -> None:
    """Print a row per run, then a line per group of runs that differ in the seed only."""
    columns = ["run", "protocol", "training clips", "scored clips", "accuracy %", "95 % interval"]
    table = _table("Runs", [*columns, "shared with training"], right=columns[3:])
    for run in runs:
        low, high = (100 * end for end in run.interval)
        scores = str(run.total.n), accuracy_text(run.total), f"{low:.2f} to {high:.2f}"
        table.add_row(printable(run.name), run.total.protocol, run.trained_on(), *scores, run.leaks())
    _print(table)
    for group, summary in groups:
        _print(describe_seeds(group, summary))


def print_published(runs: Sequence[RunResult]) -> None:
    """Print runs among published five-fold accuracies, see `published_leaderboard`."""
    rows = published_leaderboard(runs)
    if not rows:
        return
    collection = runs[0].collection.upper().replace("ESC", "ESC-")
    table = _table(f"Published results on {collection}", ["accuracy %", "system", "protocol", "source"], ["accuracy %"])
    for row in rows:
        table.add_row(f"{row.accuracy:.2f}", row.name, row.protocol, row.source, style="bold" if row.own else None)
    _print(table)


def accuracy_text(total: CVResult) -> str:
    """Return mean ± standard deviation over folds in %; marked if the protocol leaks or folds are missing."""
    part = f" ({total.part})" if total.part else ""
    return f"{mean_and_sd(total, 'accuracy')}{part}{' LEAKY' if total.leaky else ''}"


def _table(title: str, columns: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return table


def _print(text: RenderableType) -> None:
    Terminal().print(text, highlight=False)


def _relative(path: str | None) -> str:
    """Return a path relative to the working directory if it is below it."""
    return "" if path is None else path.removeprefix(f"{Path.cwd()}{os.sep}")
