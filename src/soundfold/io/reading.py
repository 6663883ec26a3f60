"""Reading of files with a limit of their size, and checks of the types of JSON values."""

from __future__ import annotations

import os
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


def read_text(path: Path, max_bytes: int) -> str:
    """Read a UTF-8 file, without changing its line ends.

    Raises:
        OSError, ValueError: see `read_bytes`; or the file is not UTF-8.
    """
    return read_bytes(path, max_bytes).decode()


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is larger than ``max_bytes``, or not a regular file.
    """
    # reading a pipe could block forever
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")
    with path.open("rb") as stream:
        # Python allocates as much as it is asked for
        content = stream.read(min(os.fstat(stream.fileno()).st_size, max_bytes) + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes / 1e6:.0f} MB, the limit for such a file")
    return content


def check_types(cls: type, values: dict[str, Any]) -> None:
    """Check values from JSON against the annotations of a dataclass: all fields without a default, and no others.

    Raises:
        ValueError: the message names the first field that is missing, unknown or of another type.
    """
    hints = get_type_hints(cls)
    if unknown := sorted(set(values) - set(hints)):
        raise ValueError(f"{unknown[0]} is unknown")
    for field in fields(cls):
        if field.name in values and not _has_type(values[field.name], hints[field.name]):
            raise ValueError(f"{field.name} is not {field.type}")
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{field.name} is missing")


def _has_type(value: Any, hint: Any) -> bool:
    """Return whether a value from JSON has a type: a class, union, list or dict of such, or Any."""
    args = get_args(hint)
    if hint is Any:
        return True
    if isinstance(hint, UnionType):
        return any(_has_type(value, arg) for arg in args)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_has_type(item, args[0]) for item in value)
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(_has_type(item, args[1]) for item in value.values())
    # bool is a subclass of int, and JSON writes 1.0 as 1
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)
