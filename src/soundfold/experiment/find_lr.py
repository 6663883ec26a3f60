"""Learning-rate finder: a short training whose learning rate rises, and the rate at which the loss falls fastest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.plugins.environments import LightningEnvironment
from omegaconf import DictConfig

from soundfold.data.loader import BatchShard
from soundfold.errors import TrainingError
from soundfold.experiment.callbacks.epoch_seed import EpochSeed
from soundfold.experiment.device import choose_accelerator, choose_precision
from soundfold.experiment.fold import prepare_fold
from soundfold.experiment.fold_checks import check_folds
from soundfold.experiment.guards import explain_oom
from soundfold.experiment.lightning_compat import disable_signal_handlers
from soundfold.experiment.setup import open_run
from soundfold.io.atomic import explain_write_errors, write_text
from soundfold.io.csv_text import csv_text

SMOOTHING = 0.9  # weight of the past in the mean of the losses
DIVERGED = 4.0  # times the least mean, at which the test ends


@dataclass(frozen=True)
class LrCurve:
    """The loss of every step.

    Attributes:
        folder: of the run, which has the values in ``find_lr.csv``.
        fold: the fold whose training clips were used; None: all clips.
        lr: learning rates (steps,).
        loss: training loss (steps,), nats.
        mean: exponential moving average of the loss (steps,), without the bias to its first value.
        suggestion: see `suggest_lr`.
    """

    folder: Path
    fold: int | None
    lr: np.ndarray
    loss: np.ndarray
    mean: np.ndarray
    suggestion: float | None


class LrRangeTest(pl.Callback):
    """Raises the learning rate by a constant factor per step, and ends the training when the loss diverges.

    Groups of parameters keep the ratio of their rates, ``lr_scale``. Source: L. Smith, Cyclical Learning Rates for
    Training Neural Networks, WACV 2017.

    Args:
        low, high: learning rates of the first and the last step.
        steps: their number.

    Attributes:
        lr, loss, mean: of the steps so far, see `LrCurve`.
    """

    def __init__(self, low: float, high: float, steps: int) -> None:
        self.rates = np.geomspace(low, high, steps).tolist()
        self.lr: list[float] = []
        self.loss: list[float] = []
        self.mean: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if len(self.lr) > trainer.global_step:
            return  # a later micro-batch of the step
        self.lr.append(self.rates[trainer.global_step])
        self.loss.append(0.0)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.lr[-1] * group["lr_scale"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.loss[-1] += float(outputs["loss"])
        if trainer.global_step < len(self.lr):
            return
        steps = np.arange(len(self.loss))[::-1]
        self.mean.append(float(np.average(self.loss, weights=SMOOTHING**steps)))
        if not self.mean[-1] <= DIVERGED * min(self.mean):  # also if it is not finite
            trainer.should_stop = True


def find_lr(cfg: DictConfig) -> LrCurve:
    """Test the learning rates of ``find_lr`` on the training clips of one fold, and write ``find_lr.csv``.

    The fold is that of ``fold``, or the first. Its scored clips are not used, and nothing of the training is stored.

    Raises:
        InputError: the configuration or the data is invalid.
        TrainingError: memory is exhausted, or the loss of the first step is not finite.
    """
    run = open_run(cfg)
    first = run.collection.table.fold_numbers[0]
    fold = first if cfg.fold == "all" else None if cfg.fold == "none" else int(cfg.fold)
    check_folds(run, [fold])
    test = LrRangeTest(cfg.find_lr.low, cfg.find_lr.high, cfg.find_lr.steps)
    with explain_oom(cfg, fold):
        job = prepare_fold(run, fold, BatchShard(accumulate=cfg.trainer.accumulate_grad_batches))
        trainer = _make_trainer(cfg, [EpochSeed(cfg.seed, fold or 0, 3), test])
        trainer.fit(job.model, job.data)
    if not np.isfinite(test.loss[0]):
        raise TrainingError(f"The loss of the first step, at optim.lr={test.lr[0]:g}, is {test.loss[0]}.")
    finite = np.isfinite(test.mean)
    lr, loss, mean = (np.array(values)[finite] for values in (test.lr, test.loss, test.mean))
    rows = [["lr", "loss", "mean"], *zip(*([f"{v:.6g}" for v in column] for column in (lr, loss, mean)), strict=True)]
    with explain_write_errors(run.folder, "Free some space, or set paths.outputs=DIRECTORY."):
        run.folder.mkdir(parents=True, exist_ok=True)
        write_text(run.folder / "find_lr.csv", csv_text(rows))
    return LrCurve(run.folder, fold, lr, loss, mean, suggest_lr(lr, mean))


def suggest_lr(lr: np.ndarray, mean: np.ndarray) -> float | None:
    """Return the rate at which the mean loss falls fastest per factor of the rate; None if it never falls.

    Args:
        lr: ascending (steps,).
        mean: loss (steps,). The first tenth, whose means are over few steps, is not considered.
    """
    first, end = len(lr) // 10, int(np.argmin(mean)) + 1
    if end - first < 2:
        return None
    slope = np.gradient(mean[first:end], np.log(lr[first:end]))
    return float(lr[first + int(np.argmin(slope))]) if slope.min() < 0 else None


def _make_trainer(cfg: DictConfig, callbacks: list[pl.Callback]) -> pl.Trainer:
    """Return a trainer that validates, logs and stores nothing."""
    same = ("gradient_clip_val", "gradient_clip_algorithm", "deterministic", "benchmark", "detect_anomaly")
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "use_distributed_sampler")
    options: dict[str, Any] = {name: cfg.trainer[name] for name in same} | dict.fromkeys(off, False)
    trainer = pl.Trainer(
        **options,
        accelerator=choose_accelerator(cfg),
        precision=choose_precision(cfg),  # type: ignore[arg-type]
        devices=1,
        accumulate_grad_batches=cfg.trainer.accumulate_grad_batches,
        max_epochs=-1,
        max_steps=cfg.find_lr.steps,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=0 if cfg.augment.copies is None else 1,
        plugins=[LightningEnvironment()],
        callbacks=callbacks,
    )
    disable_signal_handlers(trainer)
    return trainer
