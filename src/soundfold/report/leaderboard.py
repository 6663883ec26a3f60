"""Runs in a folder: list, filter, sort."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from soundfold.config import flatten
from soundfold.errors import InputError
from soundfold.evaluation.compare import load_run
from soundfold.evaluation.cv_result import CVResult, summarise
from soundfold.evaluation.results import MAX_JSON, fold_folders, load_config, load_folds
from soundfold.evaluation.run_names import distinct_names, is_copy
from soundfold.io.atomic import loads_with_checksum
from soundfold.io.reading import read_text


@dataclass(frozen=True)
class ListedRun:
    """A run with at least one scored fold.

    Attributes:
        name: name of its folder, preceded by its parents where two runs have the same.
        total: mean and spread over folds.
        interval: 95 % interval of the pooled accuracy.
        finished: modification time of its newest fold's result, seconds since 1970.
        config: nested configuration of its first fold.
        copies: names of copies in other folders, which are not listed.
    """

    name: str
    total: CVResult
    interval: tuple[float, float]
    finished: float
    config: dict[str, Any]
    copies: tuple[str, ...] = ()


SORT_KEYS: dict[str, Callable[[ListedRun], Any]] = {
    "finished": lambda run: run.finished,
    # a mean over some folds is not comparable to one over all: incomplete runs first, so that none ranks best
    "accuracy": lambda run: (run.total.is_complete, run.total.accuracy),
    "name": lambda run: run.name,
    "protocol": lambda run: run.total.protocol,
    "time": lambda run: run.total.seconds,
}


def holds_runs(folder: Path) -> bool:
    """Return True for a folder of runs, False for a run or any other folder."""
    return not _config_files(folder) and any(_config_files(child) for child in folder.glob("*/"))


def _config_files(run: Path) -> list[Path]:
    return [path for folder in fold_folders(run).values() if (path := folder / "config.yaml").is_file()]


def list_runs(folders: Sequence[Path], where: Sequence[str] = ()) -> tuple[list[ListedRun], list[str]]:
    """Find the cross-validations in folders. Of copies of a run, the one with most folds is listed.

    Args:
        folders: parents of the runs, such as ``outputs``.
        where: conditions such as ``optim.lr=1e-3`` that a run must satisfy; values are compared as YAML.

    Returns:
        The runs with a finished fold, newest last; and one description per run with a missing fold or unreadable one.

    Raises:
        InputError: a condition is malformed, or no run has its key.
    """
    found = [run for folder in dict.fromkeys(map(Path.resolve, folders)) for run in sorted(folder.glob("*/"))]
    # a run of several folders only needs to differ from other runs, and not from `multirun`
    runs = [run for run in found if _config_files(run)]
    names = dict(zip(runs, distinct_names(runs), strict=True))
    configs: dict[Path, dict[str, Any]] = {}
    unfinished: dict[str, str] = {}
    for run, name in names.items():
        try:
            configs[run] = load_config(_config_files(run)[0])
        except InputError as error:
            unfinished[name] = f"unreadable: {error}"
    conditions = _parse_conditions(where, {key for config in configs.values() for key in flatten(config)})
    listed: list[ListedRun] = []
    for run, config in configs.items():
        values = flatten(config)
        if any(key not in values or values[key] != value for key, value in conditions.items()):
            continue
        try:
            if results := load_folds(run):
                listed.append(_listed_run(run, names[run], summarise(results), config))
                if missing := set(results[0].folds) - {r.fold for r in results}:
                    unfinished[names[run]] = f"missing: {', '.join(map(str, sorted(missing)))}"
            # a model trained on every clip (fold=none) has no scored folds
            elif not (run / "foldnone").is_dir():
                unfinished[names[run]] = "no fold is finished"
        except InputError as error:
            unfinished[names[run]] = f"unreadable: {error}"
    listed = _without_copies(listed)
    copies = {name for run in listed for name in run.copies}
    reasons = [f"{name} ({reason})" for name, reason in unfinished.items() if name not in copies]
    return sorted(listed, key=SORT_KEYS["finished"]), reasons


def _without_copies(runs: Sequence[ListedRun]) -> list[ListedRun]:
    """Return one run of those that are copies of each other; a folder of the same name is no copy if it differs."""
    listed: dict[str, ListedRun] = {}
    for run in sorted(runs, key=lambda run: len(run.total.folds), reverse=True):
        base = Path(run.name).name
        same = (other for other in listed.values() if Path(other.name).name == base and is_copy(run.total, other.total))
        if original := next(same, None):
            listed[original.name] = replace(original, copies=(*original.copies, run.name))
        else:
            listed[run.name] = run
    return list(listed.values())


def _parse_conditions(where: Sequence[str], keys: set[str]) -> dict[str, Any]:
    conditions: dict[str, Any] = {}
    for condition in where:
        key, equals, _ = condition.partition("=")
        if not equals:
            raise InputError(f"--where {condition} is not a condition. Use --where KEY=VALUE, such as optim.lr=1e-3.")
        if key not in keys:
            hint = f" Did you mean {_closest(key, keys)}?" if keys else ""
            raise InputError(f"--where {condition}: no run has the key {key}.{hint}")
        try:
            conditions[key] = OmegaConf.select(OmegaConf.from_dotlist([condition]), key)
        except YAMLError as error:
            raise InputError(f"--where {condition}: the value is not YAML: {' '.join(str(error).split())}.") from None
    return conditions


def _closest(name: str, names: Iterable[str]) -> str:
    return difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]


def _listed_run(run: Path, name: str, total: CVResult, config: dict[str, Any]) -> ListedRun:
    newest = max((run / f"fold{fold['fold']}" / "result.json").stat().st_mtime for fold in total.folds)
    return ListedRun(name, total, _interval(run, total), newest, config)


def _interval(run: Path, total: CVResult) -> tuple[float, float]:
    """Return the interval in ``cv.json`` if that file summarizes these folds: the bootstrap takes a second per run."""
    try:
        cached = loads_with_checksum(read_text(run / "cv.json", MAX_JSON))
        if cached["folds"] == total.folds and cached["interval"] is not None:
            low, high = cached["interval"]
            return float(low), float(high)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no usable cv.json: compute it
    return load_run(run).interval


def sort_runs(runs: Sequence[ListedRun], key: str) -> list[ListedRun]:
    """Sort ascending by one of `SORT_KEYS`, a metric or a configuration key; runs without it come first.

    Raises:
        InputError: the key is unknown.
    """
    if key in SORT_KEYS:
        return sorted(runs, key=SORT_KEYS[key])
    metrics = {name for run in runs for name in run.total.metrics}
    if key in metrics:

        def score(run: ListedRun) -> tuple[bool, float]:
            value = run.total.metrics.get(key)
            return run.total.is_complete, -inf if value is None else value  # incomplete first, as by accuracy

        return sorted(runs, key=score)
    known = {name for run in runs for name in flatten(run.config)}
    if key not in known:
        raise InputError(
            f"--sort {key} is unknown. Use one of {', '.join([*SORT_KEYS, *sorted(metrics)])}, or a configuration key. "
            f"Did you mean {_closest(key, {*SORT_KEYS, *metrics, *known})}?"
        )

    def rank(run: ListedRun) -> tuple[int, Any]:
        value = flatten(run.config).get(key)
        if isinstance(value, int | float):
            return 1, value
        return (0, 0) if value is None else (2, str(value))

    return sorted(runs, key=rank)
