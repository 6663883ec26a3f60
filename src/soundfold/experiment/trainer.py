"""The Lightning trainer of one fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from soundfold.data.datamodule import SoundDataModule
from soundfold.data.loader import BatchShard
from soundfold.data.splits import Protocol, make_split
from soundfold.experiment.callbacks.checkpoints import (
    AtomicCheckpointIO,
    PeriodicCheckpoint,
    ResumableBest,
)
from soundfold.experiment.callbacks.epoch_seed import EpochSeed
from soundfold.experiment.callbacks.finite_loss import FiniteLoss
from soundfold.experiment.callbacks.history import History
from soundfold.experiment.callbacks.metrics_csv import MetricsCsv
from soundfold.experiment.callbacks.progress import FoldProgress
from soundfold.experiment.device import choose_accelerator
from soundfold.experiment.fold_checks import count_epochs
from soundfold.experiment.graph_strategy import choose_strategy
from soundfold.experiment.lightning_compat import disable_signal_handlers, resume_at_epoch_end
from soundfold.experiment.lightning_objects import make_callbacks, make_ddp_strategy, make_profiler
from soundfold.experiment.metrics import monitor_mode
from soundfold.experiment.ranks import cluster_environment
from soundfold.experiment.setup import RunContext
from soundfold.models.averaging import Averaging
from soundfold.models.classifier import Classifier
from soundfold.validation import launched_rank


@dataclass(frozen=True)
class FoldJob:
    """One fold that this process trains, possibly as one rank of several.

    Attributes:
        run, fold: see `soundfold.experiment.fold.train_fold`.
        shard: this process's share of every batch.
        protocol, data, model: built from the run's configuration.
        averaging: the average of the weights; None if disabled.
        computed: properties of the computation, see `soundfold.evaluation.computed`.
    """

    run: RunContext
    fold: int | None
    shard: BatchShard
    protocol: Protocol
    data: SoundDataModule
    model: Classifier
    averaging: Averaging | None
    computed: dict[str, Any]

    @property
    def cfg(self) -> DictConfig:
        return self.run.cfg

    @property
    def folder(self) -> Path:
        return self.run.fold_folder(self.fold)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def is_nested(self) -> bool:
        return self.protocol.name == "nested" and self.fold is not None

    @property
    def selects_best(self) -> bool:
        """The best validated epoch is scored, instead of the last."""
        return self.is_nested and self.cfg.selection.choose == "best"

    @property
    def validates(self) -> bool:
        """Whether validation clips are evaluated. Under random_clips their metrics are only logged."""
        return self.is_nested or (self.protocol.name == "random_clips" and self.fold is not None)


def fold_name(run: RunContext, fold: int | None) -> str:
    """Return a fold's name for messages: ``fold 2/5`` if the folds are numbered from 1 on."""
    numbers = run.collection.table.fold_numbers
    if fold is None:
        return "all clips"
    return f"fold {fold}/{len(numbers)}" if numbers[-1] == len(numbers) else f"fold {fold}"


def make_trainer(job: FoldJob, loggers: list[Logger], watchers: Sequence[pl.Callback]) -> pl.Trainer:
    """Return the trainer of a fold, with ``watchers`` beside the run's own callbacks."""
    cfg, shard = job.cfg, job.shard
    options: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)  # type: ignore[assignment]
    del options["strategy"], options["tf32"], options["cuda_graph"]  # no options of Lightning's
    options |= {"accelerator": choose_accelerator(cfg), "precision": job.computed["precision"]}
    # Lightning would keep what an earlier fold or job of the process had set
    options["benchmark"] = bool(options["benchmark"])
    options["enable_progress_bar"] = False  # Lightning's; see `FoldProgress`
    # also if trainer.max_steps ends the run, because the progress bar counts epochs
    n_clips = len(make_split(job.run.collection.table, job.protocol, job.fold, cfg.seed).train)
    options["max_epochs"] = count_epochs(cfg, n_clips)
    if shard.world_size > 1:
        options["strategy"] = make_ddp_strategy(cfg)
        # statistics of the entire batch; PyTorch has no synchronized batch norm on the CPU
        options["sync_batchnorm"] = options["accelerator"] == "gpu"
    elif strategy := choose_strategy(cfg, options["accelerator"], job.averaging):
        options["strategy"] = strategy
    for key in ("limit_train_batches", "val_check_interval"):
        if isinstance(options[key], int):
            options[key] *= shard.accumulate  # Lightning counts micro-batches
    if not job.validates:
        options |= {"limit_val_batches": 0, "val_check_interval": None}
    options["profiler"] = make_profiler(cfg, job.folder)
    if not options["deterministic"] and not torch.are_deterministic_algorithms_enabled():
        options["deterministic"] = None  # to set false where it is false imports PyTorch's compiler
    trainer = pl.Trainer(
        **options,
        callbacks=_make_callbacks(job, watchers),
        plugins=[AtomicCheckpointIO(), cluster_environment(launched_rank(cfg))],
        logger=loggers,
        default_root_dir=job.folder,
        # Lightning counts from the start of the fit, so with any other period `augment.copies.after` would be late in a
        # resumed run
        reload_dataloaders_every_n_epochs=0 if cfg.augment.copies is None else 1,
        use_distributed_sampler=False,
    )
    resume_at_epoch_end(trainer)
    disable_signal_handlers(trainer)
    return trainer


def _make_callbacks(job: FoldJob, watchers: Sequence[pl.Callback]) -> list[pl.Callback]:
    """Return the callbacks in the order that Lightning calls them."""
    cfg, rank = job.cfg, job.shard.rank
    epochs = MetricsCsv(job.folder / "metrics.csv", leaky=job.protocol.leaky)
    callbacks: list[pl.Callback] = [
        epochs,
        FiniteLoss(job.fold, job.computed["precision"]),
        # on every rank, although only the first one has loggers: losses are averaged over ranks
        *([History(epochs)] if any(entry is not None for entry in cfg.logger.values()) else []),
        EpochSeed(cfg.seed, job.fold or 0, 3, *([rank] if rank else [])),
        *([job.averaging] if job.averaging else []),
        *make_callbacks(cfg, job.folder),
        *watchers,
    ]
    if cfg.trainer.enable_progress_bar and rank == 0:
        callbacks.append(FoldProgress(fold_name(job.run, job.fold)))
    if job.selects_best:
        monitor: dict[str, Any] = {"monitor": cfg.selection.monitor, "mode": monitor_mode(cfg)}
        # at the end of a training epoch, a resumed run that ends within an epoch would have no metric yet
        callbacks.append(EarlyStopping(patience=cfg.selection.patience, check_on_train_epoch_end=False, **monitor))
        # saved right after validation, while the network has the averaged weights that were validated
        options: Any = {"save_weights_only": True, "save_on_train_epoch_end": False, "enable_version_counter": False}
        callbacks.append(ResumableBest(job.checkpoints, "best", **options, **monitor))
    # last, so that the checkpoint has the state of the other callbacks at the end of the epoch
    callbacks.append(
        PeriodicCheckpoint(
            job.checkpoints,
            "last",
            every_seconds=cfg.checkpoints.every_seconds,
            every_epochs=cfg.checkpoints.every_n_epochs,
            computed=job.computed,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
    )
    return callbacks
