"""Deletion and insertion curves: whether a ranking of the parts of a clip agrees with what the network uses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from soundfold.errors import ArgumentError
from soundfold.models.occlusion import Score, fill_level, score_filled


@dataclass(frozen=True)
class Curves:
    """The score while blocks are removed from a clip, and while they are added to a blank one, in one order.

    Attributes:
        fraction: (S + 1,), of the blocks that are removed or added, from 0 to 1.
        deletion: (S + 1,), score; the earlier it falls, the better the order.
        insertion: (S + 1,), score; the earlier it rises, the better the order.
    """

    fraction: Tensor
    deletion: Tensor
    insertion: Tensor

    @property
    def deletion_area(self) -> float:
        """Area under `deletion`, by trapezoids; lower is better."""
        return float(torch.trapezoid(self.deletion, self.fraction))

    @property
    def insertion_area(self) -> float:
        """Area under `insertion`, by trapezoids; higher is better."""
        return float(torch.trapezoid(self.insertion, self.fraction))


def rank_curves(
    score: Score, log_mel: Tensor, labels: Tensor, order: Tensor, fill: str = "mean", steps: int = 16
) -> Curves:
    """Compute the curves of an order of blocks.

    Source: V. Petsiuk, A. Das and K. Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC
    2018; here with blocks instead of pixels, since scattered pixels of a log-mel form a texture that is itself a sound.

    Args:
        score, log_mel, labels: see `soundfold.models.occlusion.score_filled`.
        order: int64 (blocks,), the most important block first.
        fill: of removed blocks, see `soundfold.models.occlusion.fill_level`.
        steps: number of points after the first; at most the number of blocks.

    Raises:
        ArgumentError: there is no step.
    """
    if steps < 1:
        raise ArgumentError(f"`steps`={steps} must be at least 1.")
    n_blocks = len(order)
    steps = min(steps, n_blocks)
    counts = torch.arange(steps + 1, device=order.device) * n_blocks // steps
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(n_blocks, device=order.device))
    chosen = rank < counts[:, None]
    # deletion at a count and insertion at 0 or at all blocks are the clip and the blank in both
    replaced = torch.cat([chosen, ~chosen[1:-1]])
    scores = score_filled(score, log_mel, labels, replaced, fill_level(log_mel, fill)).double().cpu()
    deletion = scores[: steps + 1]
    insertion = torch.cat([deletion[-1:], scores[steps + 1 :], deletion[:1]])
    return Curves(counts.cpu().double() / n_blocks, deletion, insertion)


def mean_curves(curves: list[Curves]) -> Curves:
    """Average curves of the same fractions, such as those of random orders."""
    means = (torch.stack([getattr(c, name) for c in curves]).mean(dim=0) for name in ("deletion", "insertion"))
    return Curves(curves[0].fraction, *means)
