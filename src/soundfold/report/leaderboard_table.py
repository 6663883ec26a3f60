"""The list of runs as a terminal table, Markdown or CSV."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from rich.table import Table
from rich.text import Text

from soundfold.errors import printable
from soundfold.io.console import Terminal, escape_markdown
from soundfold.io.csv_text import csv_text
from soundfold.report.config_diff import differing_keys, grouped_differences
from soundfold.report.leaderboard import ListedRun
from soundfold.report.scores import metric_names
from soundfold.report.terminal import accuracy_text


def print_leaderboard(runs: Sequence[ListedRun]) -> None:
    """Print a row per run."""
    names, rows = _columns_and_rows(runs)
    incomplete = sum(not run.total.is_complete for run in runs)
    table = Table(title=f"Runs: {len(runs)}{f', {incomplete} of them incomplete' if incomplete else ''}")
    for name in names:
        table.add_column(Text(printable(name)), justify="left" if name in ("run", "protocol") else "right")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Terminal().print(table)


def as_markdown(runs: Sequence[ListedRun]) -> str:
    """Return the rows of `print_leaderboard` as a Markdown table."""
    names, rows = _columns_and_rows(runs)
    header, *cells = ([escape_markdown(cell) for cell in row] for row in [names, *rows])
    lines = [header, ["---"] * len(names), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(runs: Sequence[ListedRun]) -> str:
    """Return a row per run in full precision: accuracies in [0, 1], seconds, and every key that differs."""
    columns = differing_keys([run.config for run in runs])
    scores = ["accuracy", "accuracy_sd", "low", "high"]
    metrics = metric_names(run.total for run in runs)
    header: list[object] = [
        "run",
        "finished",
        "protocol",
        "leaky",
        "folds",
        "all_folds",
        "clips",
        *scores,
        "seconds",
        *(f"{name}{end}" for name in metrics for end in ("", "_sd")),
        *columns,
    ]
    rows: list[list[object]] = [header]
    for i, run in enumerate(runs):
        total = run.total
        finished = datetime.fromtimestamp(run.finished).astimezone().isoformat(timespec="seconds")
        row = [run.name, finished, total.protocol, str(total.leaky).lower(), len(total.folds), total.all_folds, total.n]
        values = (column[i] for column in columns.values())
        others = (value.get(name) for name in metrics for value in (total.metrics, total.metrics_sd))
        rows.append([*row, total.accuracy, total.accuracy_sd, *run.interval, total.seconds, *others, *values])
    return csv_text(rows)


def _columns_and_rows(runs: Sequence[ListedRun]) -> tuple[list[str], list[list[str]]]:
    settings = grouped_differences([run.config for run in runs])
    rows = [
        [
            run.name,
            *(values[i] for values in settings.values()),
            run.total.protocol,
            accuracy_text(run.total),
            f"{100 * run.interval[0]:.2f} to {100 * run.interval[1]:.2f}",
            str(timedelta(seconds=round(run.total.seconds))),
        ]
        for i, run in enumerate(runs)
    ]
    return ["run", *settings, "protocol", "accuracy %", "95 % interval", "time"], rows
