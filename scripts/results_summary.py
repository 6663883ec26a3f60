"""The short table of results, and the runs on ESC-10, whose figures were recorded without their files."""

from typing import Any

import yaml
from results import RESULTS, markdown, over_seeds, recipe_groups, recipe_row


def summary() -> str:
    """Return the best recipes of ESC-50 and the runs on ESC-10, without the details."""
    header = ["collection", "command: `soundfold train` with", "accuracy %", "95 % interval", "minutes", "hardware"]
    rows = []
    for group in recipe_groups():
        accuracy, cells = recipe_row(group, *over_seeds(group))
        command = f"`{group[0][0]['command']}`{f', {len(group)} seeds' if len(group) > 1 else ''}"
        rows.append((accuracy, ["ESC-50, 16 kHz", command, *cells[3:6], _first(cells[6])]))
    best = [cells for _, cells in sorted(rows, key=lambda row: -row[0])]
    for run in sorted(_esc10_runs(), key=lambda run: -run["accuracy"][0]):
        best.append(["ESC-10", f"`{run['command']}`", *_esc10_scores(run), run["minutes"], _first(run["hardware"])])
    return markdown(header, best)


def esc10() -> str:
    """Return the runs on ESC-10."""
    header = ["command", "seeds", "clips", "accuracy %", "95 % interval", "minutes", "hardware", "commit"]
    rows = []
    for run in _esc10_runs():
        facts = [run["minutes"], f"{run['hardware']}, {run['date']}", run["commit"]]
        rows.append([f"`{run['command']}`", run["seeds"], 400, *_esc10_scores(run), *facts])
    return markdown(header, rows)


def _first(hardware: str) -> str:
    return hardware.split(",")[0]


def _esc10_runs() -> list[dict[str, Any]]:
    return yaml.safe_load((RESULTS / "esc10.yaml").read_text())


def _esc10_scores(run: dict[str, Any]) -> list[str]:
    (accuracy, sd), (low, high) = run["accuracy"], run["interval"]
    return [f"{accuracy:.2f} ± {sd:.2f}", f"{low} to {high}"]
