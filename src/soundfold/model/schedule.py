"""Parameter groups, and the learning rate over the steps of a run."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from soundfold.errors import InputError

DECAYS = ("constant", "cosine", "linear")


def parameter_groups(network: nn.Module) -> list[dict]:
    """Two groups: weights, and, without weight decay, norms' parameters and biases (all of one dimension)."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def warm_up_and_decay(optimizer: Optimizer, steps: int, decay: str, warmup: float) -> LambdaLR:
    """The learning rate's factor by step: a linear rise over the first part, then the decay to 0 at the last step.

    Args:
        steps: optimiser steps of the whole run.
        decay: ``constant`` (stays at 1), ``cosine`` or ``linear``.
        warmup: the first part, as a fraction of the steps.

    Raises:
        InputError: a value outside its rule.
    """
    if decay not in DECAYS:
        raise InputError(f"schedule.decay={decay} is unknown; give one of {', '.join(DECAYS)}.")
    if not 0 <= warmup < 1:
        raise InputError(f"schedule.warmup={warmup:g} must be at least 0 and below 1: it is a fraction of the steps.")
    rise = round(warmup * steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        done = min(1.0, (step - rise) / max(1, steps - rise))
        return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[decay]

    return LambdaLR(optimizer, factor)
