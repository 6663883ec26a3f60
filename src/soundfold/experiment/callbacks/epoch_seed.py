"""Random seeds of the network's own draws, such as stochastic depth."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import torch


class EpochSeed(pl.Callback):
    """Seeds PyTorch at the start of every epoch, so that a resumed run draws the same numbers as an uninterrupted one.

    Args:
        seed: integers that the seed is derived from, together with the epoch.
    """

    def __init__(self, *seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.manual_seed(int(np.random.SeedSequence([*self.seed, trainer.current_epoch]).generate_state(1)[0]))
