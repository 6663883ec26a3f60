"""Jobs of a sweep: each writes a record of its outcome, which the process that started the sweep reads."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from soundfold.errors import InputError, TrainingError, printable
from soundfold.io.atomic import write_text
from soundfold.io.reading import check_types, read_text
from soundfold.io.signals import handle_stop_signals
from soundfold.validation import count_processes, launched_rank

RECORD, TRACEBACK = "job.json", "traceback.txt"
MAX_RECORD = 1_000_000  # bytes


class JobError(Exception):
    """A job of a sweep failed; its record has the details.

    It replaces the job's own exception, because a launcher may pickle it, which not every exception supports.
    """


@dataclass
class Job:
    """Record of one job of a sweep.

    Attributes:
        number: position in the sweep, from 0.
        overrides: all overrides of the job, such as ``optim.lr=0.001``.
        fold: ``fold`` of the configuration.
        status: ``running``, ``finished`` or ``failed``; a killed job stays ``running``.
        run: absolute path of the run's folder; None until it is known.
        error: the error message.
        traceback: absolute path of the traceback; None for errors that are explained by their message.
        protocol: ``split.protocol`` of the configuration.
        monitor: ``selection.monitor`` of the configuration.
        mode: whether its smallest (``min``) or largest (``max``) value is best; empty until the run is known.
    """

    number: int
    overrides: list[str]
    fold: int | str
    status: str = "running"
    run: str | None = None
    error: str | None = None
    traceback: str | None = None
    protocol: str = ""
    monitor: str = ""
    mode: str = ""


class Sweep(Callback):
    """Hydra callback that remembers folder and settings of the sweep that this process started.

    Attributes:
        folder: of the sweep; None if there is none.
        settings: numbers of the jobs of each setting; with ``fold=each`` there is one per fold.
    """

    folder: ClassVar[Path | None] = None
    settings: ClassVar[list[range]] = []

    @staticmethod
    def add_settings(settings: Sequence[Sequence[list[str]]]) -> list[list[str]]:
        """Remember the jobs of the next settings; return the overrides of each job."""
        for jobs in settings:
            start = Sweep.settings[-1].stop if Sweep.settings else 0
            Sweep.settings.append(range(start, start + len(jobs)))
        return [job for jobs in settings for job in jobs]

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Remember the folder, and delete records of an earlier sweep in the same folder."""
        if config.dry_run:
            return
        # submitit starts `python -m`, which would put the current folder first on the import path
        os.environ["PYTHONSAFEPATH"] = "1"
        Sweep.folder, Sweep.settings = Path(config.hydra.sweep.dir).resolve(), []
        for name in (RECORD, TRACEBACK):
            for path in Sweep.folder.glob(f"*/{name}"):
                path.unlink()


@contextmanager
def record_job(cfg: DictConfig) -> Iterator[Callable[[Path], None] | None]:
    """Record the outcome of a job of a sweep, and reserve a GPU for it if there are several.

    Yields:
        A function that records the run's folder; None outside a sweep, where nothing is recorded.

    Raises:
        JobError: the body raised an exception, which the record describes.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        yield None
        return
    folder = Path(hydra.runtime.output_dir)
    values = {"protocol": cfg.split.protocol, "monitor": cfg.selection.monitor}
    # reading an item would resolve an interpolation, which may be a secret
    overrides: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    job = Job(hydra.job.num, overrides, cfg.fold, **values)

    def save() -> None:
        if not launched_rank(cfg).is_first:
            return
        write_text(folder / RECORD, json.dumps(asdict(job), indent=1))

    def record_folder(run: Path) -> None:
        # imported here: torch would delay the answer to a misspelled key by seconds
        from soundfold.experiment.metrics import monitor_mode

        job.run, job.mode = str(run.resolve()), monitor_mode(cfg)
        save()

    save()
    try:
        # the process of a launcher has not been through the command line
        with handle_stop_signals():
            if count_processes(cfg) == 1:
                claim_gpu(folder.parent, job.number)
            yield record_folder
    except Exception as error:
        job.status, job.error = "failed", str(error)
        if not isinstance(error, InputError | TrainingError):
            job.error = f"{type(error).__name__}: {error}"
            job.traceback = str(folder / TRACEBACK)
            write_text(folder / TRACEBACK, traceback.format_exc())
        save()
        # now as well as at the end of the sweep: the other jobs may run for hours
        print(f"Job {job.number} failed: {printable(job.error)}", file=sys.stderr)
        raise JobError(f"Job {job.number} failed: {job.error}") from None
    job.status = "finished"
    save()


def record_failure(folder: Path, number: int, overrides: list[str], error: str) -> None:
    """Record the failure of a job that could not do so itself: its process was killed, or never started.

    Args:
        folder: the sweep's folder.
        number: the job's number.
        overrides: of the job.
        error: the message.
    """
    path = folder / str(number) / RECORD
    job = _read_job(path) if path.exists() else Job(number, overrides, "all")
    if job.status == "running":
        job.status, job.error = "failed", error
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(asdict(job), indent=1))


def read_jobs(folder: Path) -> list[Job]:
    """Return the jobs that a sweep has started, in its order."""
    return sorted(map(_read_job, folder.glob(f"*/{RECORD}")), key=lambda job: job.number)


def _read_job(path: Path) -> Job:
    try:
        values = json.loads(read_text(path, MAX_RECORD))
        check_types(Job, values)
        return Job(**values)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        # the folder is named by the job's number
        number = int(path.parent.name) if path.parent.name.isdecimal() else -1
        reason = f"its record {path} cannot be read ({error}), so its outcome is unknown. Repeat the command."
        return Job(number, [], "all", status="failed", error=reason)


# the operating system releases them when this process ends
_gpu_locks: list[Any] = []


def claim_gpu(folder: Path, number: int) -> None:
    """Restrict this process to one of several CUDA devices that no other process of the sweep uses.

    The choice holds for all jobs of this process, because CUDA reads ``CUDA_VISIBLE_DEVICES`` once. If all devices are
    in use, they are shared by job number. With at most one device, as in a SLURM job, nothing is done.

    Args:
        folder: the sweep's folder, which has the lock files.
        number: the job's number.
    """
    # imported here: the process that starts the sweep does without them
    import torch
    from filelock import FileLock, Timeout

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(k) for k in range(torch.cuda.device_count())] if visible is None else visible.split(",")
    if len(names) < 2:
        return
    index = number % len(names)
    for k in range(len(names)):
        lock = FileLock(folder / f"device{k}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _gpu_locks.append(lock)
        index = k
        break
    os.environ["CUDA_VISIBLE_DEVICES"] = names[index]
