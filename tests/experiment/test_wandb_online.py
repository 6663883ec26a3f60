"""What reaches W&B's server, online and by upload: every run once, with one whole history. Against a stand-in."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.tiny import ROOT, cross_validate, only, overrides, render
from helpers.wandb_server import KEY, ServerRun, WandbServer, serve

from soundfold.experiment.wandb_runs.offline import offline_folders
from soundfold.experiment.wandb_runs.sync import sync_runs
from soundfold.io.signals import Stopped
from soundfold.models.classifier import Classifier

pytestmark = pytest.mark.slow

SMALL = ("logger=wandb", "model.width=8", "report.page=none")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("tiny") / "root")


def received(server: WandbServer, **attributes: str) -> dict[str, ServerRun]:
    """Return the runs of some attributes by display name."""
    runs = server.state.runs.values()
    chosen = [run for run in runs if all(getattr(run, name) == value for name, value in attributes.items())]
    return {run.display_name: run for run in chosen}


def curve(run: ServerRun, metric: str = "train/loss") -> dict[int, float]:
    """Return a metric by global step. A step that has two values is an error."""
    rows = [(row["trainer/global_step"], row[metric]) for row in run.history if metric in row]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def stored_curve(fold: Path, metric: str = "train/loss") -> dict[int, float]:
    """Return a metric of metrics.csv; Lightning logs an epoch at the index of its last step."""
    with (fold / "metrics.csv").open() as stream:
        return {int(row["step"]) - 1: pytest.approx(float(row[metric]), rel=1e-5) for row in csv.DictReader(stream)}


def assert_no_key(*folders: Path) -> None:
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert [path.name for path in paths if path.name.startswith("debug")]
    for half in (KEY[:20], KEY[20:]):
        assert [path for path in paths if half.encode() in path.read_bytes()] == []


def interrupt(monkeypatch, step: int, error: BaseException) -> None:
    """Raise an exception in the training step of a number, counted from here on."""
    counts, train = [], Classifier.training_step

    def training_step(model, *args):
        counts.append(1)
        if len(counts) == step:
            raise error
        return train(model, *args)

    monkeypatch.setattr(Classifier, "training_step", training_step)


def test_a_cross_validation_online(root, tmp_path, wandb_server, capfd, monkeypatch):
    for name in ("WANDB_DEBUG", "WANDB_CORE_DEBUG"):
        monkeypatch.setenv(name, "true")  # logs are as verbose as possible
    args = ("logger.wandb.mode=online", "logger.wandb.artifact=true", "logger.wandb.tags=[first]", "report.mistakes=2")
    cross_validate(root, tmp_path / "out", *SMALL, *args)
    folder = only(tmp_path / "out")
    folds = received(wandb_server, job_type="fold")
    assert sorted(folds) == [f"{folder.name} fold {k}" for k in (1, 2, 3)]
    assert {run.group for run in wandb_server.state.runs.values()} == {folder.name}
    for k in (1, 2, 3):
        run, result = folds[f"{folder.name} fold {k}"], json.loads((folder / f"fold{k}" / "result.json").read_text())
        assert run.name == (folder / f"fold{k}" / "wandb" / "id").read_text()
        assert (run.state, run.exit_code, run.tags[0]) == ("finished", 0, "first")
        assert curve(run) == stored_curve(folder / f"fold{k}")
        assert run.summary["test/accuracy"] == pytest.approx(result["accuracy"])
        assert (run.values["fold"], run.values["optim"]["lr"], run.values["audit"]) == (k, 0.001, result["audit"])
        (model,) = [
            made for made in wandb_server.state.artifacts.values() if (made.run, made.type) == (run.name, "model")
        ]
        assert model.files["weights.pt"] == (folder / f"fold{k}" / "checkpoints" / "weights.pt").read_bytes()
    (cv,) = received(wandb_server, job_type="cv").values()
    total = json.loads((folder / "cv.json").read_text())
    assert (cv.name, cv.state) == (f"cv-{total['cv_id']}", "finished")
    assert cv.summary["cv/accuracy"] == pytest.approx(total["accuracy"])
    assert cv.column("cv/objective") == [pytest.approx(total["objective"])]
    assert [name for name in cv.files if name.startswith("media/table/cv/confusion_table")]
    assert {artifact.state for artifact in wandb_server.state.artifacts.values()} == {"COMMITTED"}
    # no file of an online run waits for an upload
    assert [path for path in folder.rglob("offline-run-*")] == []
    assert_no_key(tmp_path)
    assert KEY not in "".join(capfd.readouterr())
    assert os.environ["WANDB_API_KEY"] == KEY


def finish_interrupted(root: Path, outputs: Path, monkeypatch, *args: str, after: Callable[[], None]) -> Path:
    """Interrupt a fold three times, before and after its first checkpoint, then finish it; return its folder.

    Args:
        after: called after the second interruption.
    """
    for step, stop in ((2, RuntimeError("a fault")), (8, Stopped(143)), (5, Stopped(130))):
        run_interrupted(root, outputs, monkeypatch, step, stop, *args)
        if step == 8:
            after()
    cross_validate(root, outputs, *args)
    return only(outputs) / "fold2"


def run_interrupted(root: Path, outputs: Path, monkeypatch, step: int, error: BaseException, *args: str) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, step, error)
        with pytest.raises(type(error)):
            cross_validate(root, outputs, *args)


CUT = (*SMALL, "fold=2", "trainer.max_epochs=6", "split=nested")


@pytest.fixture(scope="module")
def uninterrupted(root, tmp_path_factory) -> Path:
    """Folder of the fold that `finish_interrupted` trains, trained at once."""
    outputs = tmp_path_factory.mktemp("whole")
    cross_validate(root, outputs, *CUT, "logger=csv")
    return only(outputs) / "fold2"


def assert_whole(run: ServerRun, uninterrupted: Path) -> None:
    """Check that a run has the history of an uninterrupted one, every row once."""
    assert (run.state, run.exit_code) == ("finished", 0)
    for metric in ("train/loss", "val/loss"):
        scored = curve(run, metric)
        # the best weights are validated again after the last epoch
        steps = sorted(stored_curve(uninterrupted))
        assert {step: scored[step] for step in steps} == stored_curve(uninterrupted, metric)
        assert [step for step in scored if step not in steps] == ([steps[-1] + 1] if metric == "val/loss" else [])
    assert len(curve(run, "train/loss_step")) == steps[-1] + 1
    assert len(curve(run, "test/accuracy")) == 1


def test_an_often_interrupted_fold_online_is_one_run(root, tmp_path, wandb_server, monkeypatch, uninterrupted):
    args = (*CUT, "logger.wandb.mode=online")
    fold = finish_interrupted(root, tmp_path / "out", monkeypatch, *args, after=lambda: None)
    (run,) = wandb_server.state.runs.values()
    assert run.name == (fold / "wandb" / "id").read_text()
    assert_whole(run, uninterrupted)


@pytest.mark.parametrize("is_sent_between", [False, True])
def test_an_often_interrupted_fold_offline_is_one_run(
    root, tmp_path, wandb_server, monkeypatch, uninterrupted, is_sent_between
):
    def after() -> None:
        if is_sent_between:
            sync_runs([only(tmp_path / "out")])
            (run,) = wandb_server.state.runs.values()
            assert (run.state, run.exit_code) == ("failed", 143)

    fold = finish_interrupted(root, tmp_path / "out", monkeypatch, *CUT, after=after)
    assert len(offline_folders(fold / "wandb")) == 1
    sync_runs([fold.parent])
    (run,) = wandb_server.state.runs.values()
    assert_whole(run, uninterrupted)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_twice_killed_fold_is_one_run(root, tmp_path, wandb_server, uninterrupted, mode):
    args = overrides(root, tmp_path / "out", *CUT, f"logger.wandb.mode={mode}")
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *args]
    for n_epochs in (2, 4):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda n=n_epochs: epochs(tmp_path / "out") >= n, process)
            process.kill()
    fold = only(tmp_path / "out") / "fold2"
    if mode == "offline":
        # not even now is a row in two of the folders that `wandb sync` finds
        assert len(offline_folders(fold / "wandb")) == 1
        sync_runs([fold.parent])
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if mode == "offline":
        sync_runs([fold.parent])
    (run,) = wandb_server.state.runs.values()
    assert_whole(run, uninterrupted)


def epochs(outputs: Path) -> int:
    return sum(path.read_text().count("\n") - 1 for path in outputs.glob("tiny-*/fold2/metrics.csv"))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read() if process.stderr else "ended"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_every_kind_of_offline_folder_is_sent(root, tmp_path, wandb_server, monkeypatch, capfd):
    """A whole fold, one that failed and was finished, one that failed and was not; then the run is moved."""
    args = (*SMALL, "trainer.max_epochs=2", "logger.wandb.artifact=true", "report.mistakes=2")
    here, there = tmp_path / "here" / "outputs", tmp_path / "there" / "outputs"
    cross_validate(root, here, *args, "fold=1")
    for fold in (2, 3):
        run_interrupted(root, here, monkeypatch, 5, RuntimeError("a fault"), *args, f"fold={fold}")
    cross_validate(root, here, *args, "fold=2")
    shutil.move(here.parent, there.parent)
    folder = only(there)
    sync_runs([folder])
    runs = received(wandb_server, group=folder.name)
    states = {name.rpartition(" ")[2]: (run.state, run.exit_code) for name, run in runs.items()}
    assert states == {"1": ("finished", 0), "2": ("finished", 0), "3": ("failed", 1)}
    for k in (1, 2, 3):
        assert curve(runs[f"{folder.name} fold {k}"]) == stored_curve(folder / f"fold{k}")
    # the failed fold is finished in its new place, and the cross-validation with it
    cross_validate(root, there, *args)
    sync_runs([folder])
    runs = received(wandb_server)
    assert {run.state for run in runs.values()} == {"finished"}
    assert curve(runs[f"{folder.name} fold 3"]) == stored_curve(folder / "fold3")
    assert {artifact.state for artifact in wandb_server.state.artifacts.values()} == {"COMMITTED"}
    (cv,) = received(wandb_server, job_type="cv").values()
    assert cv.column("cv/objective") == [json.loads((folder / "cv.json").read_text())["objective"]]
    # everything is sent: nothing is sent again, and copies of media are deleted
    assert not (folder / ".wandb-cache").exists()
    wandb_server.state.requests.clear()
    capfd.readouterr()
    sync_runs([folder])
    assert wandb_server.state.requests == set()
    assert f"{folder}: all W&B runs were sent before." in capfd.readouterr().err
    assert_no_key(tmp_path)


def test_an_upload_that_the_server_refuses_is_repeated(root, tmp_path, capfd):
    with serve(tmp_path) as server:
        cross_validate(root, tmp_path / "out", *SMALL, "fold=1", "trainer.max_epochs=1")
        folder = only(tmp_path / "out")
        append = ServerRun.append_history
        try:
            ServerRun.append_history = refuse
            with pytest.raises(Exception, match=r"1 of 1 W&B runs of .* were not sent, .* The same command sends"):
                sync_runs([folder])
        finally:
            ServerRun.append_history = append
        assert server.state.faults
        server.state.faults.clear()
        sync_runs([folder])
        (run,) = server.state.runs.values()
        assert curve(run) == stored_curve(folder / "fold1")


def refuse(*_):
    from helpers.wandb_server.state import Refused

    raise Refused("out of order")
