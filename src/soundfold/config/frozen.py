"""The frozen identity table, see ``identity.yaml``."""

from __future__ import annotations

import copy
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from soundfold.config.model_schema import Model, ResNet18


@cache
def frozen_values() -> dict[str, Any]:
    """Return the table: dotted keys and the values of runs that did not know them."""
    return yaml.safe_load((Path(__file__).parent / "identity.yaml").read_text())


def frozen_table(network: Any) -> dict[str, Any]:
    """Return the entries that hold for a network: those of ResNet-18's own keys mean nothing for another class.

    Args:
        network: ``model._target_``; None in configurations that did not know it.
    """
    table = frozen_values()
    if network in (None, table["model._target_"]):
        return table
    own = {f"model.{field.name}" for field in fields(ResNet18)} - {f"model.{field.name}" for field in fields(Model)}
    return {key: value for key, value in table.items() if key not in own}


def first_metrics() -> dict[str, Any]:
    """Return the entries of ``metrics`` that every run had before they were settings."""
    return copy.deepcopy(frozen_values()["metrics"])


def fill_missing(values: dict[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with the frozen value of each key that its sections lack.

    Sections that are absent or null stay so.
    """
    filled = copy.deepcopy(values)
    model = filled.get("model")
    network = model.get("_target_") if isinstance(model, dict) else None
    for key, value in frozen_table(network).items():
        section, *path, name = key.split(".") if "." in key else ("", key)
        node = filled.get(section) if section else filled
        for part in path:
            # the table lists an optional section before its keys, so it is null or a mapping by now
            node = node.setdefault(part, {}) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.setdefault(name, copy.deepcopy(value))
    return filled
