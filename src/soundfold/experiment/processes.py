"""A fold on one device, in this process; or on several, in a process for each."""

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
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from soundfold.data.loader import BatchShard
from soundfold.errors import InputError, TrainingError
from soundfold.evaluation.results import FoldResult
from soundfold.experiment.callbacks import can_resume
from soundfold.experiment.fold import train_fold
from soundfold.experiment.setup import RunContext, open_run
from soundfold.io.console import console
from soundfold.io.signals import ends_on_sigterm, handle_stop_signals

SECONDS_TO_END = 10


def run_fold(run: RunContext, fold: int | None, watchers: Sequence[pl.Callback] = ()) -> FoldResult:
    """Train one fold on the devices of ``trainer.devices``, score its test clips once, and write its files.

    Args:
        run, fold, watchers: see `train_fold`; of several devices each has watchers of its own, which are pickled.

    Raises:
        TrainingError: training cannot go on.
    """
    parts = run.cfg.trainer.micro_batches
    if run.cfg.trainer.devices > 1:
        return _on_several(run, fold, parts, watchers)
    return train_fold(run, fold, BatchShard(accumulate=parts), watchers)


def _on_several(run: RunContext, fold: int | None, parts: int, watchers: Sequence[pl.Callback]) -> FoldResult:
    """Train a fold in a process for each device; if one fails, the others, which would wait for it, are ended."""
    # what is damaged is removed here, before several look at it
    can_resume(run.folder / f"fold{fold or 'none'}" / "checkpoints")
    context = multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inbox, outbox = context.Pipe(duplex=False)
    processes = []
    try:
        for rank in range(run.cfg.trainer.devices):
            shard = BatchShard(rank, run.cfg.trainer.devices, parts)
            given = (run.cfg, fold, shard, watchers, port, outbox, HydraConfig.instance().cfg, ends_on_sigterm())
            process = context.Process(target=_member, args=given, name=f"rank {rank}")
            process.start()
            processes.append(process)
        outbox.close()
        return _outcome(inbox, processes)
    finally:
        end = time.monotonic() + SECONDS_TO_END
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
            process.kill()
            process.join()


def _outcome(inbox: Connection, processes: list[Any]) -> FoldResult:
    """The first's result, once all have ended; raises what ended one of them before."""
    result: FoldResult | None = None
    running = list(processes)
    while running:
        ready = wait([inbox, *(process.sentinel for process in running)])
        found = _received(inbox)
        ended = [process for process in running if process.sentinel in ready]
        for process in ended:
            process.join()
        if result is None and (isinstance(found, Exception) or any(process.exitcode for process in ended)):
            # of one that was killed the others tell only that they lost it
            wait([process.sentinel for process in processes], timeout=1)
            killed = [process for process in processes if (process.exitcode or 0) < 0]
            found = found or _received(inbox)
            if isinstance(found, Exception) and not killed:
                raise found
            told = ", ".join(f"{process.name} with {process.exitcode}" for process in killed or ended)
            memory = any(process.exitcode == -signal.SIGKILL for process in killed)
            raise TrainingError(
                f"A process that trained ended without a word: {told}"
                f"{', as where the machine runs out of memory' if memory else ''}. What it wrote before stands above; "
                "the same command goes on from the last checkpoint."
            )
        if isinstance(found, FoldResult):
            result = found
        running = [process for process in running if process not in ended]
    assert result is not None
    return result


def _received(inbox: Connection) -> Any:
    """What was sent, or None."""
    try:
        return inbox.recv() if inbox.poll() else None
    except EOFError:  # all have ended
        return None


def _member(
    cfg: DictConfig,
    fold: int | None,
    shard: BatchShard,
    watchers: Sequence[pl.Callback],
    port: int,
    outbox: Connection,
    hydra: Any,
    ends_on_sigterm: bool,
) -> None:
    """One process of several: as `train_fold`; sends the first's result, or what ended it."""
    # signals to all processes are for the one that began them, which ends the others; SLURM may ask it to requeue
    theirs = ["SIGINT", "SIGUSR1", "SIGUSR2", *([] if ends_on_sigterm else ["SIGTERM"])]
    for name in theirs:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        HydraConfig.instance().cfg = hydra  # a sweep's words are shown with its runs
        torch.set_num_threads(max(1, torch.get_num_threads() // shard.world_size))
        console.quiet = True  # what there is to say was said when the run was opened
        run = open_run(cfg)
        console.quiet = shard.rank > 0
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": shard.rank, "NODE_RANK": 0}
        os.environ.update({name: str(value) for name, value in group.items()})
        with handle_stop_signals():
            result = train_fold(run, fold, shard, watchers)
        # before Python ends: its threads would outlive what they use
        torch.distributed.destroy_process_group()
        if shard.rank == 0:
            outbox.send(result)
    except (InputError, TrainingError) as error:
        outbox.send(error)
        sys.exit(1)
    except OSError as error:
        # a disk's refusal is told where the run's folder is known
        outbox.send(OSError(error.errno, error.strerror, error.filename))
        sys.exit(1)
    except Exception:
        # not every exception survives the way
        outbox.send(RuntimeError(f"rank {shard.rank}:\n{traceback.format_exc()}"))
        sys.exit(1)


def _end_with(parent: Any) -> None:
    """End this process when its parent has: killed, it would leave the fold's files to who comes next."""
    parent.join()
    os._exit(1)
