"""Checkpoints that a run can always be resumed from, with the same result as an uninterrupted run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from soundfold.errors import InputError
from soundfold.io.checkpoints import find_damage, load_checkpoint, save_checkpoint
from soundfold.io.console import console

# what Lightning restores
REQUIRED = ("state_dict", "epoch", "global_step", "optimizer_states", "lr_schedulers", "loops", "callbacks")
# key of a checkpoint: a callback has ended the training
STOPPED = "should_stop"
# key of a checkpoint: properties of the computation, see `soundfold.evaluation.computed`
COMPUTED = "computed"


class PeriodicCheckpoint(ModelCheckpoint):
    """Saves a checkpoint at the end of the last epoch, and of earlier ones at least some time apart.

    Writing a checkpoint of 134 MB may take longer than training a short epoch. A killed run repeats the epochs since
    its last checkpoint, with the same result. A run that a callback has stopped, such as early stopping, is resumed
    without further training.

    Args:
        every_seconds: least time between two checkpoints; 0 saves one after every eligible epoch.
        every_epochs: every n-th epoch is eligible.
        computed: stored in the checkpoints, for `read_computed`.
        args, options: see `ModelCheckpoint`.
    """

    def __init__(
        self,
        *args: Any,
        every_seconds: float,
        every_epochs: int = 1,
        computed: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.every_seconds, self.every_epochs = every_seconds, every_epochs
        self.computed = dict(computed or {})
        self._saved_at = 0.0
        self._stopped = False

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[STOPPED] = trainer.should_stop
        checkpoint[COMPUTED] = self.computed

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._stopped = checkpoint.get(STOPPED, False)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_at = time.monotonic()
        # Lightning restores the state of callbacks, but not this
        trainer.should_stop = self._stopped

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        is_last = is_last or 0 <= trainer.max_steps <= trainer.global_step
        is_eligible = (trainer.current_epoch + 1) % self.every_epochs == 0
        is_due = is_last or (is_eligible and time.monotonic() - self._saved_at >= self.every_seconds)
        # all ranks take part in saving, so rank 0 decides for all
        if trainer.strategy.broadcast(is_due):
            super().on_train_epoch_end(trainer, pl_module)
            self._saved_at = time.monotonic()


class ResumableBest(ModelCheckpoint):
    """The best epoch's checkpoint, which survives moving or renaming the run's folder."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning forgets the best checkpoint if `dirpath` differs from the stored one
        moved = {name: str(Path(str(self.dirpath)) / Path(name).name) for name in state_dict["best_k_models"]}
        if missing := [path for path in moved.values() if not Path(path).is_file()]:
            raise InputError(
                f"{missing[0]} is missing, and training cannot be resumed without it. Start over with rerun=true."
            )
        scores = {moved[name]: score for name, score in state_dict["best_k_models"].items()}
        keys = ("best_model_path", "kth_best_model_path", "last_model_path")
        paths = {key: moved.get(state_dict[key], "") for key in keys}
        super().load_state_dict({**state_dict, **paths, "best_k_models": scores, "dirpath": self.dirpath})


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically, so that a killed run keeps its previous one, and rejects damaged ones."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
        return load_checkpoint(Path(path))


def can_resume(folder: Path, model: pl.LightningModule | None = None) -> bool:
    """Return whether training can resume from the checkpoints in a folder.

    If one is damaged, or incomplete, all are deleted with a warning: training from scratch reaches the same result.

    Args:
        folder: of the checkpoints.
        model: the checkpoints must have its weights; None does not compare them.
    """
    # last.ckpt first: a process killed while deleting must not leave it without best.ckpt
    paths = sorted(folder.glob("*.ckpt"), key=lambda path: path.name != "last.ckpt")
    for path in paths:
        if reason := find_damage(path) or _find_missing(path, model):
            warning = f"warning: The checkpoint {path} is damaged ({reason}). Training the fold from scratch."
            console.print(warning, style="yellow", soft_wrap=True)
            for checkpoint in paths:
                checkpoint.unlink()
            return False
    return bool(paths) and paths[0].name == "last.ckpt"


def resume_point(folder: Path) -> tuple[int, int] | None:
    """Return the epochs and steps that are completed at the checkpoint to resume from; None without an intact one."""
    path = folder / "last.ckpt"
    if not path.is_file() or any(find_damage(other) for other in folder.glob("*.ckpt")):
        return None
    if _find_missing(path, None):
        return None
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    # a checkpoint is saved within the epoch that it completes
    return content["epoch"] + 1, content["global_step"]


def read_computed(path: Path) -> dict[str, Any] | None:
    """Return the properties of the computation in a checkpoint: empty in an older one, None without a readable one."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True).get(COMPUTED, {}))
    except Exception:  # torch raises many types; `can_resume` reports damage
        return None


def _find_missing(path: Path, model: pl.LightningModule | None) -> str | None:
    """Return what an intact checkpoint lacks to be resumed from, or None."""
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(content, dict):
        return "it is not a checkpoint of a training"
    required = REQUIRED if path.name == "last.ckpt" else ("state_dict",)
    if missing := [key for key in required if key not in content]:
        return f"it lacks {missing[0]}"
    weights = content["state_dict"]
    for name, value in model.state_dict().items() if model else ():
        if getattr(weights.get(name) if isinstance(weights, dict) else None, "shape", None) != value.shape:
            return f"it lacks the weights {name}"
    return None
