"""Time a sweep of cross-validations under each launcher, and check that all give the same results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import write_results
from soundfold.config import CONF
from soundfold.errors import TrainingError
from soundfold.experiment import environment

# the smallest training that has all parts: five folds of 200 rendered clips, each of 4 steps
SMALL = (
    *("data=synthetic", "data.batch_size=32", "features.hop=0.04", "features.n_mels=32", "model.width=8"),
    *("trainer=cpu", "trainer.precision=32-true", "trainer.max_epochs=1", "logger=csv", "report.page=none"),
    *("split=nested", "checkpoints.keep=none"),
)
SWEEP = ("optim.lr=1e-3,3e-4", "augment=none,strong")
# values of a summary that differ between equal runs
TIMED = ("seconds", "folds", "checksum")


def launchers(jobs: int) -> dict[str, tuple[str, ...]]:
    """Return the overrides of each launcher for so many jobs at a time, with one thread each."""
    return {
        "basic": (),
        "processes": ("hydra/launcher=processes", f"hydra.launcher.n_jobs={jobs}"),
        "ray": ("hydra/launcher=ray", "hydra.launcher.num_gpus=0", f"hydra.launcher.n_jobs={jobs}"),
        "slurm": (
            *("hydra/launcher=slurm_cpu", f"hydra.launcher.array_parallelism={jobs}"),
            *("hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2"),
        ),
    }


def run(outputs: Path, small: tuple[str, ...] = SMALL, sweep: tuple[str, ...] = SWEEP) -> Path:
    """Measure and print, and write ``launchers.md`` and ``.json``: minutes on two cores.

    SLURM is included where ``sinfo`` reaches one. All launchers read one packed store, which is built before.

    Args:
        outputs: folder for both files.
        small: overrides of each run.
        sweep: overrides with several values.

    Raises:
        TrainingError: a launcher failed, or its results differ from the first one's; the table has the others.
    """
    jobs = os.cpu_count() or 1
    header = {**environment.describe(torch.device("cpu")), "date": time.strftime("%Y-%m-%d"), "threads": 1}
    rows: dict[str, float | None] = {}
    failures: list[str] = []
    # nodes of a cluster see it, as they do the current folder
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="launchers-") as name:
        folder = Path(name)
        _train(folder, "store", *small, "fold=1")
        expected: dict[str, Any] = {}
        for launcher, overrides in launchers(jobs).items():
            if launcher == "slurm" and not _has_slurm():
                rows[launcher] = None
                continue
            started = time.perf_counter()
            try:
                _train(folder, launcher, "-m", *small, *sweep, *overrides)
            except TrainingError as error:
                failures.append(str(error))
                continue
            rows[launcher] = time.perf_counter() - started
            results = read_results(folder / launcher)
            expected = expected or results
            if results != expected or not results:
                failures.append(f"The results of launcher={launcher} differ from those of launcher=basic.")
                del rows[launcher]
    content = {"header": header, "jobs": jobs, "sweep": sweep, "seconds": rows}
    # after hours of measurement the others' figures are not lost
    path = write_results(outputs / "launchers", content, markdown(header, jobs, rows), width=120)
    if failures:
        raise TrainingError(" ".join(failures))
    return path


def _train(folder: Path, name: str, *arguments: str) -> None:
    command = [sys.executable, str(CONF.parent / "scripts" / "train.py"), *arguments]
    command += [f"paths.cache={folder / 'cache'}", f"paths.outputs={folder / name}", "name=run"]
    settings = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
    if done.returncode != 0:
        raise TrainingError(f"The sweep of launcher={name} ended with {done.returncode}: {done.stderr[-2000:]}")


def _has_slurm() -> bool:
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        return False
    return subprocess.run(["sinfo", "--noheader"], capture_output=True).returncode == 0


def read_results(outputs: Path) -> dict[str, Any]:
    """Return the summaries of all runs in a folder without their times, and their predictions, by path."""
    found: dict[str, Any] = {}
    for path in outputs.glob("run-*/cv.json"):
        values = json.loads(path.read_text())
        found[str(path.relative_to(outputs))] = {key: values[key] for key in values if key not in TIMED}
    for path in outputs.glob("run-*/fold*/predictions.csv"):
        found[str(path.relative_to(outputs))] = path.read_text()
    return found


def markdown(header: dict[str, Any], jobs: int, rows: dict[str, float | None]) -> str:
    """Return the table."""
    lines = ["| launcher | jobs at a time | wall time, s | summaries and predictions |", "|---|---|---|---|"]
    for launcher, seconds in rows.items():
        at_once = 1 if launcher == "basic" else jobs
        result = "equal to `basic`'s" if launcher != "basic" else "the reference"
        if seconds is None:
            lines.append(f"| `{launcher}` | {at_once} | not measured: no SLURM answers | |")
        else:
            lines.append(f"| `{launcher}` | {at_once} | {seconds:.0f} | {result} |")
    where = f"{header['processor']}, one thread per job, {header['date']}, commit {header['commit']}"
    return "\n".join([*lines, "", f"{where}, torch {header['versions']['torch']}.", ""])
