"""What can go wrong while a fold trains: found at once, and told with its likeliest cause and remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig
from torch import Tensor

from soundfold.errors import OutOfMemory, TrainingError


class _Step(NamedTuple):
    epoch: int
    number: int
    loss: Tensor
    image_finite: Tensor
    clips: Tensor
    rate: float


class FiniteLoss(pl.Callback):
    """Ends training at a loss that is not a finite number, before a checkpoint or a best epoch is taken of it.

    A processor is asked in every step; another device is not waited for, and asked at the end of an epoch, before its
    validation, and every 1,000 steps.

    Args:
        fold: what is trained.
        precision: of the trainer.

    Raises:
        TrainingError: names step, batch and likeliest cause.
    """

    STEPS_BETWEEN = 1000

    def __init__(self, fold: int | None, precision: str) -> None:
        self.fold, self.precision = fold, precision
        self._steps: list[_Step] = []
        self._before = float("nan")  # the last loss that was read

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        image, clips = batch[0], batch[2]
        rate = trainer.optimizers[0].param_groups[-1]["lr"]
        # Lightning gives a part's as it is added to those of the batch's others
        loss = outputs["loss"].detach() * trainer.accumulate_grad_batches
        step = _Step(trainer.current_epoch, trainer.global_step, loss, image.isfinite().all(), clips, rate)
        self._steps.append(step)
        if self._at_hand(loss) or len(self._steps) >= self.STEPS_BETWEEN:
            self._judge(trainer)

    def _at_hand(self, loss: Tensor) -> bool:
        return loss.device.type == "cpu"

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._judge(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._judge_scores(trainer, "val/loss")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._judge_scores(trainer, "test/loss")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._judge(trainer)

    def _judge(self, trainer: pl.Trainer) -> None:
        steps, self._steps = self._steps, []
        if not steps:
            return
        losses = torch.stack([step.loss for step in steps]).tolist()
        wrong = [step for step, loss in zip(steps, losses, strict=True) if loss - loss != 0]  # inf or nan
        if wrong:
            before = losses[: steps.index(wrong[0])][-1:] or [self._before]
            names = trainer.datamodule.files(wrong[0].clips[:3])  # type: ignore[attr-defined]
            raise TrainingError(self._told(wrong[0], before[0], names))
        self._before = losses[-1]

    def _told(self, step: _Step, before: float, names: list[str]) -> str:
        where = (
            f"Fold {self.fold or 'none'}: The loss is {float(step.loss):g} at step {step.number} (epoch {step.epoch}, "
            f"a batch with {', '.join(names)}{', ...' if len(step.clips) > 3 else ''}); it was {before:.4g} at the "
            "step before."
        )
        if not step.image_finite:
            return (
                f"{where} The batch's images are not finite, so it is not the network: features or augment overflow "
                "on one of these clips. scripts/explore.py shows them; augment=none tells which of the two it is."
            )
        if self.precision == "16-mixed":
            return (
                f"{where} Its images are finite, and float16 overflows above 65,504: give "
                "trainer.precision=bf16-mixed, or 32-true."
            )
        return (
            f"{where} Its images are finite, so the weights have diverged: the rate, {step.rate:.3g} here, is most "
            f"likely too high. Give a lower optim.lr, a longer schedule.warmup, or trainer.gradient_clip_val=1."
        )

    def _judge_scores(self, trainer: pl.Trainer, name: str) -> None:
        loss = trainer.callback_metrics.get(name)
        if loss is not None and not loss.isfinite():
            raise TrainingError(
                f"Fold {self.fold or 'none'}: {name} is {float(loss):g} after epoch {trainer.current_epoch}, though "
                "training's loss is finite: the network's weights or batch statistics are too large for clips that are "
                "not varied. Give a lower optim.lr, or trainer.gradient_clip_val=1."
            )


@contextmanager
def explain_oom(cfg: DictConfig, fold: int | None, parts: int) -> Iterator[None]:
    """Tell in a paragraph what to lower where a device's memory, or the machine's, is exhausted.

    Args:
        cfg, fold: what is trained.
        parts: of each batch, one after the other on each device.

    Raises:
        OutOfMemory: something within ran out of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # a processor's allocator raises nothing of its own
        if isinstance(error, RuntimeError | torch.OutOfMemoryError) and not _of_memory(error):
            raise
        size, shares = cfg.data.batch_size, parts * cfg.trainer.devices
        halves = "a smaller data.batch_size, which is another recipe;"
        if size >= 8 * shares:  # four clips in each part are asked for
            halves = f"trainer.micro_batches={2 * parts}: the same batches of data.batch_size={size}, in parts of half "
            halves += "the size;"
        bf16 = " trainer.precision=bf16-mixed halves what a step keeps;" if cfg.trainer.precision == "32-true" else ""
        raise OutOfMemory(
            f"Fold {fold or 'none'}: Out of memory with {-(-size // shares)} clips at once: "
            f"{_first_sentences(str(error))} Give {halves}{bf16} data.on_device=false keeps the waveforms in the "
            "machine's memory."
        ) from error


def _first_sentences(told: str) -> str:
    """What was asked for; CUDA goes on with its allocator's accounts."""
    return f"{'. '.join(told.splitlines()[0].split('. ')[:2]).removesuffix('.')}."


def _of_memory(error: Exception) -> bool:
    told = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in told or "out of memory" in told
