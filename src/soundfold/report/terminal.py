"""Tables on the terminal: the folds of a run, jobs of a sweep, runs beside each other, published figures."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from soundfold.errors import InputError
from soundfold.evaluation.compare import RunResult, describe_seeds, load_run
from soundfold.evaluation.published import published_leaderboard
from soundfold.evaluation.results import CVResult, FoldResult, load_folds, summarise
from soundfold.evaluation.statistics import SeedSummary
from soundfold.experiment.sweep import Job


def print_folds(results: Sequence[FoldResult], total: CVResult | None = None) -> None:
    """Print a row per fold and, given the sum of all folds, mean ± standard deviation."""
    first = results[0]
    mark = " LEAKY" if first.leaky else ""
    title = f"{first.cv_id}:{mark} split={first.protocol}, {sum(r.n for r in results)} clips scored"
    table = Table(title=title if first.leaky else f"{title} once")
    for name in ("repeat" if first.leaky else "fold", "clips", f"accuracy %{mark}", "macro F1 %", "loss", "seconds"):
        table.add_column(name, justify="right")
    for r in sorted(results, key=lambda r: r.fold or 0):
        if r.accuracy is not None and r.f1 is not None:
            row = [str(r.fold), str(r.n), f"{100 * r.accuracy:.2f}", f"{100 * r.f1:.2f}"]
            table.add_row(*row, f"{r.loss:.4f}", f"{r.seconds:.1f}")
    if total:
        table.add_section()
        table.add_row(
            "mean ± sd",
            str(total.n),
            f"{100 * total.accuracy:.2f} ± {100 * total.accuracy_sd:.2f}",
            f"{100 * total.f1:.2f} ± {100 * total.f1_sd:.2f}",
            f"{total.loss:.4f} ± {total.loss_sd:.4f}",
            f"{total.seconds:.1f}",
        )
    Console(markup=False).print(table)


def print_interval(run: RunResult) -> None:
    """Print how far the score of all clips can be trusted."""
    low, high = (100 * end for end in run.interval)
    sources = len(set(run.sources))
    mark = "LEAKY, and so too high: " if run.total.leaky else ""
    text = (
        f"{mark}{100 * run.correct.mean():.2f} % of {len(run.correct)} clips; 95 % interval {low:.2f} to {high:.2f} %,"
    )
    Console(markup=False).print(
        f"{text} resampling {sources} sources. Shared with training: {run.leaks()}.", highlight=False
    )


def print_run(results: Sequence[FoldResult], run: RunResult) -> None:
    """Print a whole cross-validation: its folds, how far its score can be trusted, its place among published ones."""
    print_folds(results, run.total)
    print_interval(run)
    print_published([run])


def print_jobs(jobs: Sequence[Job]) -> None:
    """Print a row per job of a sweep, what failed and why, and each cross-validation that jobs of one fold made up."""
    results = {job.run: _readable_folds(job.run) for job in jobs}
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    words = {job.number: " ".join(word for word in job.overrides if word not in shared) for job in jobs}
    table = Table(title=f"Jobs of the sweep: {len(jobs)}")
    for name in ("job", "overrides", "accuracy %", "run"):
        table.add_column(name, justify="right" if name in ("job", "accuracy %") else "left", overflow="fold")
    for job in jobs:
        # as they are: overrides may hold brackets, which would be taken for markup
        cells = (str(job.number), words[job.number], _job_score(job, results[job.run]), _short(job.run))
        table.add_row(*map(Text, cells))
    Console(markup=False).print(table)
    for job in (job for job in jobs if job.status != "finished"):
        text = f"error: job {job.number} ({words[job.number]}): {job.error or 'it has not ended, or was killed.'}"
        trace = f" Traceback: {_short(job.traceback)}" if job.traceback else ""
        print(f"{text}{trace}", file=sys.stderr)
    for run in dict.fromkeys(job.run for job in jobs if isinstance(job.fold, int) and results[job.run]):
        missing = sorted(set(results[run][0].folds) - {r.fold for r in results[run]})
        if missing:
            print(f"{_short(run)}: fold(s) {', '.join(map(str, missing))} are missing for its mean.")
        elif run is not None:
            try:
                print_run(results[run], load_run(Path(run)))
            except InputError as error:
                print(f"error: {error}", file=sys.stderr)


def _readable_folds(run: str | None) -> list[FoldResult]:
    """A run's results; none, with a word of it, where one cannot be read: the other jobs are told all the same."""
    try:
        return load_folds(Path(run)) if run else []
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return []


def _job_score(job: Job, results: Sequence[FoldResult]) -> str:
    """The accuracy of a job's fold, or over all folds where it ran all."""
    if job.status != "finished":
        return {"running": "not ended"}.get(job.status, job.status)
    if job.fold == "all" and results:
        return _score(summarise(results))
    scores = [100 * r.accuracy for r in results if r.fold == job.fold and r.accuracy is not None]
    return f"{scores[0]:.2f}{' LEAKY' if results[0].leaky else ''}" if scores else "no score"


def _score(total: CVResult) -> str:
    mark = " LEAKY" if total.leaky else ""
    return f"{100 * total.accuracy:.2f} ± {100 * total.accuracy_sd:.2f}{mark}"


def _short(path: str | None) -> str:
    """A path as seen from here, where it lies below."""
    return "" if path is None else path.removeprefix(f"{Path.cwd()}{os.sep}")


def print_runs(runs: Sequence[RunResult], groups: Sequence[tuple[list[RunResult], SeedSummary]]) -> None:
    """Print a row per run: its score, what can be trusted of it, and what leaked; then several seeds summed up."""
    table = Table(title="Runs side by side")
    for name in ("run", "protocol", "clips trained on", "scored", "accuracy %", "95 % interval", "leaked"):
        table.add_column(name, justify="right" if name in ("scored", "accuracy %", "95 % interval") else "left")
    for run in runs:
        total = run.total
        low, high = (100 * end for end in run.interval)
        interval = f"{low:.2f} to {high:.2f}"
        table.add_row(run.name, total.protocol, run.trained_on(), str(total.n), _score(total), interval, run.leaks())
    Console(markup=False).print(table)
    for group, summary in groups:
        Console(markup=False).print(describe_seeds(group, summary), highlight=False)


def print_published(runs: Sequence[RunResult]) -> None:
    """Print where runs stand among published five-fold figures, see `published_leaderboard`."""
    leaderboard_rows = published_leaderboard(runs)
    if not leaderboard_rows:
        return
    table = Table(title=f"Among published figures on {runs[0].collection.upper().replace('ESC', 'ESC-')}")
    for name in ("accuracy %", "system", "protocol", "source"):
        table.add_column(name, justify="right" if name == "accuracy %" else "left")
    for rung in leaderboard_rows:
        table.add_row(f"{rung.accuracy:.2f}", rung.name, rung.protocol, rung.source, style="bold" if rung.own else None)
    Console(markup=False).print(table)
