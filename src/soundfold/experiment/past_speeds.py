"""Speeds of past runs, to estimate how long a run will take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from soundfold.config import drop_keys, flatten
from soundfold.errors import InputError
from soundfold.evaluation.results import FoldResult, fold_folders, load_config, load_folds

# sections and keys that decide how long a step takes, and options of the network that do not
SECTIONS = ("features", "crops", "model")
KEYS = ("data.seconds", "data.sample_rate", "data.batch_size", "trainer.precision", "trainer.devices")
IGNORED = ("model.weights", "model.stem", "model.loss", "model.class_weights", "model.label_smoothing")
# the newest runs that are read
MAX_RUNS = 200


@dataclass(frozen=True)
class Speed:
    """Seconds per step of past folds, with their start, validation and scoring.

    Attributes:
        seconds_per_step: median over the folds. The time of a resumed fold is only that of its last process.
        folds: number of past folds.
        device: that trained them.
    """

    seconds_per_step: float
    folds: int
    device: str


def find_speed(outputs: Path, run: Path, config: dict[str, Any], here: Mapping[str, Any] | None) -> Speed | None:
    """Return the speed of folds with images, network and batches as in ``config``; None if there are none.

    Args:
        outputs: the folder of the runs.
        run: folder of the run to estimate, whose own folds are preferred to those of others.
        config: its plain values.
        here: device and processor of past folds, as in `soundfold.experiment.environment.describe`; None accepts those
            of the newest run, for a run on another machine.
    """
    wanted = _relevant(config)
    for folder in [run, *_newest(outputs)]:
        stored, results = _read(folder)
        # a key that an older run lacks had its default
        if not results or any(stored.get(key, value) != value for key, value in wanted.items()):
            continue
        device = here or results[-1].environment
        if speeds := [r.seconds / r.steps for r in results if r.steps and _is_alike(r.environment, device)]:
            return Speed(median(speeds), len(speeds), str(device.get("device")))
    return None


def _is_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    keys = ("device",) if str(one.get("device")).startswith("cuda") else ("device", "processor")
    return all(one.get(key) == other.get(key) for key in keys)


def _relevant(config: dict[str, Any]) -> dict[str, Any]:
    values = flatten(drop_keys(config, IGNORED))
    return {key: value for key, value in values.items() if key in KEYS or key.split(".")[0] in SECTIONS}


@cache
def _newest(outputs: Path) -> list[Path]:
    """Return the folders of runs, newest first."""
    found = {path.parent: path.stat().st_mtime for path in outputs.glob("*/fold*/") if path.is_dir()}
    return sorted(found, key=lambda run: found[run], reverse=True)[:MAX_RUNS]


@cache
def _read(run: Path) -> tuple[dict[str, Any], list[FoldResult]]:
    """Return the relevant values of a run's configuration, and its finished folds; none if they cannot be read."""
    try:
        results = load_folds(run)
        configs = [folder / "config.yaml" for folder in fold_folders(run).values()]
        return (_relevant(load_config(configs[0])), results) if results else ({}, [])
    except InputError:
        return {}, []
