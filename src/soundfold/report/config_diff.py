"""Settings in which runs differ, one column per key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from soundfold.config import CONF, NOT_IDENTITY, compose_config, drop_keys, flatten

_NOT_SET = object()


def differing_keys(configs: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the keys that affect results and differ between runs, each with its value in every run.

    Args:
        configs: nested configurations, one per run.

    Returns:
        Dotted key -> values as YAML; an empty string where a run does not have the key, because the section is null.
    """
    flat = [flatten(drop_keys(config, NOT_IDENTITY)) for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config)
    columns = {key: [config.get(key, _NOT_SET) for config in flat] for key in keys}
    columns = {key: values for key, values in columns.items() if any(value != values[0] for value in values)}
    return {
        key: [_as_yaml(value) for value in values]
        for key, values in columns.items()
        # a section that is null in some runs: its keys already show the difference
        if not any(other.startswith(f"{key}.") for other in columns) and not _belongs_to_class(key, columns)
    }


def _belongs_to_class(key: str, columns: dict[str, list[Any]]) -> bool:
    """Return whether a key is an option of one class only, so that the difference of ``_target_`` implies it."""
    section, _, name = key.rpartition(".")
    values = [value for value in columns[key] if value is not _NOT_SET]
    is_own = len(values) < len(columns[key]) and all(value == values[0] for value in values)
    return is_own and name != "name" and f"{section}._target_" in columns


def _as_yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "" if value is _NOT_SET else str(value)


def grouped_differences(configs: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return `differing_keys` in fewer columns: keys of a section that split the runs identically share one.

    Switching on an augmentation changes a dozen keys at once. A shared column holds option names of conf/ if every
    run's section is one (``augment``: ``strong``, ``none``); otherwise the first key and the number of the others.
    """
    columns = _merge_names(differing_keys(configs))
    groups: dict[tuple[str, ...], list[str]] = {}
    for key, values in columns.items():
        groups.setdefault((key.split(".")[0], *(str(values.index(value)) for value in values)), []).append(key)
    grouped: dict[str, list[str]] = {}
    for (section, *_), keys in groups.items():
        if section in grouped:
            continue
        is_class = any(key.rpartition(".")[2] in ("_target_", "name") for key in keys)
        options = [_option_name(section, config) for config in configs] if len(keys) > 1 or is_class else []
        if options and all(options):
            grouped[section] = options
        else:
            first = next((key for key in keys if "" not in columns[key]), keys[0])
            grouped[f"{first} and {len(keys) - 1} more" if len(keys) > 1 else first] = columns[first]
    return grouped


def _merge_names(columns: dict[str, list[str]]) -> dict[str, list[str]]:
    """Drop each ``_target_`` that a ``name`` beside it explains; the name of a class without one is the class's."""
    merged = dict(columns)
    for key, targets in columns.items():
        section, _, leaf = key.rpartition(".")
        if leaf == "_target_" and (names := columns.get(f"{section}.name")):
            filled = [name or target.rpartition(".")[2] for name, target in zip(names, targets, strict=True)]
            if len(set(zip(filled, targets, strict=True))) == len(set(filled)):
                del merged[key]
                merged[f"{section}.name"] = filled
    return merged


def _option_name(section: str, config: dict[str, Any]) -> str:
    """Return ``strong`` for the section that ``augment=strong`` selects; an empty string if no option matches."""
    section_values = drop_keys({section: config.get(section)}, NOT_IDENTITY)
    return next((name for name, values in _options(section).items() if values == section_values), "")


@cache
def _options(section: str) -> dict[str, dict[str, Any]]:
    """Compose every option of a section in conf/ with the default configuration."""
    options = {}
    for path in sorted((CONF / section).glob("*.yaml")):
        values: Any = OmegaConf.to_container(compose_config(f"{section}={path.stem}"), resolve=True)
        options[path.stem] = drop_keys({section: values.get(section)}, NOT_IDENTITY)
    return options
