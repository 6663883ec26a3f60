"""Random seeds of the network's own draws, such as stochastic depth."""

from __future__ import annotations

import random

import lightning.pytorch as pl
import numpy as np
import torch


class EpochSeed(pl.Callback):
    """Seeds PyTorch, NumPy and `random` at the start of every epoch.

    So a resumed run draws the same numbers as an uninterrupted one, also in a network of the user's.

    Args:
        seed: integers that the seed is derived from, together with the epoch.
    """

    def __init__(self, *seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seed = int(np.random.SeedSequence([*self.seed, trainer.current_epoch]).generate_state(1)[0])
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - a network of the user's may draw from it
        random.seed(seed)
