"""What Lightning does not have: metrics and stops that survive a resume, checkpoints whole or absent."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.plugins.io import TorchCheckpointIO

from soundfold.files import write_whole


class MetricsCsv(pl.Callback):
    """One row per epoch: epoch, step, learning rate and every metric logged so far.

    A resumed run keeps the rows of the epochs that its checkpoint has, so that no epoch stands twice. Loggers that
    begin anew, as all do but W&B's online, are told them again.

    Args:
        path: the CSV file.
        leaky: mark every row, where the protocol makes the figures too high.
    """

    def __init__(self, path: Path, leaky: bool = False) -> None:
        self.path = path
        self.mark = {"leaky": "true"} if leaky else {}
        self.rows: list[dict[str, Any]] = []

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        if self.path.is_file():
            with self.path.open(newline="") as stream:
                self.rows = [row for row in csv.DictReader(stream) if int(row["epoch"]) <= checkpoint["epoch"]]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for logger in trainer.loggers:
            if getattr(getattr(logger, "experiment", None), "resumed", False):
                continue
            for row in self.rows:
                figures = {name: float(value) for name, value in row.items() if "/" in name and value}
                # Lightning logs an epoch at the number of its last step, from 0
                logger.log_metrics({**figures, "epoch": int(row["epoch"])}, step=int(row["step"]) - 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        figures = {name: f"{float(value):.6g}" for name, value in sorted(trainer.callback_metrics.items())}
        rate = trainer.optimizers[0].param_groups[-1]["lr"]
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": f"{rate:.6g}", **self.mark, **figures}
        self.rows.append(row)
        lines = [",".join(row), *(",".join(str(r.get(name, "")) for name in row) for r in self.rows)]
        write_whole(self.path, "\n".join(lines) + "\n")


class EpochSeed(pl.Callback):
    """What the network draws in training, such as the branches that it leaves out, is a function of whole numbers and
    the epoch: a resumed run draws as an uninterrupted one.

    Args:
        seed: the whole numbers.
    """

    def __init__(self, *seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.manual_seed(int(np.random.SeedSequence([*self.seed, trainer.current_epoch]).generate_state(1)[0]))


class LastingEarlyStopping(EarlyStopping):
    """Early stopping that is not forgotten: a run resumed after its stop does not train another epoch."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning restores why training stopped, but tells the trainer only at the end of the next epoch
        trainer.should_stop = self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED


class LastingBest(ModelCheckpoint):
    """The best epoch's checkpoint, which a run resumed from another folder, or under another name of it, keeps."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets what was best where the folder's path is not the one that it was kept under
        here = {name: str(Path(str(self.dirpath)) / Path(name).name) for name in state_dict["best_k_models"]}
        scores = {here[name]: score for name, score in state_dict["best_k_models"].items()}
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {key: here.get(state_dict[key], "") for key in paths}
        super().load_state_dict({**state_dict, **moved, "best_k_models": scores, "dirpath": self.dirpath})


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that a run killed in between keeps the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        part = Path(f"{path}.part")
        super().save_checkpoint(checkpoint, part, storage_options)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
