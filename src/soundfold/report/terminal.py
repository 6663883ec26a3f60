"""The folds table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from soundfold.experiment.results import CVResult, FoldResult


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
