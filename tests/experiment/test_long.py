"""A long run in one process: what it holds does not grow from fold to fold, nor from job to job."""

import ctypes
import gc
import os
from pathlib import Path

import pytest
from helpers.tiny import ROOT, cross_validate, overrides, render
from hydra import compose, initialize_config_dir

from soundfold.config import register
from soundfold.experiment import run as runs
from soundfold.report.reporter import RunReporter


def held() -> dict[str, float]:
    """What this process holds: memory in MB, open files, threads, and processes that it has begun."""
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        # what is freed, else the C library may keep
        ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    children = (path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    found = {
        "memory": int(status["VmRSS"].split()[0]) / 1024,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
        "processes": sum(len(names.split()) for names in children),
    }
    # seen with pytest -s
    print(found, flush=True)
    return found


SMALL = ("model.width=8", "data.batch_size=64", "features.n_mels=8", "features.hop=0.05", "augment=none")
LOGGED = ("logger=[wandb,tensorboard]", "split=nested", "average=ema", "selection.patience=200", "report.page=none")


@pytest.mark.slow
def test_two_hundred_epochs_of_five_folds_hold_what_two_folds_hold(tmp_path):
    root = render(tmp_path / "root", folds=5)
    words = overrides(root, tmp_path / "out", *SMALL, *LOGGED, "trainer.max_epochs=200", "checkpoints.every_seconds=30")
    before, folds = held(), []
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        runs.cross_validate(compose("train", words), RunReporter(), watch=lambda _results: folds.append(held()))
    flat(before, folds)


@pytest.mark.slow
def test_twenty_cross_validations_in_one_process_hold_what_two_hold(tmp_path):
    """As the trials of a search, or the jobs of a sweep."""
    root = render(tmp_path / "root")
    before, jobs = held(), []
    for seed in range(20):
        cross_validate(
            root, tmp_path / "out", "model.width=8", "data.batch_size=64", "trainer.max_epochs=1", f"seed={seed}"
        )
        jobs.append(held())
    flat(before, jobs)


def flat(before: dict[str, float], rows: list[dict[str, float]]) -> None:
    """From the second on; the first loads and compiles; memory by 4 MB. Other tests may have begun processes before."""
    second, *later = rows[1:]
    for row in later:
        assert row["memory"] < second["memory"] + 4
        assert {**row, "memory": 0} == {**second, "memory": 0}
    assert second["processes"] == before["processes"]
