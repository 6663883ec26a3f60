"""Sweeps on a real SLURM of one node: ``make test-cluster``. Every part has a time limit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster.slurm import KILL_WAIT, Slurm, missing, start_slurm
from helpers.tiny import ROOT, only, overrides, render, train
from helpers.wandb_log import wandb_records

from soundfold.evaluation.results import load_folds
from soundfold.experiment.sweep import Job, read_jobs

LAUNCHER = ("hydra/launcher=slurm_cpu", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1")
EPOCHS = 4
# seconds: of a part; until a job that was cancelled or killed is listed, see POLL_EVERY
LIMIT, LOST_AFTER = 600, 120


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    if reason := missing():
        pytest.skip(f"needs a SLURM with accounting: {reason}")
    with start_slurm() as cluster:
        yield cluster


@pytest.fixture
def slurm_without_accounting() -> Iterator[Slurm]:
    if reason := missing(accounting=False):
        pytest.skip(f"needs a SLURM: {reason}")
    with start_slurm(accounting=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("tiny") / "root")


@pytest.fixture(scope="module")
def local(root, tmp_path_factory) -> Path:
    """Return the run of three folds in one process of this machine."""
    folder = tmp_path_factory.mktemp("local")
    open_gates(folder)
    done = train("-m", *settings(root, folder), "fold=1,2,3", env=environment(dict(os.environ), folder, threads=1))
    assert done.returncode == 0, done.stderr
    return only(folder / "outputs")


def environment(variables: dict[str, str], folder: Path, threads: int) -> dict[str, str]:
    # the class of the gate is imported from tests/
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return variables | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "GATES": f"{folder}/gates"}


def settings(root: Path, folder: Path) -> list[str]:
    gate = ("+callbacks.gate._target_=cluster.gate.Gate", "+callbacks.gate.epoch=2")
    options = (f"trainer.max_epochs={EPOCHS}", "logger=wandb", "report.page=none")
    return overrides(root, folder / "outputs", *options, *gate)


def open_gates(folder: Path, *folds: int) -> None:
    (folder / "gates").mkdir(exist_ok=True)
    for fold in folds or (1, 2, 3):
        (folder / "gates" / f"fold{fold}").touch()


def reached_gates(folder: Path) -> set[int]:
    return {int(path.name[4]) for path in (folder / "gates").glob("fold?.reached")}


@contextmanager
def sweep(slurm: Slurm, root: Path, folder: Path, *options: str) -> Iterator[subprocess.Popen]:
    """Start a sweep; kill it at the end if it still runs."""
    (folder / "gates").mkdir(exist_ok=True, parents=True)
    words = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", *settings(root, folder), *LAUNCHER, *options]
    # a job gets as many threads as cores, whatever this process has
    variables = environment(slurm.environment, folder, threads=2)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": variables}
    with subprocess.Popen([*words, f"hydra.sweep.dir={folder}/sweep"], **pipes) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            slurm.command("scancel", "--user=root")
            raise


def wait_until(condition: Callable[[], bool], process: subprocess.Popen | None, seconds: float = LIMIT) -> None:
    """Wait while ``process`` runs, if there is one."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "".join(process.communicate())
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


def end_of(process: subprocess.Popen) -> tuple[str, str]:
    """Wait for a sweep; return its standard output and standard error."""
    try:
        return process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"the sweep has not ended within {LIMIT} s: {''.join(process.communicate())}")


def job_ids(folder: Path) -> dict[int | str, str]:
    """Return the SLURM jobs by fold. The index of a job in its array is its number in the sweep."""
    logs = {path.name.removesuffix("_0_log.out") for path in (folder / "sweep" / ".submitit").glob("*/*_0_log.out")}
    folds = {job.number: job.fold for job in read_jobs(folder / "sweep")}
    return {folds[int(job.split("_")[1])]: job for job in logs}


def log_of(folder: Path, job: str) -> str:
    return "".join(path.read_text() for path in (folder / "sweep" / ".submitit").glob(f"*/{job}_0_log.*"))


def exit_codes(folder: Path) -> list[list[int]]:
    """Return the exit codes in each offline run of W&B; a run that was not closed has none."""
    runs = sorted((folder / "outputs").rglob("run-*.wandb"))
    return [[r.exit.exit_code for r in wandb_records(path) if r.HasField("exit")] for path in runs]


def assert_closed(folder: Path, finished: int) -> None:
    """Assert that the last part of each W&B run has finished, and that parts before it were stopped."""
    codes = exit_codes(folder)
    assert codes.count([0]) == finished
    assert all(code in ([0], [143]) for code in codes)


def statuses(folder: Path) -> dict[int | str, Job]:
    return {job.fold: job for job in read_jobs(folder / "sweep")}


def failed_folds(folder: Path) -> set[int | str]:
    return {fold for fold, job in statuses(folder).items() if job.status == "failed"}


def predictions(run: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in run.glob("fold*/predictions.csv")}


def summary(run: Path) -> dict[str, object]:
    changing = ("seconds", "folds", "checksum")
    return {name: value for name, value in json.loads((run / "cv.json").read_text()).items() if name not in changing}


def processes_of(job: str) -> list[int]:
    """Return the Python processes of a job, which ``srun`` started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            variables = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        array, index = job.split("_")
        wanted = {f"SLURM_ARRAY_JOB_ID={array}".encode(), f"SLURM_ARRAY_TASK_ID={index}".encode()}
        if b"submitit.core._submit" in words and wanted <= set(variables) and b"srun" not in words[0]:
            found.append(int(path.name))
    return found


def test_a_sweep_equals_one_process_and_a_job_that_fails_is_listed(slurm, root, local, tmp_path):
    open_gates(tmp_path)
    with sweep(slurm, root, tmp_path, "fold=1,9,2,3") as process:
        out, err = end_of(process)
    assert process.returncode == 1, err
    assert "error: job 1 (fold=9): fold=9 has no clips" in err
    assert "Traceback" not in err
    assert out.count("mean ± sd") == 1
    assert {fold: job.status for fold, job in statuses(tmp_path).items()} == {
        1: "finished",
        2: "finished",
        3: "finished",
        9: "failed",
    }
    run = only(tmp_path / "outputs")
    assert run.name == only(local.parent).name
    assert predictions(run) == predictions(local)
    assert summary(run) == summary(local)
    assert [result.environment["threads"] for result in load_folds(run)] == [1, 1, 1]
    # three folds and the cross-validation
    assert exit_codes(tmp_path) == [[0]] * 4
    (array,) = {job.split("_")[0] for job in job_ids(tmp_path).values()}
    # a job writes its result a moment before it ends
    wait_until(lambda: set(slurm.states(array).values()) == {"COMPLETED"}, process=None)


def test_cancelled_and_killed_jobs_end_and_the_others_finish(slurm, root, local, tmp_path):
    open_gates(tmp_path, 3)
    with sweep(slurm, root, tmp_path, "fold=1,2,3") as process:
        wait_until(lambda: reached_gates(tmp_path) == {1, 2}, process)
        jobs = job_ids(tmp_path)
        (killed,) = processes_of(jobs[2])
        slurm.command("scancel", jobs[1])
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: failed_folds(tmp_path) == {1, 2}, process, LOST_AFTER)
        out, err = end_of(process)
    assert process.returncode == 1, err
    assert {fold: job.status for fold, job in statuses(tmp_path).items()} == {1: "failed", 2: "failed", 3: "finished"}
    assert f"Job {jobs[1]} ended without a result: SLURM's state CANCELLED." in err
    assert f"Job {jobs[2]} ended without a result: SLURM's state FAILED." in err
    assert "Traceback" not in err
    assert "Sweep of 3 jobs" in out
    assert predictions(only(tmp_path / "outputs")) == {"fold3": predictions(local)["fold3"]}
    states = slurm.states(jobs[1].split("_")[0])
    assert [states[job].split()[0] for job in (jobs[1], jobs[2])] == ["CANCELLED", "FAILED"]
    # SIGTERM closed the cancelled run before SIGKILL followed; nothing can close the killed one
    assert sorted(exit_codes(tmp_path)) == [[], [0], [143]]


def test_a_requeued_job_ends_at_once_and_resumes(slurm, root, local, tmp_path):
    with sweep(slurm, root, tmp_path, "fold=1,2") as process:
        wait_until(lambda: reached_gates(tmp_path) == {1, 2}, process)
        job = job_ids(tmp_path)[1]
        slurm.command("scontrol", "requeue", job)
        wait_until(lambda: not processes_of(job), process, KILL_WAIT)
        open_gates(tmp_path)
        _, err = end_of(process)
    assert process.returncode == 0, err
    log = log_of(tmp_path, job)
    assert log.count("Starting with JobEnvironment") == 2
    assert "Bypassing signal SIGTERM" not in log
    run = only(tmp_path / "outputs")
    assert predictions(run) == {fold: text for fold, text in predictions(local).items() if fold != "fold3"}
    assert_closed(tmp_path, finished=2)


def test_a_job_out_of_time_is_requeued_and_fails_after_the_last_time(slurm, root, local, tmp_path):
    # SLURM checks limits every 30 s, and sends the signal that much earlier
    limit = ("hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=5")
    again = sweep(slurm, root, tmp_path / "again", "fold=1", *limit)
    once = sweep(slurm, root, tmp_path / "once", "fold=2", *limit, "hydra.launcher.max_num_timeout=0")
    with again as resumed, once as failed:
        _, err = end_of(failed)
        assert failed.returncode == 1, err
        assert "SLURM's time limit (hydra.launcher.timeout_min=2) is reached." in err
        assert "Traceback" not in err
        assert [job.status for job in read_jobs(tmp_path / "once" / "sweep")] == ["failed"]
        wait_until(lambda: "Requeued job" in log_of(tmp_path / "again", "*"), resumed)
        open_gates(tmp_path / "again")
        _, err = end_of(resumed)
        assert resumed.returncode == 0, err
    assert predictions(only(tmp_path / "again" / "outputs"))["fold1"] == predictions(local)["fold1"]
    assert exit_codes(tmp_path / "once") == [[143]]
    assert_closed(tmp_path / "again", finished=1)


def test_a_killed_job_ends_without_accounting(slurm_without_accounting, root, tmp_path):
    slurm = slurm_without_accounting
    open_gates(tmp_path, 2)
    with sweep(slurm, root, tmp_path, "fold=1,2") as process:
        wait_until(lambda: reached_gates(tmp_path) >= {1}, process)
        (killed,) = processes_of(job_ids(tmp_path)[1])
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: failed_folds(tmp_path) == {1}, process, LOST_AFTER)
        _, err = end_of(process)
    assert process.returncode == 1, err
    assert {fold: job.status for fold, job in statuses(tmp_path).items()} == {1: "failed", 2: "finished"}
    assert "sacct" not in err
