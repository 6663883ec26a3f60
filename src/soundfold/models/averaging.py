"""Average of the network's weights over training steps, used for validation and test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # not public; the common class of all batch normalizations
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from soundfold.errors import ArgumentError

AVERAGES = ("none", "ema", "swa")


class Averaging(pl.Callback):
    """Moving average of the network's weights, which replaces the weights in validation and test.

    The batch norm statistics of the average are recomputed from training images each time it is used. Training and its
    checkpoints continue with the network's own weights. Before the average starts, validation uses those.

    Sources: P. Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018 (SWA);
    B. Polyak and A. Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992.

    Args:
        kind: ``ema``, at each step average <- decay * average + (1 - decay) * weights; or ``swa``, the mean over steps.
        decay: of ``ema``.
        start: fraction of the steps, in [0, 1), after which the average starts from the weights of the next step.

    Raises:
        ArgumentError: an argument is invalid.

    Attributes:
        in_step: the training step calls `update` once the average `has_started`; else the callback does, after it.
    """

    def __init__(self, kind: str = "ema", decay: float = 0.999, start: float = 0.0) -> None:
        if kind not in ("ema", "swa"):
            raise ArgumentError(f"`kind`={kind} is unknown. Set one of {', '.join(AVERAGES)}.")
        if not 0 < decay < 1:
            raise ArgumentError(f"`decay`={decay:g} must be between 0 and 1; 0.999 averages over about 1,000 steps.")
        if not 0 <= start < 1:
            raise ArgumentError(f"`start`={start:g} must be at least 0 and below 1: it is a fraction of the steps.")
        self.kind, self.start, self.in_step = kind, start, False
        self._update = get_ema_multi_avg_fn(decay) if kind == "ema" else get_swa_multi_avg_fn()
        self.average: list[Tensor] = []
        self._n_averaged = 0  # not a tensor, so that no step waits for the device
        self._training_state: dict[str, Tensor] | None = None
        self._finished = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start_step = self.start * int(trainer.estimated_stepping_batches)
        self._last_step = trainer.global_step
        # an average restored from a checkpoint is on the CPU
        self.average = [mean.to(pl_module.device) for mean in self.average]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._last_step:
            return  # a part of an accumulated batch, before the optimizer's step
        self._last_step = trainer.global_step
        if trainer.global_step <= self._start_step:
            return
        if not self.has_started:
            self.average = [weight.detach().clone() for weight in _network(pl_module).parameters()]
        elif not self.in_step:
            self.update(pl_module)
        self._n_averaged += 1

    @property
    def has_started(self) -> bool:
        return self._n_averaged > 0

    @torch.no_grad()
    def update(self, pl_module: pl.LightningModule) -> None:
        """Include the current weights in the average, in place."""
        self._update(self.average, list(_network(pl_module).parameters()), self._n_averaged)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # after a fit, the network already has the average's weights
        if trainer.state.fn == "fit" and self._n_averaged:
            state = _network(pl_module).state_dict()
            self._training_state = {name: value.clone() for name, value in state.items()}
            self._load_average(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # not in on_validation_end: the checkpoint of the best epoch is saved there and must hold the validated weights
        if self._training_state is not None:
            _network(pl_module).load_state_dict(self._training_state)
            self._training_state = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.finish(trainer, pl_module)

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the average into the network; call it after a fit that was resumed with no steps left, too."""
        if self._n_averaged and not self._finished:
            # Lightning moves the module to the CPU at the end of a fit
            pl_module.to(trainer.strategy.root_device)
            self._load_average(trainer, pl_module)
        self._finished = True

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._n_averaged, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._n_averaged, self.average = state_dict["steps"], state_dict["average"]

    @torch.no_grad()
    def _load_average(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for weight, mean in zip(_network(pl_module).parameters(), self.average, strict=True):
            weight.copy_(mean)

        def forward(image: Tensor) -> None:
            # mixed precision around the network only: log-mels need float32
            with trainer.precision_plugin.forward_context():
                pl_module(image)

        update_bn(pl_module, trainer.datamodule.training_images(), forward)  # type: ignore[attr-defined]


@torch.no_grad()
def update_bn(model: nn.Module, images: Iterable[Tensor], forward: Callable[[Tensor], Any]) -> None:
    """Recompute batch norm statistics as the mean over batches of images.

    Unlike `torch.optim.swa_utils.update_bn`, it skips frozen norms and runs all other modules in evaluation mode.

    Args:
        forward: passes a batch of images through the model.
    """
    was_training = model.training
    model.train()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    momenta = [norm.momentum for norm in norms]
    model.eval()  # no stochastic depth
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    for image in images if norms else ():
        forward(image)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


def _network(pl_module: pl.LightningModule) -> nn.Module:
    return pl_module.network  # type: ignore[return-value]
