"""Lightning callbacks as a user would write them."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl


class EpochLog(pl.Callback):
    """Writes the number of epochs that it has seen, which is its state, into ``<dirpath>/epochs.txt``."""

    def __init__(self, dirpath: str, text: str = "") -> None:
        self.path, self.text, self.epochs = Path(dirpath) / "epochs.txt", text, 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs += 1
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(f"{self.text} {self.epochs}\n")

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = state_dict["epochs"]


class StopAfter(pl.Callback):
    """Ends a training after some epochs. It has no state."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


class Pause(pl.Callback):
    """Waits before a training. It has no state."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        time.sleep(self.seconds)


class Refusing(pl.Callback):
    """Refuses every run."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        raise pl.utilities.exceptions.MisconfigurationException("Refusing requires\n a GPU.")


class KilledOnce(pl.Callback):
    """Kills the process at the start of its second epoch, once: a file records that it did, and in which fold."""

    def __init__(self, marker: str) -> None:
        self.marker = Path(marker)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1 and not self.marker.exists():
            self.marker.write_text(Path(trainer.default_root_dir).name.removeprefix("fold"))
            os.kill(os.getpid(), signal.SIGKILL)
