"""Long runs, and the resources of the process after each of their parts, as JSON; each in a process of its own.

``python -m helpers.long_runs folds FOLDER``, or ``jobs FOLDER``. What other tests leave in a process would also count.
"""

import ctypes
import gc
import json
import os
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir

from helpers.tiny import ROOT, cross_validate, overrides, render
from soundfold.config import register
from soundfold.experiment import run as runs
from soundfold.report.reporter import RunReporter

SMALL = ("model.width=8", "data.batch_size=64", "features.n_mels=8", "features.hop=0.05", "augment=none")
LOGGED = ("logger=[wandb,tensorboard]", "split=nested", "average=ema", "selection.patience=60", "report.page=none")


def measure() -> dict[str, float]:
    """Return this process's memory in MB, and its numbers of open files, threads and child processes."""
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        # the C library may not return freed memory to the system by itself
        ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    children = (path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    return {
        "memory": int(status["VmRSS"].split()[0]) / 1024,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
        "processes": sum(len(names.split()) for names in children),
    }


def folds(folder: Path) -> list[dict[str, float]]:
    """Train five folds of sixty epochs each; return the resources after each fold."""
    rows: list[dict[str, float]] = []
    args = overrides(render(folder / "root", folds=5), folder / "out", *SMALL, *LOGGED, "trainer.max_epochs=60")
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", [*args, "checkpoints.every_seconds=5"])
        runs.cross_validate(config, RunReporter(), watch=lambda _results: rows.append(measure()))
    return rows


def jobs(folder: Path) -> list[dict[str, float]]:
    """Cross-validate twelve times, like trials of a search or jobs of a sweep; return the resources after each."""
    rows = []
    root = render(folder / "root")
    for seed in range(12):
        small = ("model.width=8", "data.batch_size=64", "trainer.max_epochs=1", f"seed={seed}")
        cross_validate(root, folder / "out", *small)
        rows.append(measure())
    return rows


if __name__ == "__main__":
    before = measure()
    rows = {"folds": folds, "jobs": jobs}[sys.argv[1]](Path(sys.argv[2]))
    Path(sys.argv[2], "resources.json").write_text(json.dumps({"before": before, "rows": rows}))
