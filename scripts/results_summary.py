"""The short table of results, and the runs on ESC-10, whose figures were recorded without their files."""

from typing import Any

import yaml
from results import RESULTS, markdown, over_seeds, recipe_groups, recipe_row


def summary() -> str:
    """Return the best recipe of ESC-50 on each hardware and the runs on ESC-10, without the details."""
    header = ["collection", "command: `soundfold train` with", "accuracy %", "95 % interval", "minutes", "hardware"]
    best: dict[str, tuple[float, list[Any]]] = {}
    for group in recipe_groups():
        accuracy, cells = recipe_row(group, *over_seeds(group))
        command = f"`{group[0][0]['command']}`{f', {len(group)} seeds' if len(group) > 1 else ''}"
        hardware = _first(cells[6])
        row = accuracy, ["ESC-50, 16 kHz", command, *cells[3:6], hardware]
        best[hardware] = max(best.get(hardware, row), row)
    rows = [cells for _, cells in sorted(best.values(), reverse=True)]
    for run in sorted(_esc10_runs(), key=lambda run: -run["accuracy"][0]):
        rows.append(["ESC-10", f"`{run['command']}`", *_esc10_scores(run), run["minutes"], _first(run["hardware"])])
    return markdown(header, rows)


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
