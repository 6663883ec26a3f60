"""The launcher of SLURM without a SLURM; ``tests/cluster`` runs it on one."""

import os
import pickle
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from submitit import SlurmJob
from submitit.core.utils import UncompletedJobError

from hydra_plugins import soundfold_slurm_launcher as slurm
from soundfold.errors import InputError
from soundfold.experiment.sweep import Job, read_jobs, record_failure
from soundfold.io.signals import Stopped, handle_stop_signals


def write_program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def jobs_in(folder: Path, count: int) -> list[SlurmJob]:
    jobs = [SlurmJob(folder / "%j", f"7_{index}") for index in range(count)]
    for job in jobs:
        job.paths.folder.mkdir(parents=True)
    return jobs


def finish(job: SlurmJob) -> JobReturn:
    """Write the result of a job."""
    result = JobReturn(status=JobStatus.COMPLETED)
    job.paths.result_pickle.write_bytes(pickle.dumps(("success", result)))
    return result


@pytest.mark.parametrize(
    ("answer", "ended"),
    [
        ("echo '7_0|RUNNING'; echo '7_1|CANCELLED'; echo '7_2|PENDING'", {"7_1", "7_3"}),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", {"7_0", "7_1", "7_2", "7_3"}),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", set()),
    ],
    ids=["states", "forgotten", "no-answer"],
)
def test_ended_jobs_are_found_in_the_queue(answer, ended, tmp_path, monkeypatch):
    write_program(tmp_path / "bin", "squeue", answer)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert slurm._ended_in_queue(jobs_in(tmp_path, 4)).keys() == ended


def test_only_a_job_that_stays_ended_without_a_result_is_lost(tmp_path, monkeypatch, capfd):
    """Job 0 finishes; 1 is requeued, which looks like an end for a moment; 2 is killed."""
    monkeypatch.setattr(slurm, "POLL_EVERY", 0)
    monkeypatch.setattr(slurm.time, "sleep", lambda _: None)
    jobs = jobs_in(tmp_path, 3)
    killed = {"7_2": "SLURM's state FAILED."}
    answers = iter([{}, {"7_1": "SLURM's state FAILED."}, killed, killed, {}])

    def find_ended(running):
        answer = next(answers)
        if not answer:
            finish(jobs[0 if len(running) == 3 else 1])
        return answer

    results = dict(slurm._wait(jobs, find_ended))
    assert [results[index].status for index in range(3)] == [JobStatus.COMPLETED, JobStatus.COMPLETED, JobStatus.FAILED]
    assert capfd.readouterr().err == "error: Job 7_2 ended without a result: SLURM's state FAILED.\n"
    assert str(results[2]._return_value).endswith("Its log: " + str(jobs[2].paths.stderr))


def test_an_interrupted_sweep_names_the_jobs_that_go_on(tmp_path, monkeypatch, capsys):
    def interrupted_wait(jobs, _):
        yield 1, finish(jobs[1])
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm, "_submit", lambda *_: jobs_in(tmp_path, 3))
    monkeypatch.setattr(slurm, "_wait", interrupted_wait)
    launcher = SimpleNamespace(config=OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    with pytest.raises(KeyboardInterrupt):
        slurm._launch(launcher, "slurm", [["seed=1"]] * 3, 0, None)
    assert capsys.readouterr().err.endswith("to end them: scancel 7_0 7_2\n")


def test_an_error_outside_of_the_task_is_the_job_s_failure(tmp_path):
    (job,) = jobs_in(tmp_path, 1)
    trace = "Traceback (most recent call last):\n  File ...\nConfigKeyError: Key 'x' not in 'Config'\n    full_key: x\n"
    job.paths.result_pickle.write_bytes(pickle.dumps(("error", trace)))
    failed = slurm._result(job)
    assert failed.status == JobStatus.FAILED
    assert str(failed._return_value).startswith("ConfigKeyError: Key 'x' not in 'Config' full_key: x Its log: ")


def test_a_missing_slurm_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch and srun are not on the PATH"):
        slurm._submit(SimpleNamespace(params={}), "slurm", [["seed=1"]], 0)


def test_the_failure_of_a_lost_job_is_recorded(tmp_path):
    (tmp_path / "0").mkdir()
    for status in ("running", "finished"):
        (tmp_path / "0" / "job.json").write_text(
            f'{{"number": 0, "overrides": ["fold=1"], "fold": 1, "status": "{status}"}}'
        )
        record_failure(tmp_path, 0, ["fold=1"], "killed")
        (job,) = read_jobs(tmp_path)
        assert (job.status, job.error) == (("failed", "killed") if status == "running" else ("finished", None))
    record_failure(tmp_path, 1, ["fold=2"], "cancelled")  # never started
    assert read_jobs(tmp_path)[1] == Job(1, ["fold=2"], "all", "failed", error="cancelled")


@pytest.fixture
def job_handlers():
    """Restore the handlers that the launcher replaces in a job."""
    numbers = (signal.SIGTERM, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def interrupted(monkeypatch, *received: signal.Signals, handler) -> JobReturn:
    """Run a job that receives signals, after submitit has set its handlers."""

    def run(*_):
        with handle_stop_signals():
            for number in received:
                signal.raise_signal(number)

    signal.signal(signal.SIGTERM, lambda *_: None)  # submitit ignores it
    signal.signal(signal.SIGUSR2, handler)
    # Hydra executes the modules of plugins again, so submitit's class of this name may be another by now
    monkeypatch.setattr(slurm.SlurmLauncher.__base__, "__call__", run)
    return slurm.SlurmLauncher(timeout_min=240)(["fold=1"])


def requeue(number, frame):
    raise SystemExit(-1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2], ids=["told-to-end", "time-limit"])
def test_a_signal_of_slurm_stops_a_job(number, job_handlers, monkeypatch):
    with pytest.raises(Stopped) as stop:
        interrupted(monkeypatch, number, handler=requeue)
    assert stop.value.code == 143


def test_the_sigterm_that_follows_a_requeuing_does_not_disturb_the_end(job_handlers, monkeypatch):
    def requeue_and_terminate(number, frame):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the first SIGTERM has not stopped the job")

    with pytest.raises(Stopped):
        interrupted(monkeypatch, signal.SIGUSR2, handler=requeue_and_terminate)


def test_a_job_out_of_time_for_the_last_time_fails_with_the_reason(job_handlers, monkeypatch):
    def refuse(number, frame):
        raise UncompletedJobError("Job not requeued because: timed-out too many times.")

    failed = interrupted(monkeypatch, signal.SIGUSR2, handler=refuse)
    assert failed.status == JobStatus.FAILED
    message = str(failed._return_value)
    assert "hydra.launcher.timeout_min=240" in message
    assert "too many times" in message
