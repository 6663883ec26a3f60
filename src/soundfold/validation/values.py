"""Checks of single values: type limits, and the choices and ranges that the schema declares."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from soundfold.config import declared_rules, flatten
from soundfold.errors import InputError


def check_values(cfg: DictConfig, prefix: str = "") -> None:
    """Check every value of a configuration whose nodes have schema types.

    Args:
        cfg: the configuration, or a section of one.
        prefix: of the section's keys, such as ``report.``.

    Raises:
        InputError: a value is invalid.
        OmegaConfBaseException: a value is missing, or refers to one that is.
    """
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    for key, value in flatten(values, prefix).items():
        for item in value if isinstance(value, list) else [value]:
            _check_storable(key, item)
    _check_section(cfg, prefix)


def check_assigned(values: Mapping[str, Any], schema: type) -> None:
    """Check the values of overrides against choices and ranges, before Hydra composes the configuration.

    References, nan and integers of more than 64 bits pass: the composed configuration is checked for them. So do
    numbers for a key whose choices are text, and text for a key with a range.

    Args:
        values: by dotted key. Keys that the schema does not know pass.
        schema: of the configuration.

    Raises:
        InputError: a text is not one of its key's choices, or a number is outside the range of its key.
    """
    rules = declared_rules(schema)
    for key, value in values.items():
        if not (declared := rules.get(key)):
            continue
        has_choices, has_numbers = declared["choices"] is not None, declared["choices"] is None or declared["integers"]
        is_text = has_choices and isinstance(value, str) and "${" not in value
        is_number = has_numbers and isinstance(value, int | float) and abs(value) < 2**63
        if is_text or is_number or (declared["integers"] and isinstance(value, list)):
            _check_declared(key, value, declared)


def _check_section(cfg: DictConfig, prefix: str) -> None:
    schema: Any = OmegaConf.get_type(cfg)
    declared = {f.name: f for f in fields(schema)} if hasattr(schema, "__dataclass_fields__") else {}
    for name in map(str, cfg):
        value, key = cfg[name], f"{prefix}{name}"
        if isinstance(value, DictConfig):
            _check_section(value, f"{key}.")
        elif value is not None and (field := declared.get(name)):
            # OmegaConf does not check the type of a list that a reference replaces
            if str(field.type).startswith("list[") and not isinstance(value, ListConfig):
                raise InputError(f"{key}={value!r:.80} must be a list.")
            if field.metadata:
                _check_declared(key, value, field.metadata)


def _check_declared(key: str, value: Any, metadata: Mapping[str, Any]) -> None:
    choices, low, high, above = (metadata[rule] for rule in ("choices", "low", "high", "above"))
    is_number = metadata["integers"] and type(value) is int
    # 1 equals true, but Lightning does not take it for true
    if choices is not None and not (is_number or any(type(value) is type(c) and value == c for c in choices)):
        spelled = [str(choice).lower() if isinstance(choice, bool) else choice for choice in choices]
        near = difflib.get_close_matches(str(value), spelled, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        reason = f": {metadata['reason']}" if metadata["reason"] else ""
        number = ", or an integer" if metadata["integers"] else ""
        raise InputError(f"{key}={value} must be one of {', '.join(spelled)}{number}{reason}.{hint}")
    # OmegaConf does not check the type of a value that a reference replaces, either
    is_bounded = above is not None or low is not None or metadata["finite"]
    if is_bounded and not isinstance(value, int | float):
        raise InputError(f"{key}={value!r:.80} must be a number.")
    # a comparison with nan is false
    if above is not None and not value > above:
        raise InputError(f"{key}={value} must be above {above:g}.")
    if low is not None and high is not None and not low <= value <= high:
        raise InputError(f"{key}={value} must be between {low:g} and {high:g}.")
    if low is not None and not value >= low:
        raise InputError(f"{key}={value} must be at least {low:g}.")
    if metadata["finite"] and not math.isfinite(value):
        raise InputError(f"{key}={value} must be finite.")


def _check_storable(key: str, value: Any) -> None:
    if isinstance(value, float) and math.isnan(value):
        raise InputError(f"{key}={value} must be a number.")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        # it may have thousands of digits
        raise InputError(f"{key} must be an integer of 64 bits; this one has {value.bit_length()}.")
    if isinstance(value, str):
        try:
            valid = b"\0" not in value.encode()
        except UnicodeEncodeError:
            valid = False
        if not valid:
            raise InputError(f"{key}={value!r} must be text in UTF-8, without NUL.")
        # not with the value, which may be a secret of the environment
        if "${" in value:
            raise InputError(f"{key} must not contain the characters ${{ of an interpolation.")
