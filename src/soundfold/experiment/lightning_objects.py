"""Lightning loggers, callbacks, profilers and strategies that the configuration names by their class.

In a text option ``{folder}`` is the fold's folder, ``{run}`` the run's name, and ``{fold}`` the fold's number or
``none``. For the run of the cross-validation, ``fold {fold}`` becomes ``cv``. Loggers that take a ``save_dir``, and
callbacks and profilers that take a ``dirpath``, get a folder of the fold unless the entry sets one.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.strategies.ddp import DDPStrategy
from omegaconf import DictConfig, OmegaConf

from soundfold import config
from soundfold.config.targets import build_target, check_target, find_target

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def check_entries(cfg: DictConfig) -> None:
    """Check the entries that name a class, of loggers, callbacks, the profiler and the strategy, without building them.

    Raises:
        InputError: a class cannot be imported, is of another kind, or rejects the names of its options.
    """
    for key, entry, kind, folder_argument in _entries(cfg):
        check_target(key, entry, kind, **_folder(key, entry, kind, folder_argument, Path()))


def make_loggers(cfg: DictConfig, folder: Path) -> list[Logger]:
    """Build from the entries of ``logger`` that name a class.

    Args:
        cfg: of the run.
        folder: of the fold.

    Raises:
        InputError: a class rejects the values of its options.
    """
    return _build(cfg, folder, Logger)


def make_cv_loggers(cfg: DictConfig, folder: Path) -> list[Logger]:
    """Build the loggers of a cross-validation's own run: as `make_loggers`, with ``cv`` for ``fold {fold}``.

    Args:
        cfg: of the run.
        folder: of the run.
    """
    return _build(cfg, folder, Logger, {"{run}": folder.name, "fold {fold}": "cv", "{fold}": "cv"})


def make_callbacks(cfg: DictConfig, folder: Path) -> list[Callback]:
    """Build from ``callbacks``, see `make_loggers`."""
    return _build(cfg, folder, Callback)


def make_profiler(cfg: DictConfig, folder: Path) -> Profiler | None:
    """Build from ``trainer.profiler``, see `make_loggers`; None if it is off.

    Its reports are in the fold's folder, such as ``fit-profile.txt``.
    """
    profiler = cfg.trainer.profiler
    if isinstance(profiler, str):
        return PROFILERS[profiler](dirpath=folder, filename="profile")
    return next(iter(_build(cfg, folder, Profiler)), None)


def make_ddp_strategy(cfg: DictConfig) -> DDPStrategy | str:
    """Return the strategy of several devices: Lightning's by name, or built from ``trainer.strategy``."""
    strategy: Any = cfg.trainer.strategy
    if isinstance(strategy, str):
        return "ddp" if strategy == "auto" else strategy
    entry: Any = OmegaConf.to_container(strategy, resolve=True)
    return build_target("trainer.strategy", entry, DDPStrategy)


def _entries(cfg: DictConfig) -> Iterator[tuple[str, dict[str, Any], type, str]]:
    """Yield key, entry, kind and name of the argument for a folder, of each entry that names a class."""
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    sections = {
        "logger": ({n: e for n, e in values["logger"].items() if n not in config.LOGGERS}, Logger, "save_dir"),
        "callbacks": (values["callbacks"], Callback, "dirpath"),
    }
    trainer = values["trainer"]
    found: list[tuple[str, Any, type, str]] = [
        ("trainer.profiler", trainer["profiler"], Profiler, "dirpath"),
        ("trainer.strategy", trainer["strategy"], DDPStrategy, ""),
    ]
    for section, (entries, kind, folder_argument) in sections.items():
        found += [(f"{section}.{name}", entry, kind, folder_argument) for name, entry in entries.items()]
    yield from (item for item in found if isinstance(item[1], dict))


def _build(cfg: DictConfig, folder: Path, wanted: type, names: dict[str, str] | None = None) -> list[Any]:
    names = {"{folder}": str(folder)} | (names or {"{run}": folder.parent.name, "{fold}": folder.name[4:]})
    built = []
    for key, entry, kind, folder_argument in _entries(cfg):
        if kind is wanted:
            options = _fill(entry, names)
            built.append(build_target(key, options, kind, **_folder(key, entry, kind, folder_argument, folder)))
    return built


def _folder(key: str, entry: dict[str, Any], kind: type, argument: str, folder: Path) -> dict[str, str]:
    """Return the argument for a folder if the class takes it; a callback has one for itself."""
    if argument not in signature(find_target(key, entry["_target_"], kind)).parameters:
        return {}
    return {argument: str(folder / key.split(".")[1] if kind is Callback else folder)}


def _fill(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, names) for item in value]
    for name, text in names.items() if isinstance(value, str) else ():
        value = value.replace(name, text)
    return value
