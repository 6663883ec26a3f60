"""Few-shot curves of probes: accuracy by the number of training clips of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from soundfold.evaluation.probes import KINDS, few_shot_hits, scored_sources
from soundfold.evaluation.statistics import draws_interval
from soundfold.inference.probe_data import ProbeData
from soundfold.io.atomic import dumps_with_checksum, write_text
from soundfold.io.console import Terminal, console
from soundfold.report.drawing import save_figure
from soundfold.report.plots import few_shot_curves


def few_shot(data: ProbeData, shots: Sequence[int], draws: int) -> list[dict[str, Any]]:
    """Score probes that are fitted on a few clips of each class, drawn many times.

    Returns:
        For each probe and number of clips: ``probe``, ``shots``, ``accuracy`` over draws and clips, ``sd`` over draws
        (n - 1) and ``interval``, see `draws_interval`.
    """
    sources = scored_sources(data.table, [*data.spaces])
    points = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("Few-shot curves", total=len(KINDS) * len(shots) * len(data.spaces) * draws)
        for kind in KINDS:
            for count in sorted(set(shots)):
                hits = few_shot_hits(
                    kind, data.table, data.spaces, count, draws, advance=lambda: progress.advance(task)
                )
                means = hits.mean(axis=1)
                spread = float(means.std(ddof=1)) if draws > 1 else None
                point = {"probe": kind, "shots": count, "accuracy": float(means.mean()), "sd": spread}
                points.append(point | {"interval": draws_interval(hits, sources)})
    return points


def write_few_shot(folder: Path, data: ProbeData, shots: Sequence[int], draws: int, full: Mapping[str, float]) -> None:
    """Write ``few_shot.json`` and ``figures/few_shot.*``, and print the table.

    Args:
        folder: of a probe's results.
        data: the embeddings.
        shots: training clips of each class.
        draws: repetitions for each fold.
        full: accuracy of each probe with all training clips.
    """
    points = few_shot(data, shots, draws)
    training_data = "audited" if data.seen else "unknown"
    values = {"draws": draws, "training_data": training_data, "points": points, "all_clips": dict(full)}
    write_text(folder / "few_shot.json", dumps_with_checksum(values))
    (folder / "figures").mkdir(exist_ok=True)
    lines = {
        kind: (
            np.array([p["shots"] for p in points if p["probe"] == kind]),
            np.array([p["accuracy"] for p in points if p["probe"] == kind]),
            np.array([p["interval"] for p in points if p["probe"] == kind]),
        )
        for kind in KINDS
    }
    save_figure(few_shot_curves(lines, full), folder / "figures", "few_shot")
    table = Table(title=f"Accuracy % by training clips of a class, {draws} draws for each fold, with 95 % interval")
    table.add_column("clips of a class", justify="right")
    for kind in KINDS:
        table.add_column(kind, justify="right")
    for count in sorted(set(shots)):
        # in the order of KINDS
        table.add_row(str(count), *(_cell(point) for point in points if point["shots"] == count))
    table.add_row("all", *(f"{100 * full[kind]:.2f}" for kind in KINDS))
    Terminal().print(table)


def _cell(point: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in point["interval"])
    return f"{100 * point['accuracy']:.2f} ({low:.2f} to {high:.2f})"
