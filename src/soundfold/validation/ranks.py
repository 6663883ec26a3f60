"""Rules of the processes that train a fold together."""

from __future__ import annotations

import os

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from soundfold.errors import InputError
from soundfold.io.ranks import Rank, find_rank
from soundfold.validation.loggers import is_wandb_trial


def count_processes(cfg: DictConfig) -> int:
    """Return the number of processes that train a fold, one per device."""
    return cfg.trainer.devices * cfg.trainer.num_nodes


def launched_rank(cfg: DictConfig) -> Rank:
    """Return the rank of this process among those that torchrun or srun started for this run."""
    return find_rank(count_processes(cfg))


def check_batch_size(cfg: DictConfig) -> None:
    trainer = cfg.trainer
    shards = count_processes(cfg) * trainer.accumulate_grad_batches
    if shards > 1 and cfg.data.batch_size < 4 * shards:
        nodes = f"trainer.num_nodes={trainer.num_nodes} times " if trainer.num_nodes > 1 else ""
        raise InputError(
            f"data.batch_size={cfg.data.batch_size} must be at least {4 * shards}: {nodes}"
            f"trainer.devices={trainer.devices} times "
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} parts require four clips each."
        )
    if trainer.devices > 1 and trainer.accelerator == "mps":
        raise InputError(f"trainer.devices={trainer.devices} is not available: trainer.accelerator=mps has one device.")


def check_ranks(cfg: DictConfig) -> None:
    trainer, rank = cfg.trainer, launched_rank(cfg)
    if not rank.launcher:
        if trainer.num_nodes > 1:
            raise InputError(
                f"trainer.num_nodes={trainer.num_nodes} requires a process for each device on each machine: start them "
                f"by torchrun --nnodes {trainer.num_nodes} --nproc-per-node {trainer.devices}, or by srun."
            )
        return
    if (rank.per_machine, rank.count) != (trainer.devices, count_processes(cfg)):
        raise InputError(
            f"{rank.launcher} started {rank.count} processes in all, {rank.per_machine} per machine, but this run has "
            f"trainer.devices={trainer.devices} and trainer.num_nodes={trainer.num_nodes}. Set trainer.devices to the "
            "number of processes of a machine, and trainer.num_nodes to the number of machines."
        )
    _check_command(cfg, rank.launcher)


def _check_command(cfg: DictConfig, launcher: str) -> None:
    """Refuse what one process must coordinate, which starts the processes of each fold itself."""
    is_sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    refused = {
        # the tasks of a job of the SLURM launcher are processes of one run
        "-m": is_sweep and "SUBMITIT_EXECUTOR" not in os.environ,
        "search": cfg.search is not None,
        "a trial of a W&B sweep": is_wandb_trial(),
    }
    if found := [name for name, is_refused in refused.items() if is_refused]:
        raise InputError(
            f"{launcher} starts the processes of one run, which excludes {found[0]}. Start one process: "
            f"trainer.devices={cfg.trainer.devices} makes it start the others."
        )
