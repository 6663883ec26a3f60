"""The processes of a run that torchrun or srun started: rank 0 decides, prints and writes, and all train."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies.ddp import DDPStrategy
from omegaconf import DictConfig
from torch import distributed

from soundfold.errors import InputError, TrainingError, printable
from soundfold.io.console import console
from soundfold.io.ranks import Rank
from soundfold.validation import launched_rank

T = TypeVar("T")

# rank 0 may wait for a process of another run that trains a fold
LONGEST_WAIT = timedelta(days=30)
LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "socket timeout", "remote process")


@dataclass(frozen=True)
class Ranks:
    """The processes of this run.

    Attributes:
        rank: of this process.
        group: connects them, in host memory; None if this is the only one.
    """

    rank: Rank
    group: Any = None

    @property
    def is_first(self) -> bool:
        return self.rank.is_first

    def share(self, decide: Callable[[], T]) -> T:
        """Return on every rank what rank 0 decides; the others do not call the function."""
        if self.group is None:
            return decide()
        values = [decide() if self.is_first else None]
        distributed.broadcast_object_list(values, src=0, group=self.group)
        return values[0]  # type: ignore[return-value]

    def agree(self, prepare: Callable[[], T]) -> T:
        """Call a function on every rank, and return its value if it has succeeded on all.

        Raises:
            InputError: it failed on a rank. Only rank 0 raises; the others exit.
        """
        if self.group is None:
            return prepare()
        error: InputError | None = None
        try:
            value = prepare()
        except InputError as raised:
            error = raised
        messages: list[Any] = [None] * self.rank.count
        distributed.all_gather_object(messages, error and str(error), group=self.group)
        failed = [number for number, message in enumerate(messages) if message is not None]
        if not failed:
            return value
        if not self.is_first:
            sys.exit(2)
        raise error or InputError(f"Rank {failed[0]}: {messages[failed[0]]}")


@contextmanager
def join_ranks(cfg: DictConfig) -> Iterator[Ranks]:
    """Connect the processes that torchrun or srun started for this run; of several, only rank 0 prints.

    The connection lasts until this process ends, because Lightning uses it for all folds.

    Raises:
        TrainingError: another process ended.
    """
    rank = launched_rank(cfg)
    if rank.count == 1:
        yield Ranks(rank)
        return
    console.quiet = not rank.is_first
    try:
        yield Ranks(rank, _connect(rank, cfg.trainer.accelerator))
    except (InputError, TrainingError) as error:
        if rank.is_first:
            raise
        print(f"error: rank {rank.number}: {printable(error)}", file=sys.stderr)
        sys.exit(1 + isinstance(error, InputError))
    except RuntimeError as error:
        if not any(text in str(error).lower() for text in LOST):
            raise
        if rank.is_first:
            raise TrainingError(
                "Another process of this run ended, so the others cannot go on; its message, or that of "
                f"{rank.launcher}, says why. The same command resumes from the last checkpoint."
            ) from error
        sys.exit(1)


def cluster_environment(rank: Rank) -> ClusterEnvironment:
    """Return what tells Lightning the rank of this process.

    Without torchrun and srun it is `LightningEnvironment`: in a SLURM job, Lightning would otherwise save within an
    epoch and requeue the job, which is the launcher's task.
    """
    if rank.launcher == "srun":
        return SLURMEnvironment(auto_requeue=False)
    return TorchElasticEnvironment() if rank.launcher else LightningEnvironment()


@cache
def _connect(rank: Rank, accelerator: str) -> Any:
    """Return a group of all processes in host memory, beside the default one, which Lightning finds connected."""
    is_gpu = torch.cuda.is_available() and accelerator != "cpu"
    strategy = DDPStrategy(
        parallel_devices=[torch.device("cuda", k) if is_gpu else torch.device("cpu") for k in range(rank.per_machine)],
        cluster_environment=cluster_environment(rank),
    )
    strategy.num_nodes = rank.count // rank.per_machine
    strategy.setup_distributed()
    atexit.register(_disconnect)
    return distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)


def _disconnect() -> None:
    """Before the interpreter exits: the threads of the groups would outlive what they use."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
