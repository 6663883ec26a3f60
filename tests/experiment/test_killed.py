"""Runs that are killed at any moment and resumed equal uninterrupted ones."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from helpers.killable import MOMENTS, start
from helpers.tiny import only, overrides, render

from soundfold.evaluation.results import load_folds

SMALL = (
    "model.width=8",
    "split=nested",
    "average=ema",
    "average.decay=0.8",
    "average.start=0.3",
    "selection.monitor=val/accuracy",
    "augment=strong",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("tiny") / "root")


def run(args: list[str], log: Path, **options) -> int:
    """Return the exit code of the command."""
    process = start(args, log, **options)
    process.join(300)
    assert process.exitcode is not None
    return process.exitcode


def results(outputs: Path) -> dict[str, bytes]:
    return {
        f"{path.parent.name}/{name}": (path.parent / name).read_bytes()
        for path in only(outputs).glob("fold*/result.json")
        for name in ("predictions.csv", "metrics.csv")
    }


def partial_files(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*.part")]


# (file, moment, count) of the write to be killed in, in the order of a run; BEFORE: before any checkpoint is complete
BEFORE = [
    *(("samples.npy", moment, 1) for moment in MOMENTS),
    *(("config.yaml", moment, 1) for moment in MOMENTS),
    ("best.ckpt", "half", 1),
    ("metrics.csv", "half", 1),
    ("last.ckpt", "half", 1),
]
WITHIN = [
    ("last.ckpt", "renamed", 1),
    ("metrics.csv", "appended", 1),
    ("best.ckpt", "written", 1),
    ("best.ckpt", "renamed", 1),
    ("last.ckpt", "half", 2),
    ("last.ckpt", "written", 2),
]
AFTER = [(name, moment, 1) for name in ("weights.pt", "predictions.csv", "result.json") for moment in MOMENTS]
LAST = [(name, moment, 1) for name in ("cv.json", "report.html") for moment in MOMENTS]


@pytest.mark.slow
def test_a_run_killed_in_every_kind_of_write_and_at_random_equals_an_uninterrupted_one(root, tmp_path):
    options = (*SMALL, "trainer.max_epochs=12")
    assert run(overrides(root, tmp_path / "reference", *options), tmp_path / "log") == 0
    # a new cache, so that the store is built and the process can be killed meanwhile
    args = overrides(root, tmp_path / "killed", *options, f"paths.cache={tmp_path / 'cache'}")
    rng = np.random.default_rng(0)
    kills, late = 0, 0

    def kill(**options) -> None:
        nonlocal kills, late
        code = run(args, tmp_path / "log", **options)
        if "at" in options:
            assert code == -signal.SIGKILL, (options, (tmp_path / "log").read_text()[-2000:])
        if code == -signal.SIGKILL:
            kills += 1
            # a finished fold has no checkpoints
            late += any(list((tmp_path / "killed").rglob(name)) for name in ("last.ckpt", "result.json"))

    for at in BEFORE:
        kill(at=at)
    assert late == 0
    for at in [*WITHIN, *AFTER]:
        kill(at=at)
    assert [result.fold for result in load_folds(only(tmp_path / "killed"))] == [1]
    for _ in range(8):
        kill(after=rng.uniform(0.1, 2.0))
    for at in LAST:
        kill(at=at)
    assert run(args, tmp_path / "log") == 0
    print(f"{kills} kills, {late} after the first checkpoint")
    assert kills >= 20
    assert late >= kills / 2
    assert results(tmp_path / "killed") == results(tmp_path / "reference")
    assert len(results(tmp_path / "reference")) == 6
    totals = [json.loads((only(tmp_path / o) / "cv.json").read_text()) for o in ("killed", "reference")]
    assert totals[0]["accuracy"] == totals[1]["accuracy"]
    assert not partial_files(tmp_path / "killed", tmp_path / "cache")
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_a_fold_killed_while_writing_equals_an_uninterrupted_one(root, tmp_path):
    options = (*SMALL, "fold=2", "trainer.max_epochs=5")
    assert run(overrides(root, tmp_path / "reference", *options), tmp_path / "log") == 0
    args = overrides(root, tmp_path / "killed", *options)
    for at in (("last.ckpt", "half", 2), ("metrics.csv", "appended", 1), ("result.json", "written", 1)):
        assert run(args, tmp_path / "log", at=at) == -signal.SIGKILL
    assert partial_files(tmp_path / "killed")
    assert run(args, tmp_path / "log") == 0
    assert not partial_files(tmp_path / "killed")
    assert results(tmp_path / "killed") == results(tmp_path / "reference")
    assert len(results(tmp_path / "reference")) == 2
