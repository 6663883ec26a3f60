"""Seconds to an accuracy on five folds of ESC-50, in the form of airbench: n runs of a recipe whose length is fixed.

The number of steps is chosen beforehand, on validation folds. Every run of it is reported: none stops when its scored
clips reach an accuracy, and none is left out. https://github.com/KellerJordan/cifar10-airbench
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.tables import measured_on, write_results
from soundfold.config import CONF
from soundfold.errors import InputError
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device

GOALS = (0.7, 0.8)
RECIPE = ("experiment=scratch", "split=benchmark")
QUIET = ("logger=csv", "report.page=none", "checkpoints.keep=none", "trainer.enable_progress_bar=false")


def run(
    device: str,
    root: str | None,
    collection: str,
    steps: int,
    repeats: int,
    outputs: Path,
    recipe: Sequence[str] = RECIPE,
) -> Path:
    """Measure and print, and write ``speedrun-<device>.md`` and ``.json``.

    Args:
        device: ``cpu``: hours; or ``cuda``.
        root: folder of a collection in ESC-50's layout.
        collection: the data option, with its sample rate: ``esc50`` or ``esc50_16k``.
        steps: optimizer steps of each fold.
        repeats: runs, with the seeds 0, 1 and so on.
        outputs: folder for both files.
        recipe: overrides of every run.

    Raises:
        InputError: the device is not available, or there is no collection.
    """
    target, recipe = choose_device(device), (f"data={collection}", *recipe)
    if root is None or not (Path(root) / "meta" / "esc50.csv").is_file():
        raise InputError(f"root={root} is not a collection in ESC-50's layout. Set root=FOLDER, such as data/ESC-50.")
    with tempfile.TemporaryDirectory() as folder:
        command = _command(Path(root).resolve(), Path(folder), device, steps, recipe)
        # decodes the clips, which a user does once; its figures are not used
        _execute([*command, "fold=1", "trainer.max_steps=1", "name=warm_up"])
        runs = [
            _timed([*command, "fold=all", f"seed={seed}", f"name=run{seed}"], Path(folder)) for seed in range(repeats)
        ]
    header = {**environment.describe(target), "date": time.strftime("%Y-%m-%d"), "steps": steps, "recipe": list(recipe)}
    header["source"] = Path(root).name
    content = {"header": header, "runs": runs}
    return write_results(outputs / f"speedrun-{device}", content, markdown(header, runs), width=140)


def _command(root: Path, folder: Path, device: str, steps: int, recipe: Sequence[str]) -> list[str]:
    return [
        sys.executable,
        str(CONF.parent / "scripts" / "train.py"),
        *recipe,
        "data.download=null",
        f"data.root={root}",
        *QUIET,
        f"trainer.max_steps={steps}",
        f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}",
        f"paths.cache={folder / 'cache'}",
        f"paths.outputs={folder / 'outputs'}",
    ]


def _execute(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"The training failed: {(done.stderr.splitlines() or ['no message'])[-1]}")


def _timed(command: Sequence[str], folder: Path) -> dict[str, Any]:
    """Return the accuracy of a run over its folds, and its seconds from the command and of training."""
    started = time.perf_counter()
    _execute(command)
    seconds = time.perf_counter() - started
    name = command[-1].removeprefix("name=")
    results = [
        json.loads(path.read_text()) for path in sorted((folder / "outputs").glob(f"{name}-*/fold*/result.json"))
    ]
    return {
        "seconds": seconds,
        "training_seconds": sum(result["seconds"] for result in results),
        "accuracy": mean(result["accuracy"] for result in results),
        "folds": len(results),
    }


def markdown(header: dict[str, Any], runs: Sequence[dict[str, Any]]) -> str:
    """Return a table of one row, as a collection of such rows on several machines would have it."""
    accuracies = [run["accuracy"] for run in runs]
    spread = f" (sd {100 * stdev(accuracies):.2f})" if len(runs) > 1 else ""
    reached = [f"at least {100 * goal:.0f} %" for goal in GOALS if mean(accuracies) >= goal]
    goal = reached[-1] if reached else f"below {100 * GOALS[0]:.0f} %"
    return (
        "\n".join(
            [
                f"{header['steps']} steps in each of {runs[0]['folds']} folds of {header['source']}, fixed beforehand: "
                f"`{' '.join(header['recipe'])}`. The mean accuracy is {goal}.",
                "",
                "| hardware | n | mean accuracy, % | s from the command | s of training |",
                "|---|---|---|---|---|",
                f"| {measured_on(header)} | {len(runs)} | {100 * mean(accuracies):.2f}{spread} "
                f"| {mean(run['seconds'] for run in runs):.1f} | {mean(run['training_seconds'] for run in runs):.1f} |",
            ]
        )
        + "\n"
    )
