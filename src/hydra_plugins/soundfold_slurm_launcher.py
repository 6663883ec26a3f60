"""Hydra launchers of ``hydra/launcher=slurm``, ``slurm_cpu`` and ``slurm_local``, based on submitit's."""

from __future__ import annotations

import logging
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus

# Hydra imports every plugin, also where the extra `launchers` is not installed
try:
    from hydra_plugins.hydra_submitit_launcher import submitit_launcher
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
except ImportError:
    submitit_launcher = None

log = logging.getLogger(__name__)
# seconds between two calls of squeue; a job has ended without a result if two in succession say so
POLL_EVERY = 20
# a job that is requeued is in some of these states for a moment
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"TIMEOUT"}
HINTS = {"OUT_OF_MEMORY": " Raise hydra.launcher.mem_gb.", "TIMEOUT": " Raise hydra.launcher.timeout_min."}

if submitit_launcher is not None:

    class SlurmLauncher(submitit_launcher.SlurmLauncher):
        """Runs each job of a sweep as a job of SLURM.

        A job that SLURM cancels, or whose process is killed, fails alone: the others finish. Ended jobs are found by
        ``squeue``, which needs no accounting. SIGTERM, as sent by ``scancel``, ``scontrol requeue`` and preemption,
        ends a job with closed loggers; SLURM starts it again if it is to be requeued. The signal before the time limit
        also requeues the job, ``max_num_timeout`` times.

        Args:
            params: of submitit's launcher.
        """

        _failure: str | None = None  # why a job that was interrupted has failed

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Submit a job for each list of overrides; return their results in this order."""
            return _launch(self, "slurm", job_overrides, initial_job_idx, _ended_in_queue)

        def __call__(self, *arguments: Any) -> JobReturn:
            """Run a job, in its process."""
            from submitit import JobEnvironment

            from soundfold.io.signals import Stopped

            # submitit's handler ignores SIGTERM; the job then trained on until SLURM killed it
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            number = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
            signal.signal(number, partial(self._requeue, signal.getsignal(number)))
            try:
                return super().__call__(*arguments)
            except Stopped:
                if self._failure is None:
                    raise
                return _failed(self._failure)

        def _requeue(self, handler: Any, number: int, frame: FrameType | None) -> None:
            """Let submitit requeue the job, then end it like SIGTERM does."""
            from soundfold.io.signals import Stopped

            try:
                handler(number, frame)
            except Stopped:
                raise  # by SIGTERM, which follows the requeuing
            except SystemExit:
                pass  # after the requeuing
            except Exception as error:
                self._failure = (
                    f"SLURM's time limit (hydra.launcher.timeout_min={self.params['timeout_min']}) is reached. {error} "
                    "Raise timeout_min or max_num_timeout, or repeat the command: it resumes from the last checkpoint."
                )
            signal.raise_signal(signal.SIGTERM)

    class LocalLauncher(submitit_launcher.LocalLauncher):
        """Runs the jobs of a sweep as `SlurmLauncher` does, in processes of this machine.

        Args:
            params: of submitit's launcher.
        """

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Start a process for each list of overrides; return their results in this order."""
            return _launch(self, "local", job_overrides, initial_job_idx, _ended_processes)


def _launch(
    launcher: Any, cluster: str, job_overrides: Sequence[Sequence[str]], first: int, find_ended: Callable
) -> list[JobReturn]:
    """Submit the jobs, wait for them, and record the failures of those that could not do so themselves."""
    from soundfold.experiment.sweep import record_failure

    folder = Path(launcher.config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = _submit(launcher, cluster, job_overrides, first)
    ids = [job.job_id for job in jobs]
    log.info(f"Submitted {len(jobs)} jobs ({', '.join(ids)}), whose logs are in {folder / '.submitit'}")
    results: dict[int, JobReturn] = {}
    try:
        for index, result in _wait(jobs, find_ended):
            results[index] = result
            if result.status == JobStatus.FAILED:
                result.overrides = list(job_overrides[index])
                # `return_value` would raise it
                record_failure(folder, first + index, result.overrides, str(result._return_value))
    except BaseException:
        if cluster == "slurm":
            running = " ".join(name for index, name in enumerate(ids) if index not in results)
            print(f"SLURM goes on with the other jobs; to end them: scancel {running}", file=sys.stderr)
        raise
    return [results[index] for index in range(len(jobs))]


def _submit(launcher: Any, cluster: str, job_overrides: Sequence[Sequence[str]], first: int) -> list[Any]:
    """Submit the jobs as an array; return submitit's objects for them."""
    import submitit

    from soundfold.errors import InputError

    if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise InputError(
            "This launcher requires SLURM, but its commands sbatch and srun are not on the PATH. Run this on a machine "
            "that submits jobs, or use hydra/launcher=processes."
        )
    options = dict(launcher.params)
    folder = options.pop("submitit_folder")
    start = {f"{cluster}_max_num_timeout": options.pop("max_num_timeout")} if "max_num_timeout" in options else {}
    executor = submitit.AutoExecutor(cluster=cluster, folder=folder, **start)
    shared = {field.name for field in fields(BaseQueueConf)}
    executor.update_parameters(**{name if name in shared else f"{cluster}_{name}": v for name, v in options.items()})
    state = Singleton.get_state()
    arguments = [
        (list(overrides), "hydra.sweep.dir", first + index, f"job_id_for_{first + index}", state)
        for index, overrides in enumerate(job_overrides)
    ]
    try:
        return executor.map_array(launcher, *zip(*arguments, strict=True))
    except submitit.core.utils.FailedJobError as error:
        raise InputError(
            f"SLURM refused the jobs: {' '.join(str(error).split())}. Correct the options in hydra.launcher, such as "
            "partition, account, timeout_min and mem_gb. Nodes without GPUs require hydra/launcher=slurm_cpu."
        ) from None


def _wait(jobs: Sequence[Any], find_ended: Callable) -> Iterator[tuple[int, JobReturn]]:
    """Yield the index and the result of each job when it ends."""
    running = dict(enumerate(jobs))
    ended: dict[str, str] = {}  # by id, as found before
    next_search = time.monotonic()
    while running:
        lost: dict[str, str] = {}
        if time.monotonic() >= next_search:
            found = find_ended(list(running.values()))
            lost = {name: reason for name, reason in found.items() if name in ended}
            ended = found
            next_search = time.monotonic() + POLL_EVERY
        for index, job in list(running.items()):
            result = _result(job)
            if result is None and job.job_id in lost:
                message = f"Job {job.job_id} ended without a result: {lost[job.job_id]}"
                print(f"error: {message}", file=sys.stderr)  # now as well as in the table: others may run for hours
                result = _failed(f"{message} Its log: {job.paths.stderr}")
            if result is not None:
                yield index, result
                del running[index]
        if running:
            time.sleep(1)


def _result(job: Any) -> JobReturn | None:
    """Return the result of a job, None if it has not written one."""
    from submitit.core.utils import UncompletedJobError

    folder = job.paths.folder
    with suppress(OSError):
        folder.chmod(folder.stat().st_mode)  # lets a network file system read the folder again
    if not job.paths.result_pickle.exists():
        return None
    try:
        return job.results()[0]
    except UncompletedJobError as error:
        # an exception before or after Hydra ran the job; submitit puts its traceback between two lines
        trace = str(error).split("-" * 22)[1 if "-" * 22 in str(error) else 0]
        start = max((found.start() for found in re.finditer(r"^[\w.]+: ", trace, re.MULTILINE)), default=0)
        return _failed(f"{' '.join(trace[start:].split())} Its log: {job.paths.stderr}")


def _failed(message: str) -> JobReturn:
    from soundfold.experiment.sweep import JobError

    failed = JobReturn()
    failed.status = JobStatus.FAILED
    failed.return_value = JobError(message)
    return failed


def _ended_in_queue(jobs: Sequence[Any]) -> dict[str, str]:
    """Return why jobs of SLURM have ended, by id; nothing if SLURM does not answer."""
    arrays = ",".join(sorted({job.job_id.split("_")[0] for job in jobs}))
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={arrays}", "--format=%i|%T"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    # SLURM forgets a job some minutes after its end, see MinJobAge in its configuration
    if done.returncode != 0 and "Invalid job id" not in done.stderr:
        return {}
    states = dict(line.strip().split("|") for line in done.stdout.splitlines() if "|" in line)
    reasons = {job.job_id: "SLURM no longer knows it." for job in jobs if job.job_id not in states}
    return reasons | {n: f"SLURM's state {s}.{HINTS.get(s, '')}" for n, s in states.items() if s in ENDED}


def _ended_processes(jobs: Sequence[Any]) -> dict[str, str]:
    """Return why submitit's local jobs have ended, by id."""
    return {job.job_id: "its process ended, or was killed." for job in jobs if job.done()}
