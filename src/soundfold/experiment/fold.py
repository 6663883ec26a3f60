"""Training of one fold: fit, score once, write its files."""

from __future__ import annotations

import gc
import hashlib
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import Logger

from soundfold.config import to_yaml
from soundfold.data.datamodule import SoundDataModule
from soundfold.data.loader import SINGLE_PROCESS, BatchShard
from soundfold.data.splits import make_split
from soundfold.errors import TrainingError
from soundfold.evaluation.metrics import confusion_matrix
from soundfold.evaluation.predictions import predictions_csv
from soundfold.evaluation.results import FoldResult
from soundfold.experiment import build, environment
from soundfold.experiment.callbacks.checkpoints import can_resume
from soundfold.experiment.computed import new_values, print_resumed, resumed_values
from soundfold.experiment.guards import explain_misconfiguration, explain_oom
from soundfold.experiment.lightning_compat import count_last_epoch, set_rank
from soundfold.experiment.loggers import fold_loggers, log_outcome
from soundfold.experiment.metrics import build_metrics, flip_objective, metric_definitions, metric_values
from soundfold.experiment.model_bundle import WEIGHTS, ModelBundle
from soundfold.experiment.setup import RunContext
from soundfold.experiment.trainer import FoldJob, make_trainer
from soundfold.experiment.user_modules import write_modules
from soundfold.io.atomic import write_text
from soundfold.io.checkpoints import load_checkpoint
from soundfold.io.console import console

# Lightning logs devices and advertisements on every fit: hide them, so that our messages stay visible
for library in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(library).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.", category=FutureWarning)
# on a machine with SLURM; a fold is one process, or starts the others itself
warnings.filterwarnings("ignore", message="The `srun` command is available on your system but is not used")
# expected in a resumed fold
warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")


def train_fold(
    run: RunContext, fold: int | None, shard: BatchShard = SINGLE_PROCESS, watchers: Sequence[pl.Callback] = ()
) -> FoldResult:
    """Train one fold, score its test clips once (not in a trial of a search), and write its files.

    With several devices every rank calls this, and rank 0 writes the files.

    Args:
        run: see `open_run`.
        fold: the fold's number; None trains on every clip and scores none.
        shard: this process's share of every batch.
        watchers: additional callbacks, such as a benchmark's clock.

    Raises:
        TrainingError: a loss is not finite, or memory is exhausted.
    """
    started = time.perf_counter()
    if torch.cuda.is_initialized():
        # an earlier fold's trainer and data refer to each other, and would stay on the GPU until Python collects them
        gc.collect()
    with explain_oom(run.cfg, fold):
        job = prepare_fold(run, fold, shard)
    is_writer = shard.rank == 0
    job.checkpoints.mkdir(parents=True, exist_ok=True)
    if is_writer:
        write_text(job.folder / "config.yaml", to_yaml(run.cfg))
        write_modules(job.folder, run.modules)
    job, checkpoint = _resume(job)
    set_rank(shard.rank)
    opened: AbstractContextManager[list[Logger]] = fold_loggers(run, job.folder, fold) if is_writer else nullcontext([])
    with opened as loggers, explain_misconfiguration(), explain_oom(run.cfg, fold):
        trainer, chosen_epoch = _fit(job, checkpoint, loggers, watchers)
        result, predictions = _score(job, trainer, started, chosen_epoch)
        log_outcome(loggers, run.cfg, result)
        if is_writer and run.cfg.checkpoints.keep != "none" and not run.cfg.debug and not run.is_trial:
            # before the loggers are closed: W&B may upload it
            _save_model(job)
    if is_writer:
        _write_result(job, result, predictions)
    return result


def prepare_fold(run: RunContext, fold: int | None, shard: BatchShard) -> FoldJob:
    """Set the seeds, and build the data and the model. Nothing is written."""
    cfg = run.cfg
    pl.seed_everything(int(np.random.SeedSequence([cfg.seed, fold or 0]).generate_state(1)[0]), verbose=False)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = cfg.trainer.tf32
    protocol = build.protocol(cfg)
    data = SoundDataModule(
        run.collection,
        build.front_end(cfg),
        fold,
        protocol=protocol,
        crops=build.crops(cfg),
        mixing=build.mixing(cfg),
        copies=build.copies(cfg),
        batch_size=cfg.data.batch_size,
        accumulate_grad_batches=shard.accumulate,
        sampler=cfg.data.sampler,
        seed=cfg.seed,
        on_device=cfg.data.on_device,
        read_ahead=cfg.data.read_ahead,
        seen=run.seen,
        compile=cfg.model.compile,
    )
    table = run.collection.table
    options: dict[str, Any] = {"metrics": build_metrics(cfg, len(table.classes))}
    options["class_weights"] = build.class_weights(cfg, table, make_split(table, protocol, fold, cfg.seed).train)
    model = build.classifier(cfg, len(table.classes), cfg.model.weights, **options)
    return FoldJob(run, fold, shard, protocol, data, model, build.averaging(cfg), new_values(cfg))


def _resume(job: FoldJob) -> tuple[FoldJob, Path | None]:
    """Return the fold as it was begun, and the checkpoint to resume it from; None if it is trained from its start."""
    if job.cfg.rerun or job.cfg.debug or not can_resume(job.checkpoints, job.model):
        return job, None
    console.print(f"Fold {job.fold or 'none'} resumes from its last checkpoint.")
    computed = resumed_values(job.run, job.fold)
    print_resumed(job.run, job.fold, computed)
    return replace(job, computed=computed), job.checkpoints / "last.ckpt"


def _fit(
    job: FoldJob, checkpoint: Path | None, loggers: list[Logger], watchers: Sequence[pl.Callback]
) -> tuple[pl.Trainer, int | None]:
    """Train the model, and load the weights to score into it: the last, their average, or the best epoch's.

    Returns:
        The trainer, and the number of the best epoch if its weights are scored.
    """
    trainer = make_trainer(job, loggers, watchers)
    trainer.fit(job.model, job.data, ckpt_path=checkpoint, weights_only=True)
    if job.averaging:
        job.averaging.finish(trainer, job.model)
    count_last_epoch(trainer)
    if not job.selects_best:
        return trainer, None
    if not (job.checkpoints / "best.ckpt").is_file():
        # with `augment.copies`, the length of later epochs is not known before
        raise TrainingError(
            f"Fold {job.fold} ended before its first validation, so it has no best epoch. Raise "
            "trainer.max_epochs or trainer.max_steps, or set selection.choose=last."
        )
    best = load_checkpoint(job.checkpoints / "best.ckpt")
    job.model.load_state_dict(best["state_dict"])
    return trainer, int(best["epoch"]) + 1


def _score(
    job: FoldJob, trainer: pl.Trainer, started: float, chosen_epoch: int | None
) -> tuple[FoldResult, str | None]:
    """Validate and test the model; return the result and the text of predictions.csv (None if nothing is scored)."""
    run, data, model, table = job.run, job.data, job.model, job.run.collection.table
    epochs, steps = trainer.current_epoch, trainer.global_step
    validated = trainer.validate(model, data, verbose=False)[0] if job.validates else {}
    is_scored = job.fold is not None and not run.is_trial
    scores = trainer.test(model, data, verbose=False)[0] if is_scored else {}
    predictions = predictions_csv(table, model.clips.numpy(), model.logits.numpy()) if scores else None
    confusion: np.ndarray = np.zeros((0, 0), dtype=np.int64)
    if scores:
        confusion = confusion_matrix(model.targets.numpy(), model.logits.argmax(dim=1).numpy(), len(table.classes))
    # the exact ratio of counts, which logging rounds to float32
    accuracy = float(np.trace(confusion) / confusion.sum()) if scores else None
    objective = flip_objective(job.cfg, _monitored(job, validated)) if job.is_nested else accuracy
    result = FoldResult(
        cv_id=run.cv_id,
        fold=job.fold,
        folds=list(table.fold_numbers),
        protocol=job.protocol.name,
        leaky=job.protocol.leaky,
        seed=run.cfg.seed,
        classes=list(table.classes),
        n=len(data.split.test) if is_scored else 0,
        accuracy=accuracy,
        metrics=metric_values({name: scores[f"test/{name}"] for name in model.metrics}) if scores else {},
        loss=scores.get("test/loss"),
        confusion=confusion.tolist(),
        val_accuracy=validated.get("val/accuracy"),
        objective=objective,
        epochs=epochs,
        steps=steps,
        seconds=time.perf_counter() - started,
        audit=data.audit.as_dict(),
        environment={
            **environment.describe(trainer.strategy.root_device, run.packages),
            "devices": job.shard.world_size,
            "accumulate_grad_batches": job.shard.accumulate,
        },
        predictions=None if predictions is None else _sha256(predictions),
        config=_sha256(to_yaml(run.cfg)),
        chosen_epoch=chosen_epoch,
        command=environment.command(),
        modules=run.modules,
        definitions=metric_definitions(run.cfg) if scores else {},
        computed=job.computed,
    )
    return result, predictions


def _monitored(job: FoldJob, validated: Mapping[str, float]) -> float:
    """Return the value of ``selection.monitor`` of the scored weights."""
    monitor = job.cfg.selection.monitor
    if not isfinite(validated[monitor]):
        raise TrainingError(
            f"Fold {job.fold}: selection.monitor={monitor} is {validated[monitor]} on the validation clips, so no "
            "weights can be chosen by it. Set another selection.monitor, such as val/loss."
        )
    return validated[monitor]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _save_model(job: FoldJob) -> None:
    ModelBundle(
        job.model.network.state_dict(),
        job.data.front_end.mean,
        job.data.front_end.std,
        job.run.collection.table.classes,
        to_yaml(job.cfg),
        job.data.seen,
    ).save(job.folder / WEIGHTS)


def _write_result(job: FoldJob, result: FoldResult, predictions: str | None) -> None:
    """Write predictions.csv and result.json, and delete the checkpoints unless ``checkpoints.keep=all``."""
    if predictions is not None:
        write_text(job.folder / "predictions.csv", predictions)
    if not job.cfg.debug:
        # after all other files: a fold with a result is finished
        result.save(job.folder / "result.json")
    if job.cfg.checkpoints.keep != "all" or job.run.is_trial:
        for path in job.checkpoints.glob("*.ckpt"):
            path.unlink()
