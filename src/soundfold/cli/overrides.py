"""The arguments of a command that composes a configuration, checked before Hydra reads them."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser  # not public; only it tells overrides from the values of flags
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from soundfold.config import CONF, Config, refuse_unknown_keys
from soundfold.config.keys import CLASS_SECTIONS
from soundfold.config.schema import OPTIMIZERS
from soundfold.errors import InputError
from soundfold.validation import check_assigned
from soundfold.validation.search import PASSWORD_REMEDY, URL_PASSWORD

# an argument that sets a secret, in any syntax, but not to a reference such as ${oc.env:NAME}; the group is its name
SECRET = re.compile(
    r"""([\w./@-]*(?:api[_-]?key|token|secret|passw(?:or)?d|access[_-]?key))["']?\s*[=:](?!\s*["']?\$\{)""",
    re.IGNORECASE,
)


def parse_arguments(args: Sequence[str]) -> Namespace:
    """Return Hydra's flags, and the overrides as ``overrides``; both may be mixed.

    Raises:
        InputError: an argument sets a secret; the message does not repeat its value.
    """
    for arg in args:
        if URL_PASSWORD.search(arg):
            raise InputError(f"{arg.partition('=')[0].partition('://')[0]} has a password. {PASSWORD_REMEDY}")
        # a network may have an option such as class_token
        if (match := SECRET.search(arg)) and not match[1].startswith("model."):
            raise InputError(
                f"{match[1]} is not a configuration key, and other users and logs can read a secret on the command "
                "line. Set an environment variable, such as WANDB_API_KEY or COMET_API_KEY, or run `wandb login` once; "
                "revoke the secret if it was a real one."
            )
    return get_args_parser().parse_intermixed_args(args)


def check_overrides(overrides: Sequence[str], schema: type, folders: Sequence[Path]) -> None:
    """Check keys and values before Hydra composes the configuration.

    Args:
        overrides: of the command line.
        schema: of the command.
        folders: with the configuration groups.

    Raises:
        InputError: a key is unknown, or a value is not one of its key's choices or outside its range.
    """
    assigned = assigned_values(overrides, folders)
    refuse_unknown_keys(assigned, schema, class_sections(overrides) if schema is Config else ())
    check_assigned(assigned, schema)


def assigned_values(overrides: Sequence[str], folders: Sequence[Path]) -> dict[str, Any]:
    """Return the values that overrides set, with or without a plus sign, by key. That of a sweep or a deletion is None.

    Args:
        overrides: of the command line.
        folders: with the configuration groups, whose options are not values.

    Raises:
        InputError: a number has too many digits, or a group is set to a number or null.
    """
    values = {}
    for override in _parse(tuple(overrides)):
        key = (override.key_or_group or "").split("@")[0]
        if any((folder / key).is_dir() for folder in folders):
            if isinstance(override.value(), int | float | None) and not override.is_delete():
                raise InputError(f"{override.input_line}: {key} is a group; choose one of its options by name.")
        elif key.split(".")[0].split("/")[0] != "hydra":
            is_value = not (override.is_sweep_override() or override.is_delete())
            values[key] = override.value() if is_value else None
    return values


def class_sections(overrides: Sequence[str]) -> set[str]:
    """Return which of `CLASS_SECTIONS` may have keys that only a class can check.

    These are the parameters of a class of the user or of a library, and with a plus sign those of any class. Such a
    class is imported only after Hydra has composed the configuration.
    """
    sections: set[str] = set()
    for override in _parse(tuple(overrides)):
        key = (override.key_or_group or "").split("@")[0]
        # empty for a list or a sweep, of which some may be the user's
        name = option if isinstance(option := override.value(), str) else ""
        if key in ("experiment", "ablate", "search"):
            # another option may choose another network and optimizer
            if name not in {path.stem for path in (CONF / key).glob("*.yaml")}:
                sections.update(CLASS_SECTIONS)
        elif key in ("model", "model._target_", "optim._target_") or (key == "optim" and name not in OPTIMIZERS):
            sections.add(key.split(".")[0])
        elif override.is_add() or override.is_force_add():
            sections |= {key.split(".")[0]}.intersection(CLASS_SECTIONS)
    return sections


@cache
def _parse(overrides: tuple[str, ...]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides([text for text in overrides if "=" in text])
    except ValueError as error:
        # Python limits the digits of an integer
        raise InputError(f"A value cannot be read: {str(error).split(';')[0]}.") from None
