"""The launcher of parallel processes: a job whose process dies fails, and the others run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny import ROOT, overrides, render
from helpers.waiting import ONE_THREAD, wait_for

from soundfold.experiment.sweep import read_jobs

APP = """
import os, sys, time
from pathlib import Path
import hydra

@hydra.main(version_base="1.3", config_path=None)
def main(cfg):
    if cfg.x == 2:
        print("killed")
        {death}
    time.sleep(0.1)
    Path("done%s" % cfg.x).write_text(os.environ["OMP_NUM_THREADS"])

if __name__ == "__main__":
    main()
"""
DEATHS = {
    "killed": "os.kill(os.getpid(), 9)",
    "exits": "os._exit(3)",
    "terminated": "sys.exit(143)",
    "segfault": "import ctypes; ctypes.string_at(0)",
}


@pytest.mark.parametrize(
    "death", ["killed", *(pytest.param(name, marks=pytest.mark.slow) for name in DEATHS if name != "killed")]
)
def test_the_other_jobs_of_a_killed_process_finish(death, tmp_path):
    (tmp_path / "app.py").write_text(APP.format(death=DEATHS[death]))
    target = "hydra.launcher._target_=hydra_plugins.soundfold_launcher.ProcessLauncher"
    launcher = ["hydra/launcher=joblib", target, "hydra.launcher.n_jobs=2", "hydra.output_subdir=null"]
    command = [sys.executable, "app.py", "-m", "+x=1,2,3,4,5", *launcher]
    env = {**os.environ, "OMP_NUM_THREADS": "3"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env)
    assert sorted(path.name for path in tmp_path.glob("done*")) == ["done1", "done3", "done4", "done5"]
    assert (tmp_path / "done1").read_text() == "3"
    assert done.returncode != 0
    assert "Job 1 failed: its process ended, or was killed" in done.stderr
    assert "JobError: Job 1 failed" in done.stderr


def workers_of(pid: int) -> list[int]:
    """Return the processes of a sweep's launcher."""
    children = subprocess.run(["ps", "-wwo", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in children.splitlines() if "popen_loky" in line]


def is_running(pid: int) -> bool:
    """Return False also for a zombie, which a container's first process may not collect."""
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().split(")")[-1].split()[0] != "Z"


def start_sweep(tmp_path: Path) -> tuple[subprocess.Popen, Path]:
    """Start a sweep of four folds in two processes; return it and its folder once both run a job."""
    root, folder = render(tmp_path / "root", folds=4), tmp_path / "sweep"
    options = ("hydra/launcher=processes", "fold=1,2,3,4", f"hydra.sweep.dir={folder}", "trainer.max_epochs=1")
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", *overrides(root, tmp_path / "out", *options)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ONE_THREAD}
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    wait_for(lambda: sum(job.status == "running" for job in read_jobs(folder)) == 2, process)
    return process, folder


@pytest.mark.slow
def test_a_killed_job_of_a_sweep_is_listed_and_the_others_finish(tmp_path):
    process, folder = start_sweep(tmp_path)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 1, err
    assert sorted(job.status for job in read_jobs(folder)) == ["finished"] * 3 + ["running"]
    assert "it is still running, or was killed." in err
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False], ids=["ctrl-c", "sigterm"])
def test_a_stopped_sweep_starts_no_other_job(group, tmp_path):
    process, folder = start_sweep(tmp_path)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT) if group else process.terminate()
    _, err = process.communicate()
    assert process.returncode == (130 if group else 143)
    assert len(read_jobs(folder)) == 2
    assert "Traceback" not in err
    assert err.count("Stopped by") == 1
    assert not any(is_running(pid) for pid in workers)
