"""Progress bar with bounded cost."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar


class ThrottledProgressBar(RichProgressBar):
    """A progress bar that is drawn a few times per second instead of at every step and epoch.

    Metrics are read from the device only when the end of an epoch is drawn.
    """

    SECONDS_BETWEEN = 0.25

    def __init__(self) -> None:
        super().__init__()
        self._drawn_at, self._drawn_epoch = 0.0, -1

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass  # an epoch may be shorter than SECONDS_BETWEEN, so `_start_epoch` starts the bar at its first drawing

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._is_due():
            self._start_epoch(trainer, pl_module)
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        is_last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
        if self._is_due() or is_last:
            self._start_epoch(trainer, pl_module)
            # fills the bar, of which the last batches may not have been drawn, and updates the metrics
            super().on_train_batch_end(trainer, pl_module, None, None, int(trainer.num_training_batches) - 1)

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self._drawn_at < self.SECONDS_BETWEEN:
            return False
        self._drawn_at = now
        return True

    def _start_epoch(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._drawn_epoch != trainer.current_epoch:
            self._drawn_epoch = trainer.current_epoch
            super().on_train_epoch_start(trainer, pl_module)
