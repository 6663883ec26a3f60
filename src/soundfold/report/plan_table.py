"""The table of ``dry_run``: what a command would train."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from soundfold.errors import printable
from soundfold.experiment.callbacks.progress import duration
from soundfold.experiment.plan import PlannedRun, PlannedSetting
from soundfold.io.console import Terminal


def print_plan(settings: Sequence[PlannedSetting], *, as_json: bool) -> None:
    """Print what each setting would train, with totals; errors go to standard error.

    Args:
        settings: see `soundfold.experiment.plan.plan_settings`.
        as_json: print JSON instead of a table.
    """
    if as_json:
        print(json.dumps({"settings": [_values(setting) for setting in settings], "total": _total(settings)}, indent=1))
    else:
        _print_table(settings)
    for number, setting in enumerate(settings):
        if setting.error is not None:
            message = f"setting {number} ({' '.join(setting.overrides)}): {setting.error}"
            print(f"error: {printable(message)}", file=sys.stderr)


def _values(setting: PlannedSetting) -> dict[str, Any]:
    values = asdict(setting)
    if setting.plan is not None:
        values["plan"]["seconds"] = setting.plan.seconds
    return values


def _total(settings: Sequence[PlannedSetting]) -> dict[str, Any]:
    """Return sums over the settings that would not fail; ``seconds`` is None if the time of one is unknown."""
    plans = [setting.plan for setting in settings if setting.plan is not None]
    statuses = [fold.status for plan in plans for fold in plan.folds]
    times = [plan.seconds for plan in plans]
    return {
        "jobs": sum(setting.jobs for setting in settings),
        **{status: statuses.count(status) for status in ("finished", "interrupted", "missing")},
        "failed": len(settings) - len(plans),
        "seconds": None if None in times else sum(time for time in times if time is not None),
        "kept": sum(plan.kept for plan in plans),
        "training": max((plan.training for plan in plans if plan.seconds != 0), default=0),
        # settings with the same clips share a store
        "store": max((plan.store for plan in plans), default=0),
    }


def _print_table(settings: Sequence[PlannedSetting]) -> None:
    lists = [set(setting.overrides) for setting in settings]
    shared = set.intersection(*lists) if len(lists) > 1 else set()
    total = _total(settings)
    table = Table(title=f"Dry run: {_count(len(settings), 'setting')}, {_count(total['jobs'], 'job')}")
    for name in ("setting", "overrides", "finished", "resumes", "missing", "time", "MB", "run"):
        table.add_column(name, justify="right" if name in ("setting", "time", "MB") else "left", overflow="fold")
    for number, setting in enumerate(settings):
        own = " ".join(override for override in setting.overrides if override not in shared)
        cells = _cells(setting.plan) if setting.plan else ("", "", "", "", "", "would fail")
        # Text: overrides may contain brackets, which rich would take for markup
        table.add_row(*(Text(printable(cell)) for cell in (str(number), own, *cells)))
    terminal = Terminal()
    terminal.print(table, highlight=False)
    for line in _summary(settings, total):
        terminal.print(line, highlight=False)


def _cells(plan: PlannedRun) -> tuple[str, ...]:
    resumes = [
        f"{fold.fold or 'none'} (epoch {fold.epoch} of {plan.epochs}, step {fold.step})"
        for fold in plan.folds
        if fold.status == "interrupted"
    ]
    named = {
        status: ", ".join(str(fold.fold or "none") for fold in plan.folds if fold.status == status)
        for status in ("finished", "missing")
    }
    time = "unknown" if plan.seconds is None else duration(plan.seconds) if plan.seconds else ""
    return named["finished"], ", ".join(resumes), named["missing"], time, f"{plan.kept / 1e6:.0f}", plan.run


def _summary(settings: Sequence[PlannedSetting], total: dict[str, Any]) -> list[str]:
    """Return a line each on the folds, the time and the disk."""
    lines = [
        f"Folds: {total['finished']} finished and reused, {total['interrupted']} to resume, {total['missing']} to "
        "train. Nothing was started or written."
    ]
    speeds = [setting.plan.speed for setting in settings if setting.plan and setting.plan.seconds != 0]
    known = sorted({f"{speed.device}" for speed in speeds if speed})
    if None in speeds or total["seconds"] is None:
        lines.append(
            "Time: unknown where no finished fold in paths.outputs has the same images, network and batch size on this "
            "device, or where augment.copies decides on the steps."
        )
    elif known:
        folds = sum(speed.folds for speed in set(speeds) if speed)
        lines.append(
            f"Time: {duration(total['seconds'])} at most, one fold after the other, by the speed of "
            f"{_count(folds, 'finished fold')} on {', '.join(known)}."
        )
    store = f", and {total['store'] / 1e6:.0f} MB for the store of decoded clips" if total["store"] else ""
    lines.append(
        f"Disk: {total['kept'] / 1e6:.0f} MB that stay, up to {total['training'] / 1e6:.0f} MB of checkpoints for each "
        f"fold in training{store}."
    )
    return lines


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
