"""The validation metric that a search maximizes."""

from __future__ import annotations


def monitor_mode(monitor: str) -> str:
    """Return whether the smallest (``min``) or largest (``max``) value of ``selection.monitor`` is best."""
    return "min" if monitor == "val/loss" else "max"


def flip_loss(monitor: str, value: float) -> float:
    """Convert a value of ``selection.monitor`` to an objective, which is maximized, or back: a loss is negated."""
    return -value if monitor_mode(monitor) == "min" else value
