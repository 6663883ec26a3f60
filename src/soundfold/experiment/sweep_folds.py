"""Folds as jobs of a sweep: ``fold=each``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from soundfold.errors import InputError
from soundfold.experiment.sweep import Job
from soundfold.io.console import console
from soundfold.validation import config_keys, validate

Overrides = list[str]


def is_fold(override: str) -> bool:
    """Return whether an override sets ``fold``."""
    return override.lstrip("+").partition("=")[0] == "fold"


class FoldJobs:
    """Jobs of the settings of a sweep; a table of clips that several settings share is read once."""

    def __init__(self) -> None:
        self._folds: dict[str, tuple[int, ...]] = {}

    def of(self, setting: Overrides, fold: object, load: Callable[[Overrides], DictConfig]) -> list[Overrides]:
        """Return the overrides of each job of a setting: one per fold for ``fold=each``, otherwise one.

        An invalid setting is one job, which reports why. If the table of clips cannot be read here, as on a machine
        without the data that only submits jobs, one job trains all folds.

        Args:
            setting: its overrides.
            fold: ``fold`` of a setting that does not override it.
            load: returns the configuration of a job, given its overrides.
        """
        own = [override.partition("=")[2] for override in setting if is_fold(override)]
        # composing a configuration takes a tenth of a second
        if (own[-1] if own else fold) != "each":
            return [setting]
        cfg = load(setting)
        try:
            validate(cfg)
        except InputError:
            return [setting]
        others = [override for override in setting if not is_fold(override)]
        try:
            folds = self._folds_of(cfg)
        except InputError as error:
            console.print(f"warning: One job trains all folds of {' '.join(others)}: {error}", style="yellow")
            return [[*others, "fold=all"]]
        return [[*others, f"fold={fold}"] for fold in folds]

    def _folds_of(self, cfg: DictConfig) -> tuple[int, ...]:
        # imported here: torch would delay the answer to a misspelled key by seconds
        from soundfold.data.collection import open_table
        from soundfold.experiment.build import table_options

        # resolved in their places: a reference may name a key of another section
        sections = [OmegaConf.to_container(cfg[name], resolve=True) for name in ("data", "paths")]
        key = json.dumps(sections, sort_keys=True)
        if key not in self._folds:
            data, options = cfg.data, table_options(cfg)
            with config_keys("data", "paths"):
                table = open_table(Path(data.root), Path(cfg.paths.cache), data.download, data.layout, options)
            self._folds[key] = table.fold_numbers
        return self._folds[key]


def merge_folds(jobs: Sequence[Job], settings: Sequence[range]) -> list[Job]:
    """Return the jobs with those of each setting whose folds are jobs merged into one; it has ``fold="all"``.

    Args:
        jobs: that were started.
        settings: numbers of the jobs of each setting.
    """
    merged = {number: numbers for numbers in settings if len(numbers) > 1 for number in numbers}
    rows: dict[range, list[Job]] = {}
    for job in jobs:
        numbers = merged.get(job.number, range(job.number, job.number + 1))
        rows.setdefault(numbers, []).append(job)
    return [_merge(folds, len(numbers)) if len(numbers) > 1 else folds[0] for numbers, folds in rows.items()]


def _merge(folds: Sequence[Job], number: int) -> Job:
    statuses = {job.status for job in folds} | ({"running"} if len(folds) < number else set())
    status = next(status for status in ("failed", "running", "finished") if status in statuses)
    overrides = [*(override for override in folds[0].overrides if not is_fold(override)), "fold=each"]
    run = next((job.run for job in folds if job.run), None)
    return replace(max(folds, key=lambda job: job.mode), overrides=overrides, fold="all", status=status, run=run)
