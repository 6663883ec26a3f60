"""The rank of this process among those that torchrun or srun started for one training, from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from soundfold.errors import InputError


@dataclass(frozen=True)
class Rank:
    """This process among those that train together.

    Attributes:
        number: of this process, from 0.
        count: number of processes.
        per_machine: number of processes of a machine.
        launcher: the program that started them, ``torchrun`` or ``srun``; empty for a process that was started by
            itself.
    """

    number: int = 0
    count: int = 1
    per_machine: int = 1
    launcher: str = ""

    @property
    def is_first(self) -> bool:
        return self.number == 0


def find_rank(processes: int = 1) -> Rank:
    """Return the rank of this process.

    Args:
        processes: the number that the configuration asks for. With one, the tasks of srun are independent runs, which
            share folds by their locks; torchrun always starts the processes of one run.

    Raises:
        InputError: the environment describes several processes incompletely.
    """
    # a single process of torchrun cannot start others: they would look for its store
    if _number("WORLD_SIZE", 1) > 1 or (processes > 1 and "TORCHELASTIC_RUN_ID" in os.environ):
        count = _number("WORLD_SIZE")
        return Rank(_number("RANK"), count, _number("LOCAL_WORLD_SIZE", count), "torchrun")
    # set in a step of srun; in a batch script, SLURM_NTASKS is set for one process, too
    if processes > 1 and (count := _number("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return Rank(_number("SLURM_PROCID"), count, _number("SLURM_NTASKS_PER_NODE"), "srun")
    return Rank()


def _number(name: str, default: int | None = None) -> int:
    value = os.environ.get(name, default)
    try:
        return int(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = "is not set" if value is None else f"is {value!r}"
        raise InputError(
            f"The environment variable {name} {found}, but this is one of several processes of a run. Start them by "
            "torchrun --nproc-per-node N, or by srun --ntasks-per-node N."
        ) from None
