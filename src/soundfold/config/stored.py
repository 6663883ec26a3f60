"""Configurations in files: their plain values, which may come from a stranger."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from soundfold.io.reading import read_text

# a configuration has about 4 kB and 5 levels
MAX_CHARACTERS = 100_000
MAX_BYTES = 4 * MAX_CHARACTERS
MAX_LEVELS = 20
# replaces an interpolated option of a logger or callback, which may be a secret of the environment
INTERPOLATED = "<interpolated>"


class _PlainLoader(yaml.SafeLoader):
    """Loader without aliases, which can multiply a few bytes to gigabytes, and without repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has a YAML alias, which no stored configuration has")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if repeated := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"it has the key {repeated[0]!r} twice")
        return super().construct_mapping(node, deep)


def read_stored(path: Path) -> dict[str, Any]:
    """Read a file of `to_yaml`, see `parse_stored`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a stored configuration.
    """
    return parse_stored(read_text(path, MAX_BYTES))


def parse_stored(text: Any) -> dict[str, Any]:
    """Return the values of a text of `to_yaml`.

    They are plain: an interpolation, which would read the environment or call a resolver, is refused.

    Raises:
        ValueError: it is not a stored configuration; the message has the reason and, for a value, its key.
    """
    if not isinstance(text, str):
        raise ValueError("its configuration is not text")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"its configuration is longer than {MAX_CHARACTERS} characters")
    try:
        # a safe loader, although its name is not `safe_load`
        values = _PlainLoader(text).get_single_data()
    except RecursionError:
        raise ValueError(f"it has more than {MAX_LEVELS} levels") from None
    except yaml.YAMLError as error:
        raise ValueError(f"it is not plain YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError("it is empty" if values is None else "it is not a mapping of keys to values")
    _check_plain(values, ())
    return values


def _check_plain(value: Any, path: tuple[str, ...]) -> None:
    key = ".".join(path)
    if len(path) > MAX_LEVELS:
        raise ValueError(f"it has more than {MAX_LEVELS} levels")
    if isinstance(value, dict):
        for name, item in value.items():
            # an option of a logger may have numbers as keys
            if not isinstance(name, str) and (not path or not isinstance(name, int | float)):
                raise ValueError(f"its key {name!r} is not text")
            _check_plain(name, (*path, str(name)))
            _check_plain(item, (*path, str(name)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_plain(item, (*path, str(index)))
    elif isinstance(value, str):
        if "${" in value:
            raise ValueError(f"{key} is an interpolation, ${{...}}, but a stored configuration has only plain values")
        if value == "???":
            raise ValueError(f"{key} has no value")
    elif value is not None and not isinstance(value, bool | int | float):
        raise ValueError(f"{key} is of type {type(value).__name__}, which no stored configuration has")


def stored_values(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved values of a configuration that may be stored.

    Interpolated options of loggers and callbacks are left out: they may be secrets, such as ``${oc.env:TOKEN}``.
    """
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    for section in {"callbacks", "logger"} & raw.keys():
        values[section] = _hide_interpolated(raw[section])
    return values


def _hide_interpolated(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {name: _hide_interpolated(value) for name, value in raw.items()}
    if isinstance(raw, list):
        return [_hide_interpolated(value) for value in raw]
    return INTERPOLATED if isinstance(raw, str) and "${" in raw else raw
