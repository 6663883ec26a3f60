"""The history of a fold that loggers show beside the metrics of its epochs."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from soundfold.experiment.callbacks.metrics_csv import MetricsCsv


class _Step(NamedTuple):
    number: int
    epoch: int
    lr: float
    loss: Tensor
    gradient_norm: Tensor


class History(pl.Callback):
    """Logs loss, learning rate and gradient norm of single steps, and time, speed and memory of every epoch.

    ========================= ==================== ===================================================================
    name                      row                  value
    ========================= ==================== ===================================================================
    train/loss_step           log_every_n_steps    training loss of the step's batch
    train/lr                  log_every_n_steps    learning rate of the step (of the head)
    train/grad_norm           log_every_n_steps    L2 norm of the gradient before clipping
    time/epoch_seconds        epoch                wall time, s, with validation
    time/clips_per_second     epoch                training clips per second of training, without validation
    device/memory_gib         epoch, CUDA only     peak memory allocated so far, GiB
    ========================= ==================== ===================================================================

    Values of steps stay on the device until the end of the epoch, or for `ROWS_BETWEEN` rows, so that no step waits for
    it. The rows are part of the checkpoint. A resumed fold replays them, and those of ``epochs``, to its loggers.

    Args:
        epochs: has the metrics of every epoch.
    """

    ROWS_BETWEEN = 1000

    def __init__(self, epochs: MetricsCsv) -> None:
        self.epochs = epochs
        self.rows: list[dict[str, float]] = []
        self._pending: list[_Step] = []
        self._loss: Tensor | None = None
        self._lr = float("nan")
        self._step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.measure_gradient = True
        epochs = [
            # Lightning logs an epoch at the index of its last step
            {"step": int(row["step"]) - 1, "epoch": int(row["epoch"])}
            | {name: float(value) for name, value in row.items() if "/" in name and value}
            for row in self.epochs.rows
        ]
        # metrics.csv repeats the last scores in epochs without validation
        if every := trainer.check_val_every_n_epoch:
            epochs = [
                {name: value for name, value in row.items() if is_validated or not name.startswith("val/")}
                for row in epochs
                for is_validated in [(row["epoch"] + 1) % every == 0]
            ]
        for row in sorted([*self.rows, *epochs], key=lambda row: row["step"]):
            self._log(trainer, row)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # a resumed fold is not at step 0, which `on_fit_start` does not see yet
        self._step = trainer.global_step

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started_at, self._validation_seconds, self._clips = time.monotonic(), 0.0, 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        # the schedule changes it before the end of the step
        self._lr = trainer.optimizers[0].param_groups[-1]["lr"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        # the batch of `GraphStrategy` is only the clips
        self._clips += len(batch[0] if "image_finite" in outputs else batch[2])
        # Lightning divides the loss of a micro-batch by their number
        loss = outputs["loss"].detach()
        self._loss = loss if self._loss is None else self._loss + loss
        if trainer.global_step == self._step:
            return  # a micro-batch before the optimizer's step
        self._step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and self._step % every == 0:
            norm = pl_module.gradient_norm.clone()
            self._pending.append(_Step(self._step - 1, trainer.current_epoch, self._lr, self._loss, norm))
        self._loss = None
        if len(self._pending) >= self.ROWS_BETWEEN:
            self._send(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            # waits for the device, so that the time of training ends here; the last step's row gets the scores, too
            self._send(trainer, n_held=1)
            self._validating_since = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._validation_seconds += time.monotonic() - self._validating_since

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._send(trainer)
        seconds = time.monotonic() - self._started_at
        speed = self._clips * trainer.world_size / max(seconds - self._validation_seconds, 1e-9)
        row: dict[str, float] = {"step": trainer.global_step - 1, "epoch": trainer.current_epoch}
        row |= {"time/epoch_seconds": seconds, "time/clips_per_second": speed}
        if pl_module.device.type == "cuda":
            row["device/memory_gib"] = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
        self.rows.append(row)
        self._log(trainer, row)

    def _send(self, trainer: pl.Trainer, n_held: int = 0) -> None:
        """Log the pending rows except the newest ``n_held``."""
        n_sent = len(self._pending) - n_held
        steps, self._pending = self._pending[:n_sent], self._pending[n_sent:]
        if not steps:
            return
        losses = trainer.strategy.reduce(torch.stack([step.loss for step in steps]), reduce_op="mean")
        norms = torch.stack([step.gradient_norm for step in steps])
        # a single read from the device
        for step, (loss, norm) in zip(steps, torch.stack([losses, norms], dim=1).tolist(), strict=True):
            values = {"train/loss_step": loss, "train/lr": step.lr, "train/grad_norm": norm}
            self.rows.append({"step": step.number, "epoch": step.epoch, **values})
            self._log(trainer, self.rows[-1])

    def _log(self, trainer: pl.Trainer, row: dict[str, float]) -> None:
        metrics = dict(row)
        step = int(metrics.pop("step"))
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step)
