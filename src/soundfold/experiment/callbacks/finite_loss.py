"""Stop at a loss that is not finite, and name the likely cause."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from soundfold.errors import TrainingError


class _Step(NamedTuple):
    epoch: int
    number: int
    loss: Tensor
    image_finite: Tensor
    clips: Tensor
    lr: float


class FiniteLoss(pl.Callback):
    """Stops training at a loss that is not finite, before a checkpoint or a best epoch is saved from it.

    On the CPU the loss is checked after every step. On other devices, reading it would wait for the device, so it is
    checked every 1,000 steps and at the end of an epoch, before validation.

    Args:
        fold: the fold that is being trained.
        precision: ``trainer.precision``.

    Raises:
        TrainingError: a loss is not finite; the message has the step, the batch and the likely cause.
    """

    STEPS_BETWEEN = 1000

    def __init__(self, fold: int | None, precision: str) -> None:
        self.fold, self.precision = fold, precision
        self._steps: list[_Step] = []
        self._last_loss = float("nan")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if "image_finite" in outputs:
            # the batch is only the clips, see `GraphStrategy`
            image_finite, clips = outputs["image_finite"], batch[0]
        else:
            image_finite, clips = batch[0].isfinite().all(), batch[2]
        group = trainer.optimizers[0].param_groups[-1]
        # the highest rate so far is the cause; the schedule may have lowered the current one to 0
        lr = group.get("initial_lr", group["lr"])
        # Lightning divides the loss of a micro-batch by their number
        loss = outputs["loss"].detach() * trainer.accumulate_grad_batches
        self._steps.append(_Step(trainer.current_epoch, trainer.global_step, loss, image_finite, clips, lr))
        if self._is_free_to_read(loss) or len(self._steps) >= self.STEPS_BETWEEN:
            self._check_steps(trainer)

    def _is_free_to_read(self, loss: Tensor) -> bool:
        return loss.device.type == "cpu"

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_steps(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_steps(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_metric(trainer, "val/loss")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_metric(trainer, "test/loss")

    def _check_steps(self, trainer: pl.Trainer) -> None:
        steps, self._steps = self._steps, []
        if not steps:
            return
        # a single read from the device
        losses = torch.stack([step.loss for step in steps]).tolist()
        for step, loss, previous in zip(steps, losses, [self._last_loss, *losses], strict=False):
            if not math.isfinite(loss):
                files = trainer.datamodule.files(step.clips[:3])  # type: ignore[attr-defined]
                raise TrainingError(self._explain(step, previous, files))
        self._last_loss = losses[-1]

    def _explain(self, step: _Step, previous: float, files: list[str]) -> str:
        where = (
            f"Fold {self.fold or 'none'}: The loss is {float(step.loss):g} at step {step.number} (epoch {step.epoch}, "
            f"a batch with {', '.join(files)}{', ...' if len(step.clips) > 3 else ''}). It was {previous:.4g} one step "
            "earlier."
        )
        if not step.image_finite:
            return (
                f"{where} The batch's images are not finite, so the network is not the cause: features or augment "
                "overflow on one of these clips. View them with `soundfold explore`, or train with augment=none to see "
                "whether the augmentation is the cause."
            )
        if self.precision == "16-mixed":
            return (
                f"{where} Its images are finite, and float16 overflows above 65,504. Set "
                "trainer.precision=bf16-mixed or trainer.precision=32-true."
            )
        return (
            f"{where} Its images are finite, so the weights have diverged. The learning rate, {step.lr:.3g} after the "
            "warmup, is most likely too high. Set a lower optim.lr, a longer schedule.warmup, or "
            "trainer.gradient_clip_val=1."
        )

    def _check_metric(self, trainer: pl.Trainer, name: str) -> None:
        loss = trainer.callback_metrics.get(name)
        if loss is not None and not loss.isfinite():
            raise TrainingError(
                f"Fold {self.fold or 'none'}: {name} is {float(loss):g} after epoch {trainer.current_epoch}, although "
                "the training loss is finite. The weights or batch-norm statistics are too large for clips that are "
                "not augmented. Set a lower optim.lr, or trainer.gradient_clip_val=1."
            )
