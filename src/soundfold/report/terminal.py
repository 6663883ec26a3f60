"""Tables on the terminal: the folds of a run, runs beside each other, published figures."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from soundfold.experiment.comparison import ScoredRun, seed_words
from soundfold.experiment.results import CVResult, FoldResult
from soundfold.experiment.statistics import SeedSummary
from soundfold.report.published import ladder_of


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
    Console().print(table)


def print_interval(run: ScoredRun) -> None:
    """Print how far the score of all clips can be trusted."""
    low, high = (100 * end for end in run.interval)
    sources = len(set(run.sources))
    mark = "LEAKY, and so too high: " if run.total.leaky else ""
    text = f"{mark}{100 * run.right.mean():.2f} % of {len(run.right)} clips; 95 % interval {low:.2f} to {high:.2f} %,"
    Console().print(f"{text} resampling {sources} sources. Shared with training: {run.leaks()}.", highlight=False)


def print_runs(runs: Sequence[ScoredRun], groups: Sequence[tuple[list[ScoredRun], SeedSummary]]) -> None:
    """Print a row per run: its score, what can be trusted of it, and what leaked; then several seeds summed up."""
    table = Table(title="Runs side by side")
    for name in ("run", "protocol", "clips trained on", "scored", "accuracy %", "95 % interval", "leaked"):
        table.add_column(name, justify="right" if name in ("scored", "accuracy %", "95 % interval") else "left")
    for run in runs:
        total = run.total
        low, high = (100 * end for end in run.interval)
        score = f"{100 * total.accuracy:.2f} ± {100 * total.accuracy_sd:.2f}{' LEAKY' if total.leaky else ''}"
        table.add_row(
            run.name, total.protocol, run.trained_on(), str(total.n), score, f"{low:.2f} to {high:.2f}", run.leaks()
        )
    Console().print(table)
    for group, summary in groups:
        Console().print(seed_words(group, summary), highlight=False)


def print_ladder(runs: Sequence[ScoredRun]) -> None:
    """Print where runs stand among published five-fold figures, see `soundfold.report.published.ladder_of`."""
    rungs = ladder_of(runs)
    if not rungs:
        return
    table = Table(title=f"Among published figures on {runs[0].collection.upper().replace('ESC', 'ESC-')}")
    for name in ("accuracy %", "system", "protocol", "source"):
        table.add_column(name, justify="right" if name == "accuracy %" else "left")
    for rung in rungs:
        table.add_row(f"{rung.accuracy:.2f}", rung.name, rung.protocol, rung.source, style="bold" if rung.own else None)
    Console().print(table)
