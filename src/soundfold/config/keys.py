"""Dotted keys of a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

from soundfold.config.migration import REMOVED, new_name
from soundfold.config.model_schema import MODELS
from soundfold.config.schema import LOGGERS, OPTIMIZERS, Config
from soundfold.config.trainer_arguments import REFUSED_ARGUMENTS
from soundfold.errors import InputError

# sections with the arguments of a class, of which the schema declares some
CLASS_SECTIONS = ("model", "optim")


def drop_keys(values: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return plain values without some dotted keys. Keys that `values` lacks are ignored."""
    remaining = dict(values)
    for key in keys:
        first, _, rest = key.partition(".")
        if not rest:
            remaining.pop(first, None)
        elif isinstance(remaining.get(first), dict):
            remaining[first] = drop_keys(remaining[first], (rest,))
    return remaining


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key. An empty section counts as a value."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        out |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return out


@cache
def known_keys(schema: type = Config) -> frozenset[str]:
    """Return every dotted key of a schema, including its sections."""
    return frozenset(declared_rules(schema))


@cache
def declared_rules(schema: type = Config) -> Mapping[str, Mapping[str, Any]]:
    """Return the choices and the range of every dotted key of a schema; empty for one that declares none."""
    rules: dict[str, Mapping[str, Any]] = {}

    def walk(node: type, prefix: str) -> None:
        hints = get_type_hints(node)
        for field in fields(node):
            rules[prefix + field.name] = field.metadata
            for kind in (hints[field.name], *getattr(hints[field.name], "__args__", ())):
                if hasattr(kind, "__dataclass_fields__"):
                    walk(kind, f"{prefix}{field.name}.")

    walk(schema, "")
    if schema is not Config:
        return rules
    for node in MODELS.values():
        walk(node, "model.")
    for node in OPTIMIZERS.values():
        walk(node, "optim.")
    for name, node in LOGGERS.items():
        rules[f"logger.{name}"] = {}
        walk(node, f"logger.{name}.")
    return rules


def refuse_unknown_keys(keys: Iterable[str], schema: type = Config, open_sections: Collection[str] = ()) -> None:
    """Raise for the first key that is not in the schema, and name its successor or the nearest key.

    The options of callbacks and metrics, of loggers that the schema does not have, and of ``augment.extra`` and
    ``data.reader`` are those of their classes, and pass.

    Args:
        keys: dotted keys.
        schema: of the command.
        open_sections: their keys pass, because a class that the configuration names checks them.

    Raises:
        InputError: a key is unknown.
    """
    known = known_keys(schema)
    for key in keys:
        if (renamed := new_name(key)) in known and renamed != key:
            raise InputError(f"{key} was renamed: set {renamed} instead.")
        if key in known or (key.split(".")[0] in known and is_class_option(key)):
            continue
        if key.split(".")[0] in open_sections:
            continue
        if reason := REMOVED.get(key):
            raise InputError(f"{key} was removed: {reason}")
        if key.startswith("trainer.") and (reason := REFUSED_ARGUMENTS.get(key.split(".")[1])):
            raise InputError(f"{key} cannot be set: {reason}.")
        section, _, _ = key.rpartition(".")
        siblings = sorted(k for k in known if k.rpartition(".")[0] == section and "._" not in k)
        names = ", ".join(s.rpartition(".")[2] for s in siblings)
        choice = f" Keys of {section}: {names}." if section and siblings else ""
        if section in CLASS_SECTIONS and section in known:
            choice += f" If the class of {section} has this argument, write ++{key}=VALUE."
        near = " or ".join(_nearest(key, known))
        raise InputError(f"{key} is not a key of the configuration. Did you mean {near}?{choice}")


def _nearest(key: str, known: frozenset[str]) -> list[str]:
    """Return the keys of this name in other sections, such as optim.lr for lr; else the key with the nearest spelling.

    At most three.
    """
    leaf = key.rpartition(".")[2]
    same_name = sorted(k for k in known if k.rpartition(".")[2] == leaf)
    return same_name[:3] or difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.0)


def is_class_option(key: str) -> bool:
    """Return whether a key belongs to an entry that names its class by ``_target_``."""
    if key.startswith(("augment.extra.", "data.reader.")):
        return True
    section, _, rest = key.partition(".")
    name = rest.split(".")[0]
    return bool(name) and (section in ("callbacks", "metrics") or (section == "logger" and name not in LOGGERS))
