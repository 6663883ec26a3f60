"""The user's own modules that a configuration names by ``_target_``: a fold is not reused after one has changed.

The source of soundfold is recorded as its commit or version, and that of installed packages as their versions.
"""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions, version
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from soundfold.config import identity_values
from soundfold.errors import InputError
from soundfold.experiment.environment import LIBRARIES, PACKAGE
from soundfold.io.atomic import write_text
from soundfold.io.reading import read_text

# in the folder of an unfinished fold
FILE = "modules.json"
MAX_BYTES = 1_000_000
STANDARD_LIBRARY = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]


def user_modules(values: dict[str, Any]) -> dict[str, Path]:
    """Return the file of each of the user's modules that hold a ``_target_`` in plain values.

    A target's packages are included. A target that cannot be imported is passed over; what builds it reports it.
    """
    files: dict[str, Path] = {}
    for target in _targets(values):
        try:
            modules = {target.rpartition(".")[0], resolve_name(target).__module__}
        except Exception:  # of an arbitrary module
            continue
        for name in sorted({name for module in modules for name in _with_packages(module)} & sys.modules.keys()):
            path = getattr(sys.modules[name], "__file__", None)
            if path is not None and _is_user_file(Path(path).resolve()):
                files[name] = Path(path).resolve()
    return files


def module_digests(values: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each of the user's modules that hold the ``_target_`` of a setting that changes results.

    Args:
        values: plain values of a configuration.
    """
    return file_digests(identity_values(values))


def file_digests(values: dict[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each of `user_modules`."""
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in user_modules(values).items()}


def package_versions(values: dict[str, Any]) -> dict[str, str]:
    """Return the version of each installed package, beside those that every run records, that has a ``_target_``."""
    modules = {target.partition(".")[0] for target in _targets(identity_values(values))}
    if not (modules := modules - {"soundfold", *LIBRARIES}):
        return {}
    packages = packages_distributions()  # reads the metadata of every package
    return {package: version(package) for module in sorted(modules) for package in packages.get(module, ())}


def write_modules(folder: Path, digests: Mapping[str, str]) -> None:
    """Store the digests in a fold's folder before it is trained, for `read_modules`."""
    if digests:
        write_text(folder / FILE, json.dumps(digests, indent=1))


def read_modules(folder: Path) -> dict[str, str]:
    """Return the digests of an interrupted fold; empty if it has none."""
    try:
        return dict(json.loads(read_text(folder / FILE, MAX_BYTES)))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{folder / FILE} cannot be read ({error}), so the code that trained the interrupted fold is unknown. "
            "Train it from the start with rerun=true."
        ) from None


def refuse_changed_modules(stored: Mapping[str, str], current: Mapping[str, str], fold: str) -> None:
    """Refuse to reuse a fold that was trained by other code.

    Args:
        stored: digests when the fold was trained.
        current: digests now.
        fold: name of the fold for the message.

    Raises:
        InputError: a module differs; the message has its file.
    """
    for name, digest in stored.items():
        if current.get(name, digest) != digest:
            raise InputError(
                f"{sys.modules[name].__file__} has changed since {fold} was trained with it, so the fold is not "
                "reused. Train it again by rerun=true, start another run by label=TEXT, or restore the file."
            )


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "_target_" and isinstance(value, str):
                yield value
            else:
                yield from _targets(value)
    elif isinstance(node, list):
        for item in node:
            yield from _targets(item)


def _with_packages(module: str) -> Iterator[str]:
    """Yield ``a.b.c``, ``a.b`` and ``a``."""
    while module:
        yield module
        module = module.rpartition(".")[0]


def _is_user_file(path: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(path.parts):
        return False
    return not any(path.is_relative_to(folder) for folder in (PACKAGE, *STANDARD_LIBRARY))
