"""Muon, an optimizer that orthogonalizes the updates of weight matrices."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from soundfold.errors import ArgumentError

# of the polynomial a x + b x^3 + c x^5, one per iteration. F. L. Cesista, J. You and K. Jordan, Squeezing 1-2 %
# Efficiency Gains Out of Muon by Optimizing the Newton-Schulz Coefficients, 2025
COEFFICIENTS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
DTYPES = ("float32", "bfloat16")


class Muon(Optimizer):
    """Muon for the weights of convolutions and linear layers, and AdamW for all other parameters.

    The momentum of a weight, as a matrix (outputs, inputs times kernel size), is replaced by an almost orthogonal one
    with the same singular vectors, so that no direction dominates the update. It is scaled to the size of an update of
    AdamW: learning rates and weight decays of AdamW are of the right order. AdamW also gets weights of one input
    channel per filter (a stem for spectrograms, depthwise convolutions).

    K. Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024. J. Liu et al., Muon is Scalable for
    LLM Training, arXiv 2502.16982, 2025.

    PyTorch's own Muon takes matrices only. That of timm iterates in bfloat16, which processors without such
    instructions emulate: on one, a step of a ResNet-18 of half the width took 8 s, and 0.3 s in float32.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        weight_decay: decoupled, as in AdamW.
        momentum: decay of the moving average of the gradient, from 0 up to below 1.
        nesterov: average the gradient once more with the momentum.
        betas: of AdamW.
        dtype: of the iterations, ``float32`` (on a GPU with TF32 products, if PyTorch allows them) or ``bfloat16``.
        fused: compute AdamW in one kernel. A CUDA graph requires it.

    Raises:
        ArgumentError: an argument is invalid.

    Example:
        >>> import torch
        >>> from soundfold.models.muon import Muon
        >>> convolution = torch.nn.Conv2d(8, 4, 3, bias=False)
        >>> optimizer = Muon(convolution.parameters(), lr=0.01, weight_decay=0.0)
        >>> before = convolution.weight.detach().clone()
        >>> convolution(torch.rand(1, 8, 5, 5)).square().sum().backward()
        >>> optimizer.step()
        >>> change = (convolution.weight.detach() - before).flatten(1)
        >>> torch.linalg.svdvals(change / (0.01 * 0.2 * 72**0.5)).round(decimals=1)
        tensor([1., 1., 1., 1.])
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        momentum: float = 0.95,
        nesterov: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        dtype: str = "float32",
        fused: bool = True,
    ):
        if not (lr >= 0 and weight_decay >= 0):
            raise ArgumentError(f"`lr`={lr} and `weight_decay`={weight_decay} must be 0 or more.")
        if not all(0 <= decay < 1 for decay in (momentum, *betas)):
            raise ArgumentError(f"`momentum`={momentum} and `betas`={tuple(betas)} must be from 0 up to below 1.")
        if dtype not in DTYPES:
            raise ArgumentError(f"`dtype`={dtype} is unknown. Set one of {', '.join(DTYPES)}.")
        options = {"momentum": momentum, "nesterov": nesterov, "betas": tuple(betas), "dtype": dtype, "fused": fused}
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, **options})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update the parameters, and return what ``closure`` returns, which computes gradients if it is given."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            self._step_matrices([p for p in parameters if is_matrix(p)], group)
            self._step_others([p for p in parameters if not is_matrix(p)], group)
        return loss

    def _step_matrices(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight in weights:
            gradient, state = weight.grad, self.state[weight]
            assert gradient is not None
            if not state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(average, group["momentum"]) if group["nesterov"] else average
            shapes[update.flatten(1).shape].append((weight, update))
        for shape, members in shapes.items():
            # as one batch, because a GPU spends most of the time on starting kernels
            updates = orthogonalize(torch.stack([u.flatten(1) for _, u in members]), getattr(torch, group["dtype"]))
            # the root mean square of AdamW's updates is about 0.2 (J. Liu et al.)
            updates = updates * (group["lr"] * (0.2 * math.sqrt(max(shape))))
            for (weight, _), update in zip(members, updates, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.view(weight.shape))

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[p] for p in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device if group["fused"] else "cpu")
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def is_matrix(parameter: Tensor) -> bool:
    """Return whether `Muon` orthogonalizes a parameter's updates: a weight with several inputs per output."""
    return parameter.ndim > 1 and parameter.shape[1] > 1


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return matrices (n, rows, columns) with the same singular vectors and singular values of about 1, 0.7 to 1.2.

    Five Newton-Schulz iterations, which need products only. Singular values below a hundredth of the largest one rise,
    but may stay below 0.7; zeros remain zeros.

    Args:
        dtype: of the iterations. The result has the dtype of ``matrices``.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for a, b, c in COEFFICIENTS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
