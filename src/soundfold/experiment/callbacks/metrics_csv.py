"""Metrics of every epoch in a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from soundfold.io.atomic import write_text


class MetricsCsv(pl.Callback):
    """Writes a row per epoch: epoch, step, learning rate and every logged metric.

    The rows are part of the checkpoint. A resumed run rewrites the file from them, so that no epoch appears twice.

    Args:
        path: the CSV file.
        leaky: mark every row as inflated by leakage.
    """

    def __init__(self, path: Path, leaky: bool = False) -> None:
        self.path = path
        self.mark = {"leaky": "true"} if leaky else {}
        self.rows: list[dict[str, Any]] = []
        self._header: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.rows and trainer.is_global_zero:
            self._rewrite(list(self.rows[-1]))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # carry forward metrics that were not computed this epoch, such as those of validation
        metrics = {name: value for name, value in self.rows[-1].items() if "/" in name and value} if self.rows else {}
        # on every rank, since reading a metric synchronizes the ranks
        metrics |= {name: f"{float(value):.6g}" for name, value in trainer.callback_metrics.items()}
        if not trainer.is_global_zero:
            return
        lr = trainer.optimizers[0].param_groups[-1]["lr"]
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": f"{lr:.6g}", **self.mark}
        row |= dict(sorted(metrics.items()))
        self.rows.append(row)
        if list(row) != self._header:
            self._rewrite(list(row))
            return
        # append: rewriting and flushing the file would take longer with every epoch
        with self.path.open("a") as stream:
            stream.write(",".join(str(value) for value in row.values()) + "\n")

    def _rewrite(self, header: list[str]) -> None:
        self._header = header
        lines = [",".join(header), *(",".join(str(row.get(name, "")) for name in header) for row in self.rows)]
        write_text(self.path, "\n".join(lines) + "\n")
