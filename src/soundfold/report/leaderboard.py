"""Every finished cross-validation in a folder, with what differs between them: as a table, as CSV, as Markdown."""

from __future__ import annotations

import csv
import difflib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from soundfold.config import CONF, NOT_IDENTITY, compose_config, drop_keys, flatten
from soundfold.errors import InputError
from soundfold.evaluation.compare import load_run
from soundfold.evaluation.results import CVResult, load_config, load_folds, summarise
from soundfold.io.atomic import loads_with_checksum

FORMATS = ("table", "csv", "markdown")
SORTS = ("finished", "accuracy", "name", "protocol", "time")


@dataclass(frozen=True)
class ListedRun:
    """A finished cross-validation in a list of them.

    Attributes:
        name: of its folder.
        total: mean and spread over folds, with the interval.
        finished: when its last fold was, seconds since 1970.
        config: all its values, nested.
    """

    name: str
    total: CVResult
    finished: float
    config: dict[str, Any]


def holds_runs(folder: Path) -> bool:
    """Whether this is a folder of runs, and not a run."""
    return not _configs(folder) and any(_configs(child) for child in folder.glob("*/"))


def list_runs(folder: Path, where: Sequence[str] = ()) -> tuple[list[ListedRun], list[str]]:
    """The finished cross-validations in a folder, newest last, and in words those that are not finished.

    Args:
        folder: such as ``outputs``.
        where: conditions that all must hold, such as ``optim.lr=1e-3``; values are compared as YAML's.

    Raises:
        InputError: a condition is none, or names what no run has.
    """
    places: dict[Path, dict[str, Any]] = {}
    finished, unfinished = [], []
    for child in sorted(folder.glob("*/")):
        for path in _configs(child)[:1]:
            try:
                places[child] = load_config(path)
            except InputError as error:
                unfinished.append(f"{child.name} ({error})")
    wanted = _conditions(where, {key for config in places.values() for key in flatten(config)})
    for place, config in places.items():
        if any(flatten(config).get(key, _ABSENT) != value for key, value in wanted.items()):
            continue
        try:
            results = load_folds(place)
            missing = sorted(set(results[0].folds) - {r.fold for r in results}) if results else []
            if missing or not results:
                what = f"missing: {', '.join(map(str, missing))}" if missing else "no fold is finished"
                # a model that was trained on every clip has no folds to miss
                if results or not (place / "foldnone").is_dir():
                    unfinished.append(f"{place.name} ({what})")
                continue
            total = _with_interval(place, summarise(results))
        except InputError as error:
            unfinished.append(f"{place.name} ({error})")
            continue
        newest = max(path.stat().st_mtime for path in place.glob("fold*/result.json"))
        finished.append(ListedRun(place.name, total, newest, config))
    return sorted(finished, key=lambda run: run.finished), unfinished


_ABSENT = object()


def _configs(folder: Path) -> list[Path]:
    return sorted(folder.glob("fold*/config.yaml"))


def _conditions(where: Sequence[str], keys: set[str]) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    for condition in where:
        key, equals, _ = condition.partition("=")
        if not equals:
            raise InputError(f"--where {condition} is no condition; give --where KEY=VALUE, such as optim.lr=1e-3.")
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1, cutoff=0.0)
            raise InputError(f"--where {condition}: no run has {key}.{f' Did you mean {near[0]}?' if near else ''}")
        wanted[key] = OmegaConf.select(OmegaConf.from_dotlist([condition]), key)
    return wanted


def _with_interval(folder: Path, total: CVResult) -> CVResult:
    """With the interval that `cv.json` has, where it is of the same results; resampling takes a second a run."""
    try:
        kept = loads_with_checksum((folder / "cv.json").read_text())
        same = kept["folds"] == total.folds and kept["interval"] is not None
    except (OSError, ValueError, KeyError):
        same = False
    low, high = kept["interval"] if same else load_run(folder).interval
    return CVResult(**{**vars(total), "interval": (low, high)})


def sort_runs(runs: Sequence[ListedRun], sort: str) -> list[ListedRun]:
    """Runs by one of `SORTS` or by a value of their configurations, ascending; those without it first.

    Raises:
        InputError: there is nothing to sort by that has this name.
    """
    by: dict[str, Callable[[ListedRun], Any]] = {
        "finished": lambda run: run.finished,
        "accuracy": lambda run: run.total.accuracy,
        "name": lambda run: run.name,
        "protocol": lambda run: run.total.protocol,
        "time": lambda run: run.total.seconds,
    }
    if sort in by:
        return sorted(runs, key=by[sort])
    keys = {key for run in runs for key in flatten(run.config)}
    if sort not in keys:
        near = difflib.get_close_matches(sort, {*SORTS, *keys}, n=1, cutoff=0.0)[0]
        raise InputError(f"--sort {sort} is unknown; give one of {', '.join(SORTS)}, or a key. Did you mean {near}?")

    def rank(run: ListedRun) -> tuple[int, Any]:
        value = flatten(run.config).get(sort)
        if isinstance(value, int | float):
            return 1, value
        return (0, 0) if value is None else (2, str(value))

    return sorted(runs, key=rank)


def differing_keys(runs: Sequence[ListedRun]) -> dict[str, list[str]]:
    """The keys in which runs differ, of those that matter to the numbers, each with its value for every run.

    A run has an empty word for a key that it lacks, as where a whole section is switched off.
    """
    configs = [flatten(drop_keys(run.config, NOT_IDENTITY)) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    columns = {key: [_word(config.get(key, _ABSENT)) for config in configs] for key in keys}
    columns = {key: words for key, words in columns.items() if len(set(words)) > 1}
    # a section that is null for some says no more than its keys, which those lack
    return {key: words for key, words in columns.items() if not any(other.startswith(f"{key}.") for other in columns)}


def _word(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "" if value is _ABSENT else str(value)


def grouped_differences(runs: Sequence[ListedRun]) -> dict[str, list[str]]:
    """What differs, for the eye: keys of a section that tell the same runs apart share a column.

    Turning an augmentation on changes a dozen keys at once. Where the sections are those of options in conf/, the
    column has their names; else it has the first of the keys, and counts the others.
    """
    columns = differing_keys(runs)
    groups: dict[tuple[str, ...], list[str]] = {}
    for key, words in columns.items():
        groups.setdefault((key.split(".")[0], *(str(words.index(word)) for word in words)), []).append(key)
    kept: dict[str, list[str]] = {}
    for (section, *_), keys in groups.items():
        options = [_option(section, run.config) for run in runs] if len(keys) > 1 else []
        if options and all(options):
            kept[section] = options
        else:
            shown = next((key for key in keys if "" not in columns[key]), keys[0])
            kept[f"{shown} and {len(keys) - 1} more" if len(keys) > 1 else shown] = columns[shown]
    return kept


def _option(section: str, config: dict[str, Any]) -> str:
    """Which option in conf/ a section is, as ``strong`` for ``augment=strong``; an empty word where it is none."""
    own = drop_keys({section: config.get(section)}, NOT_IDENTITY)
    return next((name for name, values in _options(section).items() if values == own), "")


@cache
def _options(section: str) -> dict[str, dict[str, Any]]:
    """The options in conf/ of a section of the configuration, as a run without another word would have them."""
    options = {}
    for path in sorted((CONF / section).glob("*.yaml")):
        values: Any = OmegaConf.to_container(compose_config(f"{section}={path.stem}"), resolve=True)
        options[path.stem] = drop_keys({section: values.get(section)}, NOT_IDENTITY)
    return options


def _rows(runs: Sequence[ListedRun]) -> tuple[list[str], list[list[str]]]:
    columns = grouped_differences(runs)
    rows = []
    for k, run in enumerate(runs):
        total = run.total
        assert total.interval is not None
        low, high = (100 * end for end in total.interval)
        mark = " LEAKY" if total.leaky else ""
        score = f"{100 * total.accuracy:.2f} ± {100 * total.accuracy_sd:.2f}{mark}"
        time = str(timedelta(seconds=round(total.seconds)))
        shown = [words[k] for words in columns.values()]
        rows.append([run.name, *shown, total.protocol, score, f"{low:.2f} to {high:.2f}", time])
    return ["run", *columns, "protocol", "accuracy %", "95 % interval", "time"], rows


def print_leaderboard(runs: Sequence[ListedRun]) -> None:
    """Print a row per run."""
    names, rows = _rows(runs)
    table = Table(title=f"Finished cross-validations: {len(runs)}")
    for name in names:
        table.add_column(Text(name), justify="left" if name in ("run", "protocol") else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    # into a file or a pipe at its full width: there is no screen to fit it to
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


def as_markdown(runs: Sequence[ListedRun]) -> str:
    """A row per run, as `print_leaderboard` shows it."""
    names, rows = _rows(runs)
    lines = [names, ["---"] * len(names), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(runs: Sequence[ListedRun]) -> str:
    """A row per run, numbers in full: accuracies as fractions of 1, seconds, and each key that differs."""
    columns = differing_keys(runs)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    scores = ["accuracy", "accuracy_sd", "low", "high"]
    writer.writerow(["run", "finished", "protocol", "leaky", "clips", *scores, "seconds", *columns])
    for k, run in enumerate(runs):
        total = run.total
        assert total.interval is not None
        when = datetime.fromtimestamp(run.finished).astimezone().isoformat(timespec="seconds")
        row = [run.name, when, total.protocol, str(total.leaky).lower(), total.n, total.accuracy, total.accuracy_sd]
        writer.writerow([*row, *total.interval, total.seconds, *(words[k] for words in columns.values())])
    return out.getvalue()
