"""Hydra launcher of ``hydra/launcher=processes``; Hydra finds launchers in the namespace package ``hydra_plugins``."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals

# Hydra imports every plugin, also where the extra `launchers` is not installed
try:
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
except ImportError:
    JoblibLauncher = None

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

if JoblibLauncher is not None:

    class ProcessLauncher(JoblibLauncher):
        """Runs the jobs of a sweep in parallel processes.

        If one of joblib's processes is killed, joblib ends them all and starts no other job. Here each process is a
        separate pool, so only the job that it ran fails.

        Args:
            n_jobs: number of processes; -1 is the number of cores.
            kwargs: of `JoblibLauncher`, without effect.
        """

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Run a job for each list of overrides; return their results in this order."""
            from joblib.externals.loky import cpu_count

            setup_globals()
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
            Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
            n_jobs = cpu_count() if self.joblib["n_jobs"] < 1 else self.joblib["n_jobs"]
            pools = _Pools({name: str(max(1, cpu_count() // n_jobs)) for name in THREAD_VARIABLES})
            arguments = (self.hydra_context, self.config, self.task_function, Singleton.get_state())
            with ThreadPoolExecutor(n_jobs) as threads:
                jobs = [
                    threads.submit(pools.run, initial_job_idx + number, list(overrides), arguments)
                    for number, overrides in enumerate(job_overrides)
                ]
                try:
                    return [job.result() for job in jobs]
                finally:
                    # a signal ended the wait, or all jobs have ended
                    pools.end()


class _Pools:
    """A pool of one process for each thread that runs jobs."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = {name: value for name, value in environment.items() if name not in os.environ}
        self._pools: dict[int, Any] = {}
        self._ended = threading.Event()

    def run(self, number: int, overrides: list[str], arguments: tuple) -> JobReturn:
        """Run a job in this thread's process; start a new one if there is none."""
        # not public: a job as Joblib's launcher runs it
        from hydra_plugins.hydra_joblib_launcher._core import execute_job
        from joblib.externals.loky import ProcessPoolExecutor

        from soundfold.experiment.sweep import JobError

        failed = JobReturn()
        failed.status = JobStatus.FAILED
        if self._ended.is_set():
            failed.return_value = JobError(f"Job {number} was not started.")
            return failed
        thread = threading.get_ident()
        if thread not in self._pools:
            self._pools[thread] = ProcessPoolExecutor(1, env=self._environment)
        try:
            return self._pools[thread].submit(execute_job, number, overrides, *arguments).result()
        except BaseException as error:
            self._pools.pop(thread).shutdown(kill_workers=True)
            # Ctrl-C reaches all processes: wait for it to reach this one, which starts no other job then
            if not self._ended.wait(1):
                reason = " ".join(str(error).split()).split(" Detailed tracebacks")[0]
                message = f"Job {number} failed: its process ended, or was killed: {reason}"
                print(message, file=sys.stderr)
                error = JobError(message)
            failed.return_value = error
            return failed

    def end(self) -> None:
        """Kill the processes; no other is started."""
        self._ended.set()
        for pool in list(self._pools.values()):
            pool.shutdown(kill_workers=True)
