"""A long run in one process: memory, files, threads and processes do not grow from fold to fold or job to job."""

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


def measure() -> dict[str, float]:
    """Return this process's memory in MB, and its numbers of open files, threads and child processes."""
    gc.collect()
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        # the C library may not return freed memory to the system by itself
        ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    children = (path.read_text() for path in Path("/proc/self/task").glob("*/children"))
    resources = {
        "memory": int(status["VmRSS"].split()[0]) / 1024,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": int(status["Threads"]),
        "processes": sum(len(names.split()) for names in children),
    }
    print(resources, flush=True)  # for pytest -s
    return resources


SMALL = ("model.width=8", "data.batch_size=64", "features.n_mels=8", "features.hop=0.05", "augment=none")
LOGGED = ("logger=[wandb,tensorboard]", "split=nested", "average=ema", "selection.patience=200", "report.page=none")


@pytest.mark.slow
def test_resources_do_not_grow_over_five_folds_of_two_hundred_epochs(tmp_path):
    root = render(tmp_path / "root", folds=5)
    args = overrides(root, tmp_path / "out", *SMALL, *LOGGED, "trainer.max_epochs=200", "checkpoints.every_seconds=30")
    before, folds = measure(), []
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        runs.cross_validate(compose("train", args), RunReporter(), watch=lambda _results: folds.append(measure()))
    assert_constant(before, folds)


@pytest.mark.slow
def test_resources_do_not_grow_over_twenty_cross_validations(tmp_path):
    """Like the trials of a search, or the jobs of a sweep."""
    root = render(tmp_path / "root")
    before, jobs = measure(), []
    for seed in range(20):
        cross_validate(
            root, tmp_path / "out", "model.width=8", "data.batch_size=64", "trainer.max_epochs=1", f"seed={seed}"
        )
        jobs.append(measure())
    assert_constant(before, jobs)


def assert_constant(before: dict[str, float], rows: list[dict[str, float]]) -> None:
    """Check that nothing grows after the second row, memory within 4 MB.

    The first row includes imports and compilation. Child processes of other tests are in ``before``.
    """
    second, *later = rows[1:]
    for row in later:
        assert row["memory"] < second["memory"] + 4
        assert {**row, "memory": 0} == {**second, "memory": 0}
    assert second["processes"] == before["processes"]
