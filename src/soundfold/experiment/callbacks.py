"""What Lightning does not have: metrics and stops that survive a resume, checkpoints whole or absent, and shell work
that does not grow with the number of steps and epochs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.plugins.io import TorchCheckpointIO

from soundfold.errors import InputError
from soundfold.io.atomic import write_text
from soundfold.io.checkpoints import find_damage, load_checkpoint, save_checkpoint
from soundfold.io.console import console


class MetricsCsv(pl.Callback):
    """One row per epoch: epoch, step, learning rate and every metric logged so far.

    The rows are kept in the checkpoint, too: a resumed run writes those of its epochs anew, whatever became of the
    file, so that no epoch stands twice. Loggers that begin anew, as all do but W&B's online, are told them again.

    Args:
        path: the CSV file.
        leaky: mark every row, where the protocol makes the figures too high.
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
            self._write(list(self.rows[-1]))
        for logger in trainer.loggers:
            if getattr(getattr(logger, "experiment", None), "resumed", False):
                continue
            for row in self.rows:
                figures = {name: float(value) for name, value in row.items() if "/" in name and value}
                # Lightning logs an epoch at the number of its last step, from 0
                logger.log_metrics({**figures, "epoch": int(row["epoch"])}, step=int(row["step"]) - 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # what was not measured again since, as in epochs without validation, is as it was; after a resume, too
        figures = {name: value for name, value in self.rows[-1].items() if "/" in name and value} if self.rows else {}
        # on every rank: figures are gathered where they are first asked for
        figures |= {name: f"{float(value):.6g}" for name, value in trainer.callback_metrics.items()}
        if not trainer.is_global_zero:
            return
        figures = dict(sorted(figures.items()))
        rate = trainer.optimizers[0].param_groups[-1]["lr"]
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": f"{rate:.6g}", **self.mark, **figures}
        self.rows.append(row)
        if list(row) == self._header:
            # a row of its own: to write all anew, and wait for the disk, would cost more with every epoch
            with self.path.open("a") as stream:
                stream.write(",".join(str(value) for value in row.values()) + "\n")
            return
        self._write(list(row))

    def _write(self, header: list[str]) -> None:
        self._header = header
        lines = [",".join(header), *(",".join(str(row.get(name, "")) for name in header) for row in self.rows)]
        write_text(self.path, "\n".join(lines) + "\n")


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


class ThrottledProgressBar(RichProgressBar):
    """A progress bar that draws a few times a second, where Lightning's own does so in every step and epoch.

    Figures are read from the device where an epoch's end is drawn, and nowhere else.
    """

    SECONDS_BETWEEN = 0.25

    def __init__(self) -> None:
        super().__init__()
        self._drawn, self._epoch = 0.0, -1

    def _due(self) -> bool:
        now = time.monotonic()
        if now - self._drawn < self.SECONDS_BETWEEN:
            return False
        self._drawn = now
        return True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # an epoch may be shorter than the time between two drawings: its bar begins with what it draws first
        pass

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._due():
            self._begin(trainer, pl_module)
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
        if self._due() or last:
            self._begin(trainer, pl_module)
            self._update(self.train_progress_bar_id, int(trainer.num_training_batches))
            super().on_train_epoch_end(trainer, pl_module)

    def _begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._epoch != trainer.current_epoch:
            self._epoch = trainer.current_epoch
            super().on_train_epoch_start(trainer, pl_module)


class PeriodicCheckpoint(ModelCheckpoint):
    """A checkpoint at the end of an epoch, but no sooner than some time after the one before; and always of the last.

    A checkpoint of 134 MB takes longer to write than a short epoch to train. What a run cut short has to train again
    is what that time holds, and comes out the same.

    Args:
        every_seconds: least time between two; 0 takes one at the end of every epoch that counts.
        every_epochs: only every so many epochs count.
        others: see `ModelCheckpoint`.
    """

    def __init__(self, *others: Any, every_seconds: float, every_epochs: int = 1, **options: Any) -> None:
        super().__init__(*others, **options)
        self.every_seconds, self.every_epochs = every_seconds, every_epochs
        self._taken = 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._taken = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends = ends or 0 <= trainer.max_steps <= trainer.global_step
        counts = (trainer.current_epoch + 1) % self.every_epochs == 0
        due = ends or (counts and time.monotonic() - self._taken >= self.every_seconds)
        # by the first rank's clock: all of them take part
        if trainer.strategy.broadcast(due):
            super().on_train_epoch_end(trainer, pl_module)
            self._taken = time.monotonic()


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that is not forgotten: a run resumed after its stop does not train another epoch."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning restores why training stopped, but tells the trainer only at the end of the next epoch
        trainer.should_stop = self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED


class ResumableBest(ModelCheckpoint):
    """The best epoch's checkpoint, which a run resumed from another folder, or under another name of it, keeps."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets what was best where the folder's path is not the one that it was kept under
        here = {name: str(Path(str(self.dirpath)) / Path(name).name) for name in state_dict["best_k_models"]}
        scores = {here[name]: score for name, score in state_dict["best_k_models"].items()}
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {key: here.get(state_dict[key], "") for key in paths}
        if gone := [path for path in here.values() if not Path(path).is_file()]:
            raise InputError(f"{gone[0]} is gone, and training cannot go on without it. Begin anew with rerun=true.")
        super().load_state_dict({**state_dict, **moved, "best_k_models": scores, "dirpath": self.dirpath})


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent, so that a run killed while one is written keeps the one before; what was
    damaged since is refused, where Lightning would go on from it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return load_checkpoint(Path(path))


def can_resume(folder: Path) -> bool:
    """Whether a fold can go on from its checkpoints.

    Where one is damaged all are removed, with a note: the fold is trained anew, and comes out the same.

    Args:
        folder: of the checkpoints.
    """
    # the last goes first: killed in between, the fold does not go on from it
    found = sorted(folder.glob("*.ckpt"), key=lambda path: path.name != "last.ckpt")
    for path in found:
        if reason := find_damage(path):
            note = f"The checkpoint {path} is damaged ({reason}). The fold is trained anew."
            console.print(note, style="yellow", soft_wrap=True)
            for given_up in found:
                given_up.unlink()
            return False
    return bool(found) and found[0].name == "last.ckpt"
