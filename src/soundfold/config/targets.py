"""Classes and functions that a configuration names by ``_target_``."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from inspect import Parameter, isclass, isfunction, signature
from pkgutil import resolve_name
from typing import Any, get_type_hints

from soundfold.errors import InputError


def find_target(key: str, target: Any, kind: type) -> Any:
    """Return a class derived from ``kind``, or a function annotated to return one. Nothing is called.

    Args:
        key: dotted key of the entry, for the error message, such as ``logger.mine``.
        target: import path, such as ``mypackage.losses.Focal``.
        kind: the type that is wanted.

    Raises:
        InputError: it cannot be imported, or builds something else.
    """
    where = f"{key}._target_={target}"
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise InputError(f"{where} is not an import path, such as package.module.Class.")
    try:
        found = resolve_name(target)
    except Exception as error:  # of an arbitrary module
        raise InputError(f"{where} cannot be imported: {error}.") from error
    built = found
    if isfunction(found):
        try:
            built = get_type_hints(found).get("return")
        except Exception:  # an annotation that cannot be evaluated
            built = None
        if built is None:
            raise InputError(f"{where} is a function that does not declare to return a {_name(kind)}: annotate it.")
    if not (isclass(built) and issubclass(built, kind)):
        raise InputError(f"{where} is not a {_name(kind)}.")
    return found


def check_target(key: str, entry: Mapping[str, Any], kind: type, **arguments: Any) -> tuple[Any, dict[str, Any]]:
    """Return the target of an entry and its keyword arguments, see `build_target`. Nothing is called.

    Raises:
        InputError: see `find_target`; or the target does not have these arguments.
    """
    found = find_target(key, entry["_target_"], kind)
    options = {**arguments, **{name: value for name, value in entry.items() if name != "_target_"}}
    try:
        signature(found).bind(**options)
    except TypeError as error:
        raise InputError(f"{key}: {entry['_target_']} rejects its options: {error}.") from error
    return found, options


def accepts(parameters: Mapping[str, Parameter], option: str) -> bool:
    """Return whether a target with these parameters takes a keyword argument."""
    return option in parameters or any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


def refuse_unknown_options(
    section: str, target: str, options: Iterable[str], parameters: Mapping[str, Parameter], others: Collection[str]
) -> None:
    """Raise for the first option that the target does not have, and name the nearest key of the section.

    Args:
        section: of the configuration, whose keys are the options.
        target: import path, for the error message.
        options: to check.
        parameters: of the target that may be set.
        others: keys of the section that are not options of the target.

    Raises:
        InputError: an option is unknown.
    """
    names = sorted({*parameters, *others})
    for option in options:
        if not accepts(parameters, option):
            near = difflib.get_close_matches(option, names, n=1, cutoff=0.6)
            remedy = f"Did you mean {section}.{near[0]}?" if near else f"Omit it, or set ~{section}.{option}."
            raise InputError(
                f"{section}.{option} is not an option of {target}. {remedy} Keys of {section}: {', '.join(names)}."
            )


def build_target(key: str, entry: Mapping[str, Any], kind: type, **arguments: Any) -> Any:
    """Build the object that an entry of the configuration describes.

    Args:
        key: dotted key of the entry, for the error message.
        entry: ``_target_`` and keyword arguments, as plain values.
        kind: the type of the object.
        **arguments: further keyword arguments; those of ``entry`` have precedence.

    Raises:
        InputError: see `find_target`; or the target rejects its arguments.
    """
    target = entry["_target_"]
    found, options = check_target(key, entry, kind, **arguments)
    try:
        built = found(**options)
    except ImportError as error:
        raise InputError(f"{key}: {target} requires a package that is not installed: {error}.") from error
    except InputError:  # names the argument
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{key}: {target} rejects its options: {str(error).rstrip('.')}.") from error
    if not isinstance(built, kind):
        raise InputError(f"{key}._target_={target} returned a {type(built).__name__}, not a {_name(kind)}.")
    return built


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
