"""Sweeps: records of their jobs, their report, and the launchers that run them."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import write_run
from helpers.tiny import ROOT, only, overrides, render, train
from helpers.waiting import ONE_THREAD, wait_for
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from soundfold.cli.train import task
from soundfold.config import compose_config
from soundfold.errors import InputError
from soundfold.evaluation.results import FoldResult, load_folds
from soundfold.experiment import environment, sweep
from soundfold.experiment import run as runs
from soundfold.experiment.sweep import claim_gpu, read_jobs
from soundfold.report.terminal import print_jobs


@pytest.fixture
def root(tmp_path) -> Path:
    return render(tmp_path / "root")


@pytest.fixture
def train_here(tmp_path, monkeypatch, capsys):
    """A function that runs train.py in this process with a function in place of `cross_validate`, and returns its exit
    code, stdout and stderr."""
    monkeypatch.setattr(sweep, "claim_gpu", lambda *_: None)
    monkeypatch.chdir(tmp_path)  # where outputs/ is made

    def run(task, *args: str) -> tuple[int, str, str]:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(runs, "cross_validate", task)
        monkeypatch.setattr(sweep.Sweep, "folder", None)
        monkeypatch.setenv("PYTHONSAFEPATH", "1")  # restores it after a sweep has set it
        monkeypatch.setattr(sys, "argv", ["train.py", *args])
        code = 0
        try:
            runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code
        finally:
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
        return code, *capsys.readouterr()

    return run


def jobs_of(outputs: Path) -> list[sweep.Job]:
    (folder,) = (outputs / "multirun").iterdir()
    return read_jobs(folder)


def test_failed_jobs_are_reported_and_do_not_stop_the_others(train_here, tmp_path):
    def task(cfg, reporter, record_folder):
        if cfg.seed == 1:
            raise InputError("The seed is odd.")
        if cfg.seed == 2:
            raise ZeroDivisionError("a bug")
        record_folder(tmp_path)
        return 0.5

    code, out, err = train_here(task, "-m", "seed=1,2,3,4", "augment=none")
    assert code == 1
    assert "error: job 0 (seed=1): The seed is odd." in err
    assert "error: job 1 (seed=2): ZeroDivisionError: a bug Traceback: " in err
    assert "Traceback (most" not in err
    jobs = jobs_of(tmp_path / "outputs")
    assert [job.status for job in jobs] == ["failed", "failed", "finished", "finished"]
    assert [job.run for job in jobs] == [None, None, str(tmp_path), str(tmp_path)]
    assert jobs[0].traceback is None
    trace = Path(jobs[1].traceback).read_text()
    assert "in task" in trace
    assert "ZeroDivisionError: a bug" in trace
    rows = [line for line in out.splitlines() if re.match(r"│ +\d ", line)]
    assert len(rows) == 4
    # overrides that all jobs share are not shown
    assert all("seed=" in row and "augment" not in row for row in rows)


def test_a_sweep_of_finished_jobs_exits_with_zero(train_here):
    assert train_here(lambda cfg, reporter, record_folder: 0.5, "-m", "seed=1,2")[0] == 0


@pytest.mark.parametrize("override", ["'experiment=glob(sead_*)'", "seed=range(0,0)"])
def test_a_sweep_without_jobs_is_an_error(override, train_here):
    code, _, err = train_here(lambda cfg, reporter, record_folder: 0.5, "-m", override.strip("'"))
    assert code == 2
    assert "error: This sweep has no jobs" in err


@pytest.mark.parametrize("flag", ["-m", "--multirun"])
def test_the_flag_of_a_sweep_may_follow_overrides(flag, train_here, tmp_path):
    assert train_here(lambda cfg, reporter, record_folder: 0.5, "optim.lr=1", flag, "seed=1,2")[0] == 0
    assert [job.overrides for job in jobs_of(tmp_path / "outputs")] == [["optim.lr=1", f"seed={n}"] for n in (1, 2)]


def test_a_single_run_is_not_recorded_and_raises_its_error(train_here, tmp_path):
    def task(cfg, reporter, record_folder):
        assert record_folder is None
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train_here(task)
    assert not (tmp_path / "outputs").exists()


def test_an_interrupted_job_is_reported_as_not_ended(train_here):
    def task(cfg, reporter, record_folder):
        raise SystemExit(143)

    code, out, err = train_here(task, "-m", "seed=1,2")
    assert code == 143
    assert "unfinished" in out
    assert "error: job 0 (seed=1" in err


@pytest.mark.slow
def test_a_glob_over_experiments_refuses_the_leaky_ones_and_runs_the_others(train_here):
    ran = []
    code, _, err = train_here(
        lambda cfg, reporter, record_folder: ran.append(cfg.name), "-m", "experiment=glob(seed_*)"
    )
    assert code == 1
    assert sorted(ran) == ["seed_augmented_honest", "seed_original_honest"]
    assert re.findall(r"^error: job \d \(experiment=(\w+)\): split=random_clips leaks", err, re.M) == [
        "seed_augmented",
        "seed_original",
    ]


def test_an_invalid_override_is_refused_before_the_first_job(train_here):
    code, _, err = train_here(
        lambda cfg, reporter, record_folder: pytest.fail("ran"), "-m", "augment=none,strnog", "seed=1,2"
    )
    assert code == 2
    assert "strnog" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_fixed_folder_has_the_jobs_of_the_last_sweep_only(train_here, tmp_path):
    folder = f"hydra.sweep.dir={tmp_path}/fixed"
    assert train_here(lambda cfg, reporter, record_folder: 1 / 0, "-m", "seed=1,2,3", folder)[0] == 1
    assert train_here(lambda cfg, reporter, record_folder: 0.5, "-m", "seed=1,2", folder)[0] == 0
    assert len(read_jobs(tmp_path / "fixed")) == 2


def test_damaged_records_are_listed_as_failed(train_here, tmp_path):
    contents = ["", "{", "[]", '{"number": "x"}', "[" * 100_000, '{"number": 1}', None]

    def task(cfg, reporter, record_folder):
        if cfg.seed == len(contents):
            for job, content in enumerate(contents):
                path = tmp_path / "fixed" / str(job) / "job.json"
                path.unlink()
                path.mkdir() if content is None else path.write_text(content)
        return 0.5

    seeds = ",".join(map(str, range(len(contents) + 1)))
    code, out, err = train_here(task, "-m", f"seed={seeds}", f"hydra.sweep.dir={tmp_path}/fixed")
    assert code == 1
    assert [job.status for job in read_jobs(tmp_path / "fixed")] == [*["failed"] * len(contents), "finished"]
    for job in range(len(contents)):
        assert re.search(rf"error: job {job} .*{job}/job.json cannot be read", err)
    assert "Traceback" not in err
    assert len([line for line in out.splitlines() if re.match(r"│ +\d ", line)]) == len(contents) + 1


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
@pytest.mark.parametrize("below", ["", "/below"])
def test_a_hydra_folder_that_is_a_file_is_refused(key, below, train_here, tmp_path):
    (tmp_path / "file").touch()
    jobs = ["-m", "seed=1,2"] if key == "hydra.sweep.dir" else []
    code, _, err = train_here(lambda *_, **__: pytest.fail("ran"), *jobs, f"{key}={tmp_path}/file{below}")
    assert code == 2
    assert err.startswith(f"error: Hydra cannot create its folder {tmp_path}/file")
    assert len(err.splitlines()) == 1


def test_each_process_claims_another_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(sweep, "_gpu_locks", [])
    claimed = []
    for number in (4, 7, 8):  # three processes on two devices
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        claim_gpu(tmp_path, number)
        claimed.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert claimed == ["0", "1", "0"]
    claim_gpu(tmp_path, 9)  # the process already has a GPU
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    sweep._gpu_locks.clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    claim_gpu(tmp_path / "other", 0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"


@pytest.mark.parametrize("preset", ["processes", "slurm", "slurm_local"])
def test_a_missing_launcher_package_is_named(preset):
    hidden = "import runpy, sys; sys.modules['hydra_plugins'] = None; runpy.run_path(sys.argv[0], run_name='__main__')"
    script = f"import sys; sys.argv = ['scripts/train.py', '-m', 'hydra/launcher={preset}', 'seed=1,2']; {hidden}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("pip install -e '.[launchers]'.")
    assert "Traceback" not in done.stderr


def finished_folds(outputs: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in outputs.glob("tiny-*/fold*/result.json")}


def kill_half_way(n_folds: int, outputs: Path, args: list[str]) -> dict[Path, int]:
    """Start a sweep and kill it after ``n_folds`` folds; return the results' paths and modification times."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *args]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "env": ONE_THREAD}
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        wait_for(lambda: len(finished_folds(outputs)) >= n_folds, process)
        os.killpg(process.pid, signal.SIGKILL)
    return finished_folds(outputs)


def predictions(outputs: Path) -> dict[str, str]:
    return {str(p.relative_to(outputs)): p.read_text() for p in outputs.glob("tiny-*/fold*/predictions.csv")}


@pytest.mark.slow
def test_folds_in_killed_and_restarted_processes_equal_those_of_one_process(root, tmp_path, train_here):
    # fold 9 does not exist; its job fails without stopping the others
    folds = ("hydra/launcher=processes", "fold=3,1,9,2")
    args = ["-m", *overrides(root, tmp_path / "jobs", "trainer.max_epochs=1", *folds)]
    before = kill_half_way(1, tmp_path / "jobs", args)
    assert 1 <= len(before) < 3
    done = train(*args, env=ONE_THREAD)
    assert done.returncode == 1, done.stderr
    assert "error: job 2 (fold=9): fold=9 has no clips" in done.stderr
    assert "Traceback" not in done.stderr
    after = finished_folds(tmp_path / "jobs")
    assert len(after) == 3
    assert {path: after[path] for path in before} == before
    assert done.stdout.count("mean ± sd") == 1

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    args = overrides(root, tmp_path / "single", "trainer.max_epochs=1", "fold=1,2,3")
    code, out, _ = train_here(runs.cross_validate, "-m", *args)
    torch.set_num_threads(threads)
    assert code == 0
    assert out.count("mean ± sd") == 1

    assert predictions(tmp_path / "jobs") == predictions(tmp_path / "single")
    totals = [json.loads((only(tmp_path / o) / "cv.json").read_text()) for o in ("jobs", "single")]
    assert totals[0]["accuracy"] == totals[1]["accuracy"]
    pages = [(only(tmp_path / o) / "report.html").read_text() for o in ("jobs", "single")]
    assert all(re.search(r"trainer\.max_epochs</th><td>50</td><td>1</td>", page) for page in pages)
    # two processes started with an empty cache, and built one complete store
    assert [p.suffix for p in (tmp_path / "cache").iterdir() if p.is_dir()] == [""]


@pytest.mark.parametrize(
    ("sweep_options", "typed"),
    [
        ((), "'name=${oc.env:SOUNDFOLD_TEST_NAME}' 'data.root=my clips'"),
        # Hydra escapes the overrides of a job; they have the same values
        (("-m",), r"'name=$\{oc.env\:SOUNDFOLD_TEST_NAME\}' 'data.root=my\ clips'"),
    ],
)
def test_the_command_is_recorded_without_values_of_the_environment(
    sweep_options, typed, train_here, tmp_path, monkeypatch
):
    monkeypatch.setenv("SOUNDFOLD_TEST_NAME", "resolved")
    (tmp_path / "mine").mkdir()
    commands = []
    overrides = ("data=esc10", "name=${oc.env:SOUNDFOLD_TEST_NAME}", "data.root=my clips", "fold=3")
    args = (*sweep_options, *overrides, f"--config-dir={tmp_path}/mine")
    code, _, err = train_here(lambda *_, **__: commands.append(environment.command()), *args)
    assert code == 0, err
    assert commands == [f"soundfold train --config-dir mine data=esc10 {typed} fold=3"]


@pytest.mark.slow
def test_concurrent_jobs_of_the_same_fold_train_it_once(root, tmp_path):
    options = ["hydra/launcher=slurm_local", "fold=1", "seed=1,1", "trainer.max_epochs=1"]
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = train("-m", *overrides(root, tmp_path / "jobs", *options), env=env)
    assert done.returncode == 0, done.stderr
    assert [job.status for job in jobs_of(tmp_path / "jobs")] == ["finished"] * 2
    assert len(finished_folds(tmp_path / "jobs")) == 1
    logs = [p.read_text() for p in (tmp_path / "jobs").glob("multirun/*/.submitit/*/*_log.err")]
    assert len(logs) == 2
    assert sum("its result is reused" in log for log in logs) == 1
    # the preset limits a job's threads
    (result,) = load_folds(only(tmp_path / "jobs"))
    assert result.environment["threads"] == 1
    # both started with an empty cache
    assert sum("Decoding" in log for log in logs) <= 1


def test_resources_requested_from_slurm(tmp_path):
    """A stand-in for sbatch copies the job script and rejects the job."""
    sbatch = f'cp "$1" {tmp_path}/script; echo "sbatch: error: invalid partition" >&2; exit 1'
    for name, line in {"sbatch": sbatch, "srun": "exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    slurm = ("hydra/launcher=slurm", "hydra.launcher.partition=fast", f"paths.outputs={tmp_path}/outputs")
    done = train("-m", "seed=1,2", *slurm, env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: SLURM refused the jobs: sbatch: error: invalid partition.")
    requested = {line.removeprefix("#SBATCH --") for line in (tmp_path / "script").read_text().splitlines()}
    assert {"gpus-per-node=1", "cpus-per-task=4", "partition=fast", "time=240", "array=0-1%2"} <= requested
    assert {"signal=USR2@120", "requeue"} <= requested


@pytest.mark.slow
def test_a_grid_in_killed_and_restarted_processes_equals_one_process(root, tmp_path):
    grid = ("optim.lr=1e-3,3e-4", "augment=none,strong", "report.page=none")
    single = train("-m", *overrides(root, tmp_path / "single", *grid), env=ONE_THREAD)
    assert single.returncode == 0, single.stderr
    args = ["-m", *overrides(root, tmp_path / "jobs", "hydra/launcher=processes", *grid)]
    before = kill_half_way(5, tmp_path / "jobs", args)
    assert 5 <= len(before) < 12
    jobs = train(*args, env=ONE_THREAD)
    assert jobs.returncode == 0, jobs.stderr
    after = finished_folds(tmp_path / "jobs")
    assert len(after) == 12
    assert {path: after[path] for path in before} == before
    summaries = [
        {
            path.parent.name: {
                k: v for k, v in json.loads(path.read_text()).items() if k not in ("seconds", "folds", "checksum")
            }
            for path in (tmp_path / outputs).glob("tiny-*/cv.json")
        }
        for outputs in ("single", "jobs")
    ]
    assert len(summaries[0]) == 4
    assert summaries[0] == summaries[1]
    assert predictions(tmp_path / "jobs") == predictions(tmp_path / "single")


def print_sweep(tmp_path, *overrides: list[str], protocol: str = "benchmark") -> None:
    """Print a sweep whose job k has the objective k / 10, of val/loss, and the accuracy (12 - k) / 12."""
    jobs = []
    for k, words in enumerate(overrides):
        folder = write_run(tmp_path / f"run{k}", np.arange(12) >= k)
        for path in folder.glob("fold*/result.json"):
            replace(FoldResult.load(path), protocol=protocol, objective=-0.9 + k / 10, val_accuracy=0.5).save(path)
        jobs.append(
            sweep.Job(k, words, "all", "finished", str(folder), protocol=protocol, monitor="val/loss", mode="min")
        )
    print_jobs(jobs, ["-m", "optim.lr=1e-3,3e-4", "split=benchmark"])


def test_settings_compared_on_scored_clips_are_marked_as_optimistic(tmp_path, capsys):
    print_sweep(tmp_path, ["optim.lr=1e-3", "seed=1"], ["optim.lr=3e-4", "seed=1"])
    out = capsys.readouterr().out
    assert "look better than they are" in out
    assert out.strip().endswith("soundfold train -m optim.lr=1e-3,3e-4 split=nested")
    assert [line.split()[1] for line in out.splitlines() if line.startswith("│")] == ["0", "1"]
    assert "best" not in out.partition("Settings that")[0]


@pytest.mark.parametrize("key", ["seed", "fold", "experiment"])
def test_repeats_are_not_marked_as_optimistic(key, tmp_path, capsys):
    print_sweep(tmp_path, [f"{key}=1", "optim.lr=1e-3"], [f"{key}=2", "optim.lr=1e-3"])
    assert "look better than they are" not in capsys.readouterr().out


def test_a_nested_sweep_shows_and_sorts_by_the_validation_figure(tmp_path, capsys):
    lrs = ("1e-3", "3e-4", "1e-4")
    print_sweep(tmp_path, *([f"optim.lr={lr}"] for lr in lrs), protocol="nested")
    out = capsys.readouterr().out
    assert [line.split()[1::2][:3] for line in out.splitlines() if line.startswith("│")] == [
        ["2", "optim.lr=1e-4", "0.7"],
        ["1", "optim.lr=3e-4", "0.8"],
        ["0", "optim.lr=1e-3", "0.9"],
    ]
    assert "val/loss" in out
    assert "accuracy" not in out


@pytest.mark.slow
def test_a_job_of_a_nested_sweep_prints_no_test_figure(root, tmp_path, train_here):
    settings = ("split=nested", "fold=1", "report.page=none", "trainer.max_epochs=1", "optim.lr=1e-3,1e-4")
    code, out, err = train_here(runs.cross_validate, "-m", *overrides(root, tmp_path / "out", *settings))
    assert code == 0
    assert len(re.findall(r"Fold 1/3: best epoch 1, val/loss \S+, validation accuracy \S+ %, epoch 1", err)) == 2
    assert not re.search("[^n] accuracy", out + err)


@pytest.mark.parametrize(("protocol", "objective"), [("benchmark", None), ("nested", 0.5)])
def test_no_objective_is_the_score_of_test_clips(protocol, objective, monkeypatch):
    """A sweeper of Hydra's may choose by what the entry point returns."""
    monkeypatch.setattr(runs, "cross_validate", lambda *_, **__: 0.5)
    job = OmegaConf.create({"mode": RunMode.RUN, "runtime": {"config_sources": []}})
    monkeypatch.setattr(sweep.HydraConfig, "get", lambda: job)
    assert task(compose_config(f"split={protocol}")) == objective
