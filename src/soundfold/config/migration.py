"""Configurations stored by earlier editions, in the keys of this one."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from soundfold.config.derived import F_MAX
from soundfold.config.frozen import fill_missing
from soundfold.config.schema import Config
from soundfold.config.stored import stored_values
from soundfold.errors import InputError

# The first edition stored no version. Increase it when a key changes its name or meaning, and add a step to `migrate`.
SCHEMA_VERSION = 2
VERSION_KEY = "schema_version"

RENAMED = {
    "augment.stretch": "augment.time_stretch",
    "augment.semitones": "augment.pitch_shift",
    "augment.roll": "augment.time_shift",
    "callbacks": "selection",
    "data.fetch": "data.download",
    "data.resident": "data.on_device",
    "features.hop_length": "features.hop",
    "model.rate_decay": "model.layer_decay",
    "trainer.micro_batches": "trainer.accumulate_grad_batches",
}
# of the entries of `augment`
RENAMED_OPTIONS = {"probability": "p", "whole": "integer"}
SECTIONS = {
    name for name, hint in get_type_hints(Config).items() if any(map(is_dataclass, (hint, *get_args(hint))))
} | {"callbacks", "logger", "metrics"}
REMOVED = {"trainer.halve_on_oom": "set trainer.accumulate_grad_batches instead."}


def new_name(key: str) -> str:
    """Return this edition's name of a dotted key of the first edition; other keys are returned unchanged."""
    for old, new in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            key = new + key[len(old) :]
    if key.startswith("augment.") and key.count(".") == 2:
        section, _, option = key.rpartition(".")
        key = f"{section}.{RENAMED_OPTIONS.get(option, option)}"
    return key


def to_yaml(cfg: DictConfig) -> str:
    """Return a configuration as YAML that carries the schema version, for `parse_stored` and `migrate` to read."""
    return OmegaConf.to_yaml(OmegaConf.create({VERSION_KEY: SCHEMA_VERSION, **stored_values(cfg)}))


def migrate(values: dict[str, Any]) -> dict[str, Any]:
    """Return a stored configuration in the keys of this edition, without its version.

    Keys that it did not know have the values that it computed with. Unknown keys are passed on: the reader refuses
    those that it cannot interpret.

    Args:
        values: plain values of a run's ``config.yaml``, or of the configuration in a ``weights.pt``.

    Raises:
        InputError: a later edition wrote the configuration.
        ValueError: a section is not a mapping, or the collection's name is not text.
    """
    values = dict(values)
    version = values.pop(VERSION_KEY, 1)
    if version not in range(1, SCHEMA_VERSION + 1):
        raise InputError(
            f"{VERSION_KEY}={version} is not supported: this soundfold reads up to {SCHEMA_VERSION}. Update soundfold."
        )
    values = _from_first_edition(values) if version == 1 else _accumulation_of_lightning(values)
    migrated = _graphs_of_the_trainer(fill_missing(values))
    for section in SECTIONS & migrated.keys():
        if not isinstance(migrated[section], dict | NoneType):
            raise ValueError(f"{section} is {migrated[section]!r:.60}, and must be a section")
    if "data" in migrated and not isinstance((migrated["data"] or {}).get("name", ""), str):
        raise ValueError("data.name is not text")
    return migrated


def _accumulation_of_lightning(values: dict[str, Any]) -> dict[str, Any]:
    """Rename ``trainer.micro_batches``, which had no name of Lightning's, in configurations of this edition."""
    trainer = values.get("trainer")
    if not isinstance(trainer, dict):
        return values
    return {**values, "trainer": {new_name(f"trainer.{key}").split(".", 1)[1]: trainer[key] for key in trainer}}


def _graphs_of_the_trainer(values: dict[str, Any]) -> dict[str, Any]:
    """Replace ``model.compile=graphs``, which captured the compiled network only, by a graph of the whole step."""
    model, trainer = values.get("model"), values.get("trainer")
    if not isinstance(model, dict) or model.get("compile") != "graphs":
        return values
    migrated = {**values, "model": {**model, "compile": "default"}}
    return {**migrated, "trainer": {**trainer, "cuda_graph": True}} if isinstance(trainer, dict) else migrated


def _from_first_edition(values: dict[str, Any]) -> dict[str, Any]:
    values = _logger_entries(_sizes_in_seconds(values))
    migrated: dict[str, Any] = {}
    for section, content in values.items():
        if isinstance(content, dict):
            content = {
                new_name(f"{section}.{key}").split(".", 1)[1]: _rename_options(section, value)
                for key, value in content.items()
                if f"{section}.{key}" not in REMOVED
            }
        migrated[new_name(section)] = content
    return migrated


def _rename_options(section: str, value: Any) -> Any:
    if section != "augment" or not isinstance(value, dict):
        return value
    return {RENAMED_OPTIONS.get(name, name): option for name, option in value.items()}


def _logger_entries(values: dict[str, Any]) -> dict[str, Any]:
    """Drop disabled loggers, and replace the ``true`` of an enabled one by an entry without options."""
    loggers = values.get("logger")
    if not isinstance(loggers, dict):
        return values
    enabled = {name: entry for name, entry in loggers.items() if entry is not None and entry is not False}
    return {**values, "logger": {name: {} if entry is True else entry for name, entry in enabled.items()}}


def _sizes_in_seconds(values: dict[str, Any]) -> dict[str, Any]:
    """Replace samples of the spectrogram by seconds: n_fft was both the window and the transform length."""
    features, data = values.get("features"), values.get("data")
    if not isinstance(features, dict) or not isinstance(data, dict) or "hop_length" not in features:
        return values
    rate, n_fft, f_max = data["sample_rate"], features["n_fft"], features["f_max"]
    converted = {
        **features,
        "window": samples_to_seconds(n_fft, rate),
        "hop_length": samples_to_seconds(features["hop_length"], rate),
        "n_fft": None if n_fft.bit_count() == 1 else n_fft,
        "f_max": None if f_max == min(F_MAX, rate / 2) else f_max,
    }
    return {**values, "features": converted}


def samples_to_seconds(samples: int, rate: int) -> float:
    """Return a duration in the fewest decimals, 5 or 9, that round to the same number of samples."""
    coarse = round(samples / rate, 5)
    return coarse if round(coarse * rate) == samples else round(samples / rate, 9)
