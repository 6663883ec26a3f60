"""Parameter groups, and the learning rate over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from soundfold.errors import InputError

DECAYS = ("constant", "cosine", "linear", "steps")


def parameter_groups(parts: Sequence[nn.Module], layer_decay: float = 1.0) -> list[dict]:
    """Two groups for each part: weights, and, without weight decay, norms' parameters and biases (of one dimension).

    Args:
        parts: of the network, from its input to its head; what is frozen is left out.
        layer_decay: the learning rate of each part is this times that of the next; each group says by ``rate`` which
            part of the head's it is. J. Howard and S. Ruder, Universal Language Model Fine-tuning, ACL 2018.
    """
    groups = []
    for depth, part in enumerate(reversed(parts)):
        parameters = [p for p in part.parameters() if p.requires_grad]
        groups.append(
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "rate": layer_decay**depth}
        )
        groups.append({"params": [p for p in parameters if p.ndim > 1], "rate": layer_decay**depth})
    # the head's last: its rate is the one that is shown
    return [group for group in reversed(groups) if group["params"]]


def check_schedule(decay: str, warmup: float) -> None:
    """Raise for values that `warmup_and_decay` cannot follow.

    Raises:
        InputError: a value outside its rule.
    """
    if decay not in DECAYS:
        raise InputError(f"schedule.decay={decay} is unknown; give one of {', '.join(DECAYS)}.")
    if not 0 <= warmup < 1:
        raise InputError(f"schedule.warmup={warmup:g} must be at least 0 and below 1: it is a fraction of the steps.")


def warmup_and_decay(optimizer: Optimizer, steps: int, decay: str, warmup: float) -> LambdaLR:
    """The learning rate's factor by step: a linear rise over the first part, then the decay.

    Args:
        steps: optimiser steps of the whole run.
        decay: ``constant`` (stays at 1), ``cosine``, ``linear``, or ``steps``: a tenth after half of the decay, a
            hundredth after three quarters, as deep residual networks were first trained.
        warmup: the first part, as a fraction of the steps.
    """
    rise = round(warmup * steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / (rise + 1)
        done = min(1.0, (step - rise) / max(1, steps - rise))
        if decay == "steps":
            return 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
        return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[decay]

    return LambdaLR(optimizer, factor)
