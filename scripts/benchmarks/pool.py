"""Jobs in parallel processes of one machine, until a deadline."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

# s that a stopped training needs to drop its unfinished epoch and close its files
GRACE = 10.0


@dataclass(frozen=True)
class Job:
    """A command of the plan.

    Attributes:
        name: unique; also the name of its log.
        command: program and arguments.
        after: jobs that must have finished before.
        alone: nothing else runs beside it, because it measures time.
    """

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    alone: bool = False


@dataclass
class _Running:
    process: subprocess.Popen
    log: IO[bytes]
    began: float


@dataclass
class Pool:
    """Runs jobs in the order of the list, several at a time.

    Attributes:
        parallel: most jobs at a time.
        deadline: `time.monotonic` at which everything has ended; running jobs are stopped a little earlier.
        logs: folder of a log per job.
        ended: called with a job, its status (finished, failed, stopped) and its seconds, as it ends.
        done: names of the jobs that finished, now or in an earlier start.
    """

    parallel: int
    deadline: float
    logs: Path
    ended: Callable[[Job, str, float], None]
    done: set[str] = field(default_factory=set)
    _running: dict[Job, _Running] = field(default_factory=dict)

    @property
    def remaining(self) -> float:
        """Seconds until running jobs are stopped."""
        return self.deadline - GRACE - time.monotonic()

    def run(self, jobs: Sequence[Job]) -> None:
        """Run the jobs that have not finished; return when all have ended or the time is over."""
        self.logs.mkdir(parents=True, exist_ok=True)
        waiting = [job for job in jobs if job.name not in self.done]
        try:
            while (waiting or self._running) and self.remaining > 0:
                self._collect()
                unfinished = {job.name for job in (*waiting, *self._running)}
                for job in list(waiting):
                    if not self._has_room(job):
                        break
                    if unfinished.isdisjoint(job.after):
                        waiting.remove(job)
                        if self.done.issuperset(job.after):
                            self._start(job)
                        else:
                            self.ended(job, "failed", 0.0)  # a job before it failed
                time.sleep(0.1)
        finally:
            self._stop()

    def _has_room(self, job: Job) -> bool:
        if any(other.alone for other in self._running) or (job.alone and self._running):
            return False
        return len(self._running) < self.parallel

    def _start(self, job: Job) -> None:
        log = (self.logs / f"{job.name}.log").open("ab")
        # in a new session: Ctrl-C reaches only the plan, which then stops its jobs
        process = subprocess.Popen(job.command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self._running[job] = _Running(process, log, time.monotonic())

    def _collect(self) -> None:
        for job, running in list(self._running.items()):
            if (code := running.process.poll()) is not None:
                self._end(job, "finished" if code == 0 else "failed")

    def _end(self, job: Job, status: str) -> None:
        running = self._running.pop(job)
        running.log.close()
        if status == "finished":
            self.done.add(job.name)
        self.ended(job, status, time.monotonic() - running.began)

    def _stop(self) -> None:
        self._collect()
        for running in self._running.values():
            running.process.terminate()
        for job, running in list(self._running.items()):
            try:
                running.process.wait(max(0.1, self.deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            self._end(job, "stopped")
