"""Progress of a fold: a bar in a terminal, otherwise a line at intervals."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from soundfold.io.console import console


class FoldProgress(pl.Callback):
    """Shows fold, epoch, time left and the metrics of the last epoch.

    Metrics are read from the device at the end of an epoch only, so no step waits for it.

    Args:
        fold: such as ``fold 2/5``.
    """

    SECONDS_BETWEEN_DRAWINGS = 0.25
    SECONDS_BETWEEN_LINES = 60.0

    def __init__(self, fold: str) -> None:
        self.fold = fold
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._metrics = ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # a resumed fold is not at step 0
        self._started_at, self._first_step = time.monotonic(), trainer.global_step
        self._shown_at = self._started_at
        self._steps = int(trainer.estimated_stepping_batches)
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[metrics]}"),
            )
            self._bar = Progress(*columns, console=console, transient=True, auto_refresh=False)
            self._task = self._bar.add_task(self.fold, total=self._steps, metrics="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._is_due():
            self._show(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._metrics = "  ".join(f"{name} {value:.3f}" for name, value in trainer.progress_bar_metrics.items())
        if self._is_due():
            self._show(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _is_due(self) -> bool:
        between = self.SECONDS_BETWEEN_LINES if self._bar is None else self.SECONDS_BETWEEN_DRAWINGS
        return time.monotonic() - self._shown_at >= between

    def _show(self, trainer: pl.Trainer) -> None:
        self._shown_at = time.monotonic()
        done = trainer.global_step - self._first_step
        seconds = (self._shown_at - self._started_at) / max(1, done) * (self._steps - trainer.global_step)
        text = f"{self.fold} - epoch {trainer.current_epoch + 1}/{trainer.max_epochs} - {duration(seconds)} left"
        if self._bar is None:
            console.print(f"{text}  {self._metrics}".rstrip(), highlight=False, soft_wrap=True)
            return
        self._bar.update(self._task, completed=trainer.global_step, description=text, metrics=self._metrics)
        self._bar.refresh()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def duration(seconds: float) -> str:
    """Return a time span as ``40 s``, from one minute on as ``12 min``, and from 90 minutes on as ``3.2 h``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
