"""Ranks of a run in new processes, with the variables that torchrun or srun would set."""

import os
import socket
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from helpers import killable
from soundfold.errors import InputError
from soundfold.experiment.ranks import join_ranks
from soundfold.io.console import console


def torchrun_variables(count: int) -> list[dict[str, str]]:
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    return [_text({**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in range(count)]


def srun_variables(count: int) -> list[dict[str, str]]:
    """Return the variables of the tasks of one node, and a free port instead of one that the number of the job sets."""
    shared = {f"SLURM_{name}": count for name in ("NTASKS", "NTASKS_PER_NODE", "STEP_NUM_TASKS")}
    shared |= {"SLURM_NODEID": 0, "SLURM_NNODES": 1, "SLURM_JOB_ID": 1, "SLURM_NODELIST": "127.0.0.1"}
    shared["MASTER_PORT"] = _free_port()
    return [_text({**shared, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}) for rank in range(count)]


def start(variables: dict[str, str], args: list[str], log: Path) -> BaseProcess:
    """Start the training command as one rank."""
    process = killable.server().Process(target=_train, args=(variables, args, log))
    process.start()
    return process


def share_and_fail(variables: dict[str, str], sender: Any) -> None:
    """Share a decision of rank 0, prepare on both ranks, and then fail on rank 1; send what each rank saw."""
    os.environ.update(variables)
    rank = int(variables["RANK"])

    def prepare() -> int:
        if rank == 1:
            raise InputError("It has no disk.")
        return rank

    seen, outcome = None, None
    try:
        with join_ranks(OmegaConf.create({"trainer": {"devices": 2, "num_nodes": 1, "accelerator": "cpu"}})) as ranks:
            seen = ranks.share(lambda: f"of rank {rank}"), ranks.agree(lambda: rank)
            ranks.agree(prepare)
    except (InputError, SystemExit) as error:
        outcome = f"{type(error).__name__}: {error}"
    sender.send((rank, seen, outcome, console.quiet))


def _train(variables: dict[str, str], args: list[str], log: Path) -> None:
    os.environ.update(variables)
    killable.train(args, log)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _text(variables: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in variables.items()}
