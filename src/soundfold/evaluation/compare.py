"""Runs beside each other: their clips read back, their intervals, and whether one is better than another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soundfold.config import NOT_IDENTITY, drop_keys
from soundfold.errors import InputError
from soundfold.evaluation.results import CVResult, load_config, load_folds, load_predictions, summarise
from soundfold.evaluation.statistics import SeedSummary, accuracy_interval, mcnemar, over_seeds, source_interval


@dataclass(frozen=True)
class RunResult:
    """A finished cross-validation with its clips.

    Attributes:
        name: of its folder.
        total: mean and spread over folds.
        config: all values, of its first fold.
        clips: (fold, file) of each scored clip, ascending; under ``random_clips`` a clip may be scored in many repeats.
        targets: int64 (n,), in that order, as indices into the classes.
        logits: float32 (n, C).
        correct: bool (n,).
        sources: (n,).
        interval: 95 % of the pooled accuracy, resampling sources.
    """

    name: str
    total: CVResult
    config: dict[str, Any]
    clips: tuple[tuple[int, str], ...]
    targets: np.ndarray
    logits: np.ndarray
    correct: np.ndarray
    sources: tuple[str, ...]
    interval: tuple[float, float]

    @property
    def predictions(self) -> np.ndarray:
        """int64 (n,), the class of the largest logit."""
        return self.logits.argmax(axis=1)

    @property
    def collection(self) -> str:
        """The data set's name, as in ``data=esc50``."""
        return str(self.config["data"]["name"])

    def trained_on(self) -> str:
        """How many clips trained, and as how many images, in words."""
        audits = [fold["audit"] for fold in self.total.folds]
        clips = sorted({audit["train"] for audit in audits})
        images = sorted({audit.get("images", audit["train"]) for audit in audits})
        return _range(clips) if images == clips else f"{_range(clips)}, as {_range(images)} images"

    def leaks(self) -> str:
        """What of the scored clips the model had met, in words."""
        audits = [fold["audit"] for fold in self.total.folds]
        said: list[tuple[int, str]] = []
        for key, words in (
            ("same_clip", "were in training themselves"),
            ("same_source_and_class", "share source and class with training"),
            ("same_source", "share a source with training"),
        ):
            count = sum(audit.get(key) or 0 for audit in audits)
            # each is part of the next: the gravest says it, unless the next says more
            if count and (not said or count > said[-1][0]):
                said.append((count, f"{count} of {self.total.n} {words}"))
        # apart from the others: a copy may go under another source
        if heard := sum(audit.get("same_audio") or 0 for audit in audits):
            said.append((heard, f"{heard} of {self.total.n} have the very audio of a training clip"))
        if before := sum(audit.get("seen_before") or 0 for audit in audits):
            said.append((before, f"{before} of {self.total.n} were met by the weights that training started from"))
        return "; ".join(words for _, words in said) or "nothing"


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def load_run(folder: Path) -> RunResult:
    """Read a finished run's results and predictions.

    Raises:
        InputError: a fold is missing, or its predictions cannot be read or do not give its result.
    """
    total = summarise(load_folds(folder))
    rows: list[tuple[int, str, str, int, np.ndarray]] = []
    for fold in total.folds:
        path = folder / f"fold{fold['fold']}" / "predictions.csv"
        read = load_predictions(path, total.classes, fold["predictions"])
        right = read.logits.argmax(axis=1) == read.targets if len(read.files) else np.zeros(0)
        if len(right) != fold["n"] or abs(np.mean(right) - fold["accuracy"]) > 1e-4:
            raise InputError(
                f"{path} does not give the accuracy of the result.json beside it. One of the two was changed; redo the "
                "fold: the same command with rerun=true."
            )
        numbers = [fold["fold"]] * len(right)
        rows += zip(numbers, read.files, read.sources, read.targets.tolist(), read.logits, strict=True)
    rows.sort(key=lambda row: row[:2])
    sources, targets = tuple(row[2] for row in rows), np.array([row[3] for row in rows])
    logits = np.array([row[4] for row in rows], dtype=np.float32)
    hits = logits.argmax(axis=1) == targets
    return RunResult(
        folder.resolve().name,
        total,
        load_config(folder / f"fold{total.folds[0]['fold']}" / "config.yaml"),
        tuple((row[0], row[1]) for row in rows),
        targets,
        logits,
        hits,
        sources,
        accuracy_interval(hits, sources),
    )


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same clips.

    Attributes:
        a, b: their names.
        difference: pooled accuracy of b minus a's.
        interval: its 95 %, resampling sources.
        p: exact McNemar test, clip by clip; None where a clip was scored several times, which the test cannot take.
        clips, sources: how many.
    """

    a: str
    b: str
    difference: float
    interval: tuple[float, float]
    p: float | None
    clips: int
    sources: int

    def describe(self) -> str:
        """Which is better, and whether the data can tell."""
        points = f"{100 * abs(self.difference):.2f} points"
        low, high = (f"{100 * end:+.2f}" for end in self.interval)
        test = f"{self.clips} scores, several of them of one clip"
        if self.p is not None:
            test = f"exact McNemar test over {self.clips} clips: p = {self.p:.2g}"
        interval = (
            f"95 % interval of {self.b} minus {self.a}, resampling {self.sources} sources: {low} to {high} points"
        )
        measured = f"{interval}; {test}"
        if self.difference == 0:
            return f"{self.a} and {self.b} are equally accurate ({measured})."
        better, worse = (self.b, self.a) if self.difference > 0 else (self.a, self.b)
        apart = self.interval[0] > 0 or self.interval[1] < 0
        if apart and (self.p is None or self.p < 0.05):
            return f"{better} is better than {worse} by {points}, and the data can tell ({measured})."
        doubt = "the two tests disagree" if apart or (self.p is not None and self.p < 0.05) else "the data cannot tell"
        return f"{better} scored {points} more than {worse}, but {doubt}: it may be chance ({measured})."


def compare(a: RunResult, b: RunResult) -> Comparison:
    """Compare two runs clip by clip.

    Raises:
        InputError: they were scored on different clips.
    """
    if a.clips != b.clips:
        only_a, only_b = len(set(a.clips) - set(b.clips)), len(set(b.clips) - set(a.clips))
        raise InputError(
            f"{a.name} and {b.name} were scored on different clips ({only_a} only in the first, {only_b} only in the "
            "second, counted by fold), so no test can pair them. Compare runs of one collection, split and seed of the "
            "split; what each scored stands in its predictions.csv."
        )
    gained = b.correct.astype(float) - a.correct
    return Comparison(
        a.name,
        b.name,
        difference=float(gained.mean()),
        interval=source_interval(gained, a.sources),
        p=mcnemar(a.correct, b.correct) if len({name for _, name in a.clips}) == len(a.clips) else None,
        clips=len(a.clips),
        sources=len(set(a.sources)),
    )


def seed_groups(runs: Sequence[RunResult]) -> list[tuple[list[RunResult], SeedSummary]]:
    """Runs that differ by nothing but their seed (and where and under what name they ran), summed up."""
    groups: dict[str, list[RunResult]] = {}
    for run in runs:
        config = drop_keys(run.config, (*NOT_IDENTITY, "seed", "label"))
        # the place of the clips is no part of it, so the clips themselves are; random_clips scores others by seed
        clips = None if run.total.leaky else run.clips
        key = json.dumps([config, run.total.classes, run.total.n, clips], sort_keys=True)
        groups.setdefault(key, []).append(run)
    return [
        (group, over_seeds(np.array([[fold["accuracy"] for fold in run.total.folds] for run in group])))
        for group in groups.values()
        if len({run.total.seed for run in group}) == len(group) > 1
    ]


def describe_seeds(group: Sequence[RunResult], summary: SeedSummary) -> str:
    """Several seeds summed up in a sentence."""
    mark = "LEAKY: " if group[0].total.leaky else ""
    text = f"{mark}{summary.seeds} seeds x {len(group[0].total.folds)} folds ({', '.join(r.name for r in group)}): "
    text += f"{100 * summary.accuracy:.2f} %"
    if summary.interval and summary.seed_sd is not None:
        low, high = (100 * end for end in summary.interval)
        text += f", standard deviation over seeds {100 * summary.seed_sd:.2f}, over folds {100 * summary.fold_sd:.2f}"
        text += f"; 95 % interval over seeds {low:.2f} to {high:.2f} %"
    return text
