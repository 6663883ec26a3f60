"""Declaration of a configuration key with its choices and range, which `soundfold.validation` checks."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from omegaconf import MISSING


def key(
    *,
    choices: tuple[str | bool, ...] | None = None,
    reason: str = "",
    integers: bool = False,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    finite: bool = False,
) -> Any:
    """Declare a key without a default.

    Args:
        choices: the values that it takes.
        reason: why other values are refused, or what to do instead; the end of the message.
        integers: take any integer besides the choices.
        low: least value.
        high: greatest value.
        above: exclusive lower bound.
        finite: refuse infinity.
    """
    return field(
        default=MISSING,
        metadata={
            "choices": choices,
            "reason": reason,
            "integers": integers,
            "low": low,
            "high": high,
            "above": above,
            "finite": finite,
        },
    )
