"""Parameter groups and the learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from soundfold.errors import ArgumentError

DECAYS = ("constant", "cosine", "linear", "steps")


def parameter_groups(stages: Sequence[nn.Module], layer_decay: float = 1.0) -> list[dict]:
    """Return two parameter groups per stage, from input to head: weights, then norms and biases without weight decay.

    Frozen parameters are skipped. Norms and biases are the parameters with at most one dimension.

    Args:
        stages: of the network, from input to head.
        layer_decay: ratio of the learning rate of a stage to that of the next one. The factor of a group relative to
            the head is stored under ``lr_scale``. J. Howard and S. Ruder, Universal Language Model Fine-tuning for
            Text Classification, ACL 2018.
    """
    groups = []
    for index, stage in enumerate(stages):
        lr_scale = layer_decay ** (len(stages) - 1 - index)
        parameters = [p for p in stage.parameters() if p.requires_grad]
        groups.append({"params": [p for p in parameters if p.ndim > 1], "lr_scale": lr_scale})
        groups.append({"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "lr_scale": lr_scale})
    return [group for group in groups if group["params"]]


def check_schedule(decay: str, warmup: float) -> None:
    """Validate the arguments of `warmup_and_decay`.

    Raises:
        ArgumentError: an argument is invalid.
    """
    if decay not in DECAYS:
        raise ArgumentError(f"`decay`={decay} is unknown. Set one of {', '.join(DECAYS)}.")
    if not 0 <= warmup < 1:
        raise ArgumentError(f"`warmup`={warmup:g} must be at least 0 and below 1: it is a fraction of the steps.")


def warmup_and_decay(optimizer: Optimizer, steps: int, decay: str, warmup: float) -> LambdaLR:
    """Return a schedule with a linear warmup, followed by a decay.

    Args:
        steps: optimizer steps of the entire run.
        decay: ``constant``, ``cosine``, ``linear``, or ``steps``: a tenth after half of the decay and a hundredth after
            three quarters, as in the original training of ResNet.
        warmup: fraction of the steps.
    """
    warmup_steps = round(warmup * steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps))
        if decay == "steps":
            return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01
        return {"constant": 1.0, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}[decay]

    return LambdaLR(optimizer, factor)
