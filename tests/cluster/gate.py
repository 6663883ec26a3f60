"""A Lightning callback that holds a training, so that a test can interrupt its job at a known epoch."""

import os
import time
from pathlib import Path

import lightning.pytorch as pl


class Gate(pl.Callback):
    """Waits in an epoch until ``<name of the fold's folder>`` exists in the folder that the variable GATES names.

    The folder, which also gets ``<name>.reached``, is no argument, because arguments are part of a run's id.

    Args:
        epoch: from 0.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch < self.epoch:
            return
        gate = Path(os.environ["GATES"]) / Path(trainer.default_root_dir).name
        gate.with_name(f"{gate.name}.reached").touch()
        while not gate.exists():
            time.sleep(0.05)
