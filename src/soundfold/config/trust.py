"""Modules whose classes a stored model may name, beyond a fixed list: importing one runs its code."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from soundfold.errors import InputError

_trusted: set[str] = set()


def trust(*modules: str) -> None:
    """Allow models that this process reads to name classes of these modules and of the modules within them.

    Args:
        modules: import paths, such as ``mypackage``.

    Raises:
        InputError: a module is not an import path.
    """
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise InputError(f"--trust {module}: this is not the import path of a module, such as mypackage.networks.")
    _trusted.update(modules)


def require_trust(key: str, target: Any, known: Collection[str]) -> None:
    """Refuse a class that a stored model names, unless it is known or its module is trusted. Nothing is imported.

    Args:
        key: dotted key of the entry, such as ``model``.
        target: the ``_target_`` that the model's configuration has.
        known: import paths that need no trust.

    Raises:
        InputError: the class is neither.
    """
    parts = target.split(".") if isinstance(target, str) else []
    if not (parts and target in known) and not any(
        ".".join(parts[:length]) in _trusted for length in range(1, len(parts))
    ):
        module = parts[0] if parts else "MODULE"
        raise InputError(
            f"This model's {key}._target_={target} is not a class of soundfold, and importing it could run any code. "
            f"If you trust the model and this code, add --trust {module} (in Python, soundfold.config.trust)."
        )
