"""The average of a network's weights over the steps of its training, which is what is validated and scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from soundfold.errors import InputError

AVERAGES = ("none", "ema", "swa")


class Averaging(pl.Callback):
    """Keeps an average of the network's weights beside it, and puts it in its place to be validated and scored.

    An average of weights has not seen a batch, so its batch statistics are measured anew each time it is used, on
    batches as training sees them. What is trained, and kept to be continued, stays the network itself. Until
    the average begins, it is the network that is validated.

    Sources: P. Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018 (SWA);
    B. Polyak and A. Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992.

    Args:
        kind: ``ema``, by step: average <- decay * average + (1 - decay) * weights; or ``swa``, all steps alike.
        decay: of ``ema``.
        start: the part of the steps, in [0, 1), after which it begins, at the weights of the next step.

    Raises:
        InputError: a value outside its rule.
    """

    def __init__(self, kind: str = "ema", decay: float = 0.999, start: float = 0.0) -> None:
        if kind not in ("ema", "swa"):
            raise InputError(f"average.kind={kind} is unknown; give one of {', '.join(AVERAGES)}.")
        if not 0 < decay < 1:
            raise InputError(f"average.decay={decay:g} must lie between 0 and 1; 0.999 averages over some 1,000 steps.")
        if not 0 <= start < 1:
            raise InputError(f"average.start={start:g} must be at least 0 and below 1: it is a fraction of the steps.")
        self.start = start
        self._update = get_ema_multi_avg_fn(decay) if kind == "ema" else get_swa_multi_avg_fn()
        self.average: list[Tensor] = []
        self._steps = 0  # that it is of; on the host, so that no step waits for a device
        self._trained: dict[str, Tensor] | None = None
        self._finished = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first = self.start * int(trainer.estimated_stepping_batches)
        # a checkpoint's is read to the processor
        self.average = [mean.to(pl_module.device) for mean in self.average]

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step <= self._first:
            return
        weights = list(_network(pl_module).parameters())
        if self._steps:
            self._update(self.average, weights, self._steps)
        else:
            self.average = [weight.detach().clone() for weight in weights]
        self._steps += 1

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # within a fit only: after it the network is the average already
        if trainer.state.fn == "fit" and self._steps:
            network = _network(pl_module)
            self._trained = {name: value.clone() for name, value in network.state_dict().items()}
            self._place(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # not at the end of validation: the checkpoint of the best epoch, taken after it, holds what was validated
        if self._trained is not None:
            _network(pl_module).load_state_dict(self._trained)
            self._trained = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.finish(trainer, pl_module)

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the network as the average: at the end of a fit, and of one that had nothing left to do."""
        if self._steps and not self._finished:
            # Lightning has taken it off an accelerator at the end of a fit
            pl_module.to(trainer.strategy.root_device)
            self._place(trainer, pl_module)
        self._finished = True

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self._steps, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._steps, self.average = state_dict["steps"], state_dict["average"]

    @torch.no_grad()
    def _place(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for weight, mean in zip(_network(pl_module).parameters(), self.average, strict=True):
            weight.copy_(mean)

        def forward(image: Tensor) -> None:
            # mixed precision is the network's alone: images are made outside of it
            with trainer.precision_plugin.forward_context():
                pl_module(image)

        update_bn(pl_module, trainer.datamodule.training_images(), forward)  # type: ignore[attr-defined]


@torch.no_grad()
def update_bn(model: nn.Module, images: Iterable[Tensor], forward: Callable[[Tensor], Any]) -> None:
    """Measure the statistics of batch norms anew, as the mean over batches of images; those that are frozen stay.

    As `torch.optim.swa_utils.update_bn`, which also resets norms that training leaves alone, and trains the rest.

    Args:
        forward: passes a batch of images through the model.
    """
    was_training = model.training
    model.train()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    momenta = [norm.momentum for norm in norms]
    model.eval()  # nothing else is drawn or left out
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
    for image in images if norms else ():
        forward(image)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


def _network(pl_module: pl.LightningModule) -> nn.Module:
    return pl_module.network  # type: ignore[return-value]
