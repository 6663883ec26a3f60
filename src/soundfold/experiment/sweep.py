"""Jobs of a sweep: each leaves a record of itself, whatever launched it, for whoever began the sweep to read."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from soundfold.errors import InputError, TrainingError
from soundfold.io.atomic import write_text
from soundfold.io.signals import handle_stop_signals

RECORD, TRACEBACK = "job.json", "traceback.txt"


class JobError(Exception):
    """A job of a sweep failed, as its record says.

    It stands in for what the job raised: a launcher carries it to another process, which not every exception survives.
    """


@dataclass
class Job:
    """What became of one job of a sweep.

    Attributes:
        number: from 0, in the order of the sweep.
        overrides: all words that it was composed of, such as ``optim.lr=0.001``.
        fold: as in the configuration.
        status: ``running``, ``finished`` or ``failed``; one that was killed stays at ``running``.
        run: the run's folder, absolute; None until it is known.
        error: what it failed of, in a paragraph.
        traceback: file of the traceback, absolute, where it failed of a fault and not of bad input.
    """

    number: int
    overrides: list[str]
    fold: int | str
    status: str = "running"
    run: str | None = None
    error: str | None = None
    traceback: str | None = None


class Sweep(Callback):
    """Hydra's hook: the folder of the sweep that this process began."""

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note the folder, and clear it of what an earlier sweep recorded where the user gave it a fixed one."""
        Sweep.folder = Path(config.hydra.sweep.dir).resolve()
        for name in (RECORD, TRACEBACK):
            for path in Sweep.folder.glob(f"*/{name}"):
                path.unlink()


@contextmanager
def record_job(cfg: DictConfig) -> Iterator[Callable[[Path], None] | None]:
    """Record what becomes of a job of a sweep, and give it a device of its own where there are several.

    Yields:
        What is to be told the run's folder; None where the process is no job of a sweep, and nothing is recorded.

    Raises:
        JobError: what was done within raised an exception; the record has it.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        yield None
        return
    folder = Path(hydra.runtime.output_dir)
    job = Job(hydra.job.num, list(hydra.overrides.task), cfg.fold)

    def save() -> None:
        write_text(folder / RECORD, json.dumps(asdict(job), indent=1))

    def opened(run: Path) -> None:
        job.run = str(run.resolve())
        save()

    save()
    try:
        # a launcher's process has not come by the command line
        with handle_stop_signals():
            if cfg.trainer.devices == 1:
                claim_gpu(folder.parent, job.number)
            yield opened
    except Exception as error:
        job.status, job.error = "failed", str(error)
        if not isinstance(error, InputError | TrainingError):
            job.error = f"{type(error).__name__}: {error}"
            job.traceback = str(folder / TRACEBACK)
            write_text(folder / TRACEBACK, traceback.format_exc())
        save()
        # at once, too: the others may go on for hours
        print(f"Job {job.number} failed: {job.error}", file=sys.stderr)
        raise JobError(f"Job {job.number} failed: {job.error}") from None
    job.status = "finished"
    save()


def read_jobs(folder: Path) -> list[Job]:
    """The jobs that a sweep has begun, in its order."""
    jobs = [Job(**json.loads(path.read_text())) for path in folder.glob(f"*/{RECORD}")]
    return sorted(jobs, key=lambda job: job.number)


# locks of this process on its device, released when it ends
_held: list[FileLock] = []


def claim_gpu(folder: Path, number: int) -> None:
    """Let this process see one of several CUDA devices: one that no other process of the sweep has taken.

    The choice is the process's, for all its jobs: CUDA reads the variable once. Where all devices are taken, the
    job's number decides. With one device, as SLURM gives to a job, or none, nothing is done.

    Args:
        folder: of the sweep, where the devices are locked.
        number: of the job.
    """
    # imported here: who began the sweep needs no PyTorch
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(k) for k in range(torch.cuda.device_count())] if visible is None else visible.split(",")
    if len(names) < 2:
        return
    chosen = number % len(names)
    for k in range(len(names)):
        lock = FileLock(folder / f"device{k}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _held.append(lock)
        chosen = k
        break
    os.environ["CUDA_VISIBLE_DEVICES"] = names[chosen]
