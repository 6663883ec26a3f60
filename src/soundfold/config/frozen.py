"""The frozen identity table, see ``identity.yaml``."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def frozen_values() -> dict[str, Any]:
    """Return the table: dotted keys and the values of runs that did not know them."""
    return yaml.safe_load((Path(__file__).parent / "identity.yaml").read_text())


def fill_missing(values: dict[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with the frozen value of each key that its sections lack.

    Sections that are absent or null stay so.
    """
    filled = copy.deepcopy(values)
    for key, value in frozen_values().items():
        section, *path, name = key.split(".") if "." in key else ("", key)
        node = filled.get(section) if section else filled
        for part in path:
            # the table lists an optional section before its keys, so it is null or a mapping by now
            node = node.setdefault(part, {}) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.setdefault(name, copy.deepcopy(value))
    return filled
