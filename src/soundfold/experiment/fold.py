"""One fold: trained, scored once, its files written."""

from __future__ import annotations

import hashlib
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf

from soundfold.config import to_yaml
from soundfold.data.datamodule import SoundDataModule
from soundfold.data.loader import SINGLE_PROCESS, BatchShard
from soundfold.data.splits import Split, make_split
from soundfold.errors import InputError
from soundfold.evaluation.results import FoldResult, predictions_csv
from soundfold.experiment import build, environment
from soundfold.experiment.callbacks import (
    AtomicCheckpointIO,
    EpochSeed,
    MetricsCsv,
    PeriodicCheckpoint,
    ResumableBest,
    ResumableEarlyStopping,
    ThrottledProgressBar,
    can_resume,
)
from soundfold.experiment.device import choose_accelerator
from soundfold.experiment.guards import FiniteLoss, explain_oom
from soundfold.experiment.loggers import fold_loggers
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.experiment.setup import RunContext
from soundfold.io.atomic import write_text
from soundfold.io.checkpoints import load_checkpoint

# its notes on devices and products, once per fold, would bury ours
for library in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(library).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.", category=FutureWarning)
# a resumed fold's folder is not empty, and is meant not to be
warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")


def epoch_count(cfg: DictConfig, clips: int) -> int:
    """Epochs over so many training clips, whichever of trainer.max_epochs and trainer.max_steps ends them.

    Raises:
        InputError: the best epoch is asked for and none would be validated.
    """
    batches = min(-(-clips // cfg.data.batch_size), cfg.trainer.limit_train_batches or clips)
    ends = (cfg.trainer.max_epochs, -(-cfg.trainer.max_steps // batches))
    epochs = min(end for end in ends if end > 0)
    every = cfg.trainer.check_val_every_n_epoch
    if cfg.split.protocol == "nested" and cfg.selection.choose == "best" and epochs < every:
        raise InputError(
            f"trainer.check_val_every_n_epoch={every} leaves none of the {epochs} epochs to choose the best from. "
            "Give fewer, or selection.choose=last."
        )
    return epochs


def check_split_sizes(cfg: DictConfig, split: Split) -> None:
    """Refuse a fold with fewer clips than share its batches.

    Raises:
        InputError: says of what there are too few.
    """
    options = cfg.trainer
    for name, clips, least in (
        ("trains on", split.train, 2 * options.devices * options.micro_batches),
        ("validates", split.val, options.devices),
        ("scores", split.test, options.devices),
    ):
        if 0 < len(clips) < least:
            raise InputError(
                f"A fold {name} {len(clips)} clips, which trainer.devices={options.devices} times "
                f"trainer.micro_batches={options.micro_batches} cannot share. Give fewer of them."
            )


def train_fold(
    run: RunContext, fold: int | None, shard: BatchShard = SINGLE_PROCESS, watchers: Sequence[pl.Callback] = ()
) -> FoldResult:
    """Train one fold, score its test clips once, and write its files.

    Of several processes that train it together each calls this; the first writes the files.

    Args:
        run: see `open_run`.
        fold: its number; None trains on every clip and scores none.
        shard: which process this is of how many, and in how many parts it trains on its share of a batch.
        watchers: callbacks beside the run's own, such as a benchmark's clock.

    Raises:
        TrainingError: a loss is not finite, or memory does not suffice.
    """
    cfg, table, first = run.cfg, run.collection.table, shard.rank == 0
    folder = run.folder / f"fold{fold or 'none'}"
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    if first:
        write_text(folder / "config.yaml", to_yaml(cfg))
    last = checkpoints / "last.ckpt"
    resumed = not cfg.rerun and not cfg.debug and can_resume(checkpoints)
    started = time.perf_counter()

    protocol, copies = build.protocol(cfg), build.copies(cfg)
    pl.seed_everything(int(np.random.SeedSequence([cfg.seed, fold or 0]).generate_state(1)[0]), verbose=False)
    kind = choose_accelerator(cfg)
    trainer_options: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)  # type: ignore[assignment]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = trainer_options.pop("tf32")
    del trainer_options["micro_batches"]
    data = SoundDataModule(
        run.collection,
        build.front_end(cfg),
        fold,
        protocol=protocol,
        crops=build.crops(cfg),
        mixing=build.mixing(cfg),
        copies=copies,
        batch_size=cfg.data.batch_size,
        micro_batches=shard.accumulate,
        seed=cfg.seed,
        on_device=cfg.data.on_device,
        seen=run.seen,
        compile=cfg.model.compile,
    )
    model = build.classifier(cfg, len(table.classes), cfg.model.weights)
    # random_clips only watches its validation clips, as its model: the last epoch's weights are scored
    validates = protocol.name in ("nested", "random_clips") and fold is not None
    nested = protocol.name == "nested" and fold is not None
    selects = nested and cfg.selection.choose == "best"
    chosen = {"monitor": cfg.selection.monitor, "mode": _mode(cfg)}
    # when validation ends: the network still is what was validated, which an average of weights is only then
    best = ResumableBest(
        checkpoints,
        "best",
        save_weights_only=True,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
        **chosen,
    )
    averaging = build.averaging(cfg)
    callbacks: list[pl.Callback] = [
        MetricsCsv(folder / "metrics.csv", leaky=protocol.leaky),
        FiniteLoss(fold, cfg.trainer.precision),
        EpochSeed(cfg.seed, fold or 0, 3, *([shard.rank] if shard.rank else [])),
        *([averaging] if averaging else []),
        *watchers,
    ]
    if cfg.trainer.enable_progress_bar and first:
        callbacks.append(ThrottledProgressBar())
    if selects:
        callbacks += [ResumableEarlyStopping(patience=cfg.selection.patience, **chosen), best]
    # last of all: it holds the state of the others at the end of the epoch
    callbacks.append(
        PeriodicCheckpoint(
            checkpoints,
            "last",
            every_seconds=cfg.checkpoints.every_seconds,
            every_epochs=cfg.checkpoints.every_n_epochs,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
    )
    trainer_options["accelerator"] = kind
    # told even where the steps end the run: the progress bar counts epochs
    trainer_options["max_epochs"] = epoch_count(cfg, len(make_split(table, protocol, fold, cfg.seed).train))
    if shard.world_size > 1:
        trainer_options["strategy"] = DDPStrategy(process_group_backend="nccl" if kind == "gpu" else "gloo")
        # what a norm sees is the batch, however it is divided; on processors there is no such norm
        trainer_options["sync_batchnorm"] = kind == "gpu"
        trainer_options["enable_progress_bar"] &= first
    if cfg.trainer.limit_train_batches is not None:
        trainer_options["limit_train_batches"] *= shard.accumulate
    shown: AbstractContextManager[list[Logger]] = fold_loggers(run, folder, fold) if first else nullcontext([])
    with shown as loggers, explain_oom(cfg, fold, shard.accumulate):
        trainer = pl.Trainer(
            **trainer_options,
            callbacks=callbacks,
            accumulate_grad_batches=shard.accumulate,
            # else SLURM's variables have Lightning save within an epoch and requeue, which is submitit's
            plugins=[AtomicCheckpointIO(), LightningEnvironment()],
            logger=loggers,
            default_root_dir=folder,
            num_sanity_val_steps=0,
            limit_val_batches=None if validates else 0,
            # every epoch, as Lightning counts from where a fit starts: `copies.after` would be late in a resumed one
            reload_dataloaders_every_n_epochs=1 if copies else 0,
            use_distributed_sampler=False,
            enable_model_summary=False,
        )
        # where the end is given in steps, Lightning takes a checkpoint to lie within an epoch, and leaves out the next
        trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
        # it would end with 0 after SIGTERM, as if the run were whole, and also where submitit lets that signal pass
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        trainer.fit(model, data, ckpt_path=last if resumed else None, weights_only=True)
        if averaging:
            averaging.finish(trainer, model)
        # a checkpoint is taken before its epoch counts, and a fit with nothing left to do leaves it so
        done = trainer.fit_loop.epoch_progress.current
        done.completed = done.processed  # type: ignore[attr-defined]
        if selects:
            found = load_checkpoint(checkpoints / "best.ckpt")
            model.load_state_dict(found["state_dict"])
        epochs, steps = trainer.current_epoch, trainer.global_step
        validated = trainer.validate(model, data, verbose=False)[0] if validates else {}
        scores = trainer.test(model, data, verbose=False)[0] if fold is not None else {}
        assert data.audit is not None
        assert data.split is not None
        where = environment.describe(trainer.strategy.root_device)
        where |= {"devices": shard.world_size, "micro_batches": shard.accumulate}
        for logger in loggers:
            logger.log_hyperparams({"audit": data.audit.as_dict(), "environment": where})
        if cfg.checkpoints.keep != "none" and not cfg.debug and first:
            # before the loggers are closed: W&B may be given it
            ModelBundle(
                model.network.state_dict(),
                data.front_end.mean,
                data.front_end.std,
                table.classes,
                to_yaml(cfg),
                data.seen,
            ).save(checkpoints / "weights.pt")
    predictions = predictions_csv(table, model.clips.numpy(), model.logits.numpy()) if scores else None
    result = FoldResult(
        cv_id=run.cv_id,
        fold=fold,
        folds=list(table.fold_numbers),
        protocol=protocol.name,
        leaky=protocol.leaky,
        seed=cfg.seed,
        classes=list(table.classes),
        n=len(data.split.test),
        accuracy=scores.get("test/accuracy"),
        f1=scores.get("test/f1"),
        top5=scores.get("test/top5"),
        loss=scores.get("test/loss"),
        confusion=model.confusion.compute().tolist() if scores else [],
        val_accuracy=validated.get("val/accuracy"),
        objective=_objective(validated, cfg) if nested else scores.get("test/accuracy"),
        epochs=epochs,
        steps=steps,
        seconds=time.perf_counter() - started,
        audit=data.audit.as_dict(),
        environment=where,
        predictions=None if predictions is None else hashlib.sha256(predictions.encode()).hexdigest(),
    )
    if not first:
        return result
    if predictions is not None:
        write_text(folder / "predictions.csv", predictions)
    if not cfg.debug:
        # last: a fold with a result is finished, and all its other files are there
        result.save(folder / "result.json")
    if cfg.checkpoints.keep != "all":
        for path in checkpoints.glob("*.ckpt"):
            path.unlink()
    return result


def _objective(validated: Mapping[str, float], cfg: DictConfig) -> float:
    score = validated[cfg.selection.monitor]
    return -score if _mode(cfg) == "min" else score


def _mode(cfg: DictConfig) -> str:
    return "min" if cfg.selection.monitor == "val/loss" else "max"
