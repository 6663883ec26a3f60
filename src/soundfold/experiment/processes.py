"""Training of one fold in this process, or in one process per device, each of which Lightning finds started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from soundfold.data.loader import BatchShard
from soundfold.errors import InputError, TrainingError
from soundfold.evaluation.results import FoldResult
from soundfold.experiment.fold import train_fold
from soundfold.experiment.setup import RunContext, open_run
from soundfold.io.console import console
from soundfold.io.signals import ends_on_sigterm, handle_stop_signals
from soundfold.validation import launched_rank

SECONDS_TO_END = 10


def run_fold(run: RunContext, fold: int | None, watchers: Sequence[pl.Callback] = ()) -> FoldResult:
    """Train one fold on ``trainer.devices`` devices, score its test clips once, and write its files.

    Starts a process per device, unless torchrun or srun has. They are not started by Lightning, whose launcher repeats
    the command line: a job of a launcher has none, and one of a sweep or a search would do all the others, too. It
    also kills this process if another ends, so that no message, and no further fold, would follow.

    Args:
        run, fold, watchers: see `train_fold`. With several devices the watchers are pickled, and every rank has a copy.

    Raises:
        TrainingError: training cannot continue.
    """
    rank, accumulate = launched_rank(run.cfg), run.cfg.trainer.accumulate_grad_batches
    if rank.count == 1 and run.cfg.trainer.devices > 1:
        return _run_ranks(run, fold, watchers)
    return train_fold(run, fold, BatchShard(rank.number, rank.count, accumulate), watchers)


def _run_ranks(run: RunContext, fold: int | None, watchers: Sequence[pl.Callback]) -> FoldResult:
    """Train a fold in one process per device. If one fails, terminate the others, which would wait for it."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    receiver, sender = context.Pipe(duplex=False)
    options = run.cfg.trainer
    processes: list[BaseProcess] = []
    try:
        for rank in range(options.devices):
            shard = BatchShard(rank, options.devices, options.accumulate_grad_batches)
            args = (run.cfg, fold, shard, watchers, port, sender, HydraConfig.instance().cfg, ends_on_sigterm())
            process: BaseProcess = context.Process(target=_rank_main, args=args, name=f"rank {rank}")
            process.start()
            processes.append(process)
        sender.close()
        return _wait_for_result(receiver, processes)
    finally:
        deadline = time.monotonic() + SECONDS_TO_END
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            process.kill()
            process.join()


def _wait_for_result(receiver: Connection, processes: list[BaseProcess]) -> FoldResult:
    """Return rank 0's result after all processes have ended; raise the first failure."""
    result: FoldResult | None = None
    running = list(processes)
    while running:
        ready = wait([receiver, *(process.sentinel for process in running)])
        message = _receive(receiver)
        ended = [process for process in running if process.sentinel in ready]
        for process in ended:
            process.join()
        if result is None and (isinstance(message, Exception) or any(process.exitcode for process in ended)):
            # if a rank was killed, the others only report a lost connection: give it time to show in its exit code
            wait([process.sentinel for process in processes], timeout=1)
            killed = [process for process in processes if (process.exitcode or 0) < 0]
            message = message or _receive(receiver)
            if isinstance(message, Exception) and not killed:
                raise message
            raise _unexplained_exit(killed or ended)
        if isinstance(message, FoldResult):
            result = message
        running = [process for process in running if process not in ended]
    assert result is not None
    return result


def _unexplained_exit(ended: list[BaseProcess]) -> TrainingError:
    exits = ", ".join(f"{process.name} with exit code {process.exitcode}" for process in ended)
    is_killed = any(process.exitcode == -signal.SIGKILL for process in ended)
    cause = ", probably killed because the machine ran out of memory" if is_killed else ""
    return TrainingError(
        f"A training process ended without an error message: {exits}{cause}. Its output is above. The same command "
        "resumes from the last checkpoint."
    )


def _receive(receiver: Connection) -> Any:
    """Return a message, or None if there is none."""
    try:
        return receiver.recv() if receiver.poll() else None
    except EOFError:  # all senders have ended
        return None


def _rank_main(
    cfg: DictConfig,
    fold: int | None,
    shard: BatchShard,
    watchers: Sequence[pl.Callback],
    port: int,
    sender: Connection,
    hydra: Any,
    ends_on_sigterm: bool,
) -> None:
    """Train as one rank; send rank 0's result, or the exception that ended this process."""
    # signals to the process group are handled by the parent, which terminates its ranks; SLURM may ask it to requeue
    ignored = ["SIGINT", "SIGUSR1", "SIGUSR2", *([] if ends_on_sigterm else ["SIGTERM"])]
    for name in ignored:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()
    try:
        HydraConfig.instance().cfg = hydra  # W&B shows a sweep's overrides
        torch.set_num_threads(max(1, torch.get_num_threads() // shard.world_size))
        console.quiet = True  # the parent has printed the notes of `open_run`
        run = open_run(cfg)
        console.quiet = shard.rank > 0
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": shard.rank, "NODE_RANK": 0}
        os.environ.update({name: str(value) for name, value in group.items()})
        with handle_stop_signals():
            result = train_fold(run, fold, shard, watchers)
        # before the interpreter exits: the group's threads would outlive what they use
        torch.distributed.destroy_process_group()
        if shard.rank == 0:
            sender.send(result)
    except (InputError, TrainingError) as error:
        sender.send(error)
        sys.exit(1)
    except OSError as error:
        # the parent knows the run's folder, and explains a full disk
        sender.send(OSError(error.errno, error.strerror, error.filename))
        sys.exit(1)
    except Exception:
        # not every exception can be pickled
        sender.send(RuntimeError(f"rank {shard.rank}:\n{traceback.format_exc()}"))
        sys.exit(1)


def _exit_with(parent: BaseProcess) -> None:
    """Exit when the parent has ended: if it was killed, this rank must not go on writing the fold's files."""
    parent.join()
    os._exit(1)
