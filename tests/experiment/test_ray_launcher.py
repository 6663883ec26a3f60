"""The launcher of Ray: the results of the basic launcher, restarts of killed jobs, and an end in order."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from helpers.command import run_here
from helpers.tiny import ROOT, only, overrides, render
from helpers.waiting import ONE_THREAD, wait_for
from helpers.wandb_log import wandb_records

from hydra_plugins.soundfold_ray_launcher import connect_to_ray
from soundfold.errors import InputError
from soundfold.experiment import sweep
from soundfold.experiment.sweep import read_jobs

APP = """
import os
from pathlib import Path
import hydra

@hydra.main(version_base="1.3", config_path=None)
def main(cfg):
    with Path(f"job{cfg.x}").open("a") as stream:
        print(os.environ["CUDA_VISIBLE_DEVICES"], os.environ["SET_BY_TEST"], file=stream)
    if cfg.x == 2 or (cfg.x == 3 and Path("job3").read_text().count("set") == 1):
        os.kill(os.getpid(), 9)
    if cfg.x == 4:
        raise ValueError("bad")
    return cfg.x

if __name__ == "__main__":
    main()
"""
OPTIONS = {"num_cpus": 1, "num_gpus": 0.5, "n_jobs": "null", "max_retries": 1, "object_store_memory": 80_000_000}


def options(**changed) -> list[str]:
    return [f"hydra.launcher.{key}={value}" for key, value in (OPTIONS | changed).items()]


def test_a_missing_package_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run_here(monkeypatch, "train", "-m", "hydra/launcher=ray", "seed=1,2") == 2
    err = capsys.readouterr().err
    assert err.strip().endswith("hydra/launcher=ray requires Ray, which is not installed: pip install -e '.[ray]'.")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("n_jobs=0", "hydra.launcher.n_jobs=0 must be at least 1."),
        ("num_cpus=many", "hydra.launcher.num_cpus=many must be a number."),
    ],
)
def test_invalid_options_are_refused(option, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", "-m", "hydra/launcher=ray", f"hydra.launcher.{option}", "seed=1,2") == 2
    assert capsys.readouterr().err.strip() == f"error: {message}"


def test_an_address_without_a_cluster_is_named(monkeypatch):
    import ray

    def refuse(**_):
        raise ConnectionError("refused")

    monkeypatch.setattr(ray, "init", refuse)
    with (
        pytest.raises(InputError, match=r"hydra.launcher.address=1.2.3.4:5: no Ray cluster answers there: refused"),
        connect_to_ray("1.2.3.4:5"),
    ):
        pytest.fail("connected")


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray with two workers and a pretended GPU, shared by the tests; this process is connected."""
    import ray

    with connect_to_ray(None, num_cpus=2, num_gpus=1, object_store_memory=OPTIONS["object_store_memory"]):
        yield ray.get_runtime_context().gcs_address


@pytest.mark.slow
def test_jobs_get_resources_and_killed_ones_are_started_again(cluster, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    launcher = ["hydra/launcher=ray_types", f"hydra.launcher.address={cluster}", *options()]
    command = [sys.executable, "app.py", "-m", "+x=1,2,3,4,5", *launcher, "hydra.output_subdir=null"]
    env = {**os.environ, "SET_BY_TEST": "set"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    attempts = {path.name: path.read_text().splitlines() for path in tmp_path.glob("job*")}
    assert attempts == {f"job{x}": ["0 set"] * (2 if x in (2, 3) else 1) for x in range(1, 6)}
    assert done.returncode != 0
    assert "Job 1 failed: its process ended, or was killed: " in done.stderr
    assert "JobError: Job 1 failed" in done.stderr


@pytest.mark.slow
def test_results_equal_those_of_the_basic_launcher(cluster, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sweep, "claim_gpu", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    root, marker = render(tmp_path / "root"), tmp_path / "killed"
    callback = ("callbacks.killer._target_=helpers.user_callbacks.KilledOnce", f"callbacks.killer.marker={marker}")
    settings = ("trainer.max_epochs=3", "report.page=none", *callback)
    # fold 9 does not exist; its job fails without stopping the others
    own = ("fold=1,9,2,3", "hydra/launcher=ray", *options(num_gpus=0))
    assert run_here(monkeypatch, "train", "-m", *overrides(root, tmp_path / "ray", *settings, *own)) == 1
    out, err = capfd.readouterr()
    assert f"Fold {marker.read_text()} resumes from its last checkpoint." in out + err
    assert out.count("mean ± sd") == 1
    assert "error: job 1 (fold=9): fold=9 has no clips" in err
    (folder,) = (tmp_path / "ray" / "multirun").iterdir()
    jobs = read_jobs(folder)
    assert [job.status for job in jobs] == ["finished", "failed", "finished", "finished"]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    args = overrides(root, tmp_path / "basic", *settings, "fold=1,2,3")
    assert run_here(monkeypatch, "train", "-m", *args) == 0
    torch.set_num_threads(threads)
    runs = [only(tmp_path / name) for name in ("ray", "basic")]
    predictions = [{path.parent.name: path.read_text() for path in run.glob("fold*/predictions.csv")} for run in runs]
    assert len(predictions[0]) == 3
    assert predictions[0] == predictions[1]


def processes_of(session: int) -> list[str]:
    """Return the processes of a session that have not ended."""
    listing = subprocess.run(["ps", "-o", "stat=,args=", "-s", str(session)], capture_output=True, text=True).stdout
    return [line for line in listing.splitlines() if not line.startswith("Z")]


@pytest.mark.slow
def test_ctrl_c_ends_the_jobs_in_order(tmp_path):
    root, folder = render(tmp_path / "root", folds=4), tmp_path / "sweep"
    # Ray puts the current folder first on the import path of its workers
    (tmp_path / "torchmetrics.py").write_text("raise ImportError('hides the library')\n")
    own = (f"hydra.sweep.dir={folder}", "trainer.max_epochs=500", "logger=wandb", "hydra/launcher=ray")
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m"]
    # sockets below tmp_path would have too long a path
    with tempfile.TemporaryDirectory(prefix="t") as temporary:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(
            [*command, *overrides(root, tmp_path / "out", "fold=1,2,3,4", *own, "hydra.launcher.n_jobs=2")],
            start_new_session=True,
            env={**ONE_THREAD, "TMPDIR": temporary},
            cwd=tmp_path,
            **pipes,
        )
        try:
            wait_for(lambda: len(list(tmp_path.glob("out/tiny-*/fold*/checkpoints/last.ckpt"))) == 2, process)
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 130
        assert not [path for path in Path(temporary).rglob("*") if path.is_file()]
    assert [job.status for job in read_jobs(folder)] == ["running"] * 2
    assert err.count("Stopped by Ctrl-C") == 1
    assert "Traceback" not in err
    # the runs of W&B are closed, so the jobs were not killed
    records = [wandb_records(path) for path in tmp_path.glob("out/**/run-*.wandb")]
    assert len(records) == 2
    assert all(any(record.HasField("exit") for record in run) for run in records)
    deadline = time.monotonic() + 20
    while (left := processes_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
