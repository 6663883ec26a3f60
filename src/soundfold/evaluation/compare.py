"""Runs: reading them with their predictions, comparing two of them, and summarizing seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from soundfold.config import NOT_IDENTITY, drop_keys
from soundfold.errors import InputError
from soundfold.evaluation.cv_result import CVResult, summarise
from soundfold.evaluation.metrics import probabilities
from soundfold.evaluation.predictions import load_fold_predictions
from soundfold.evaluation.results import REDO, load_config, load_folds
from soundfold.evaluation.statistics import SeedSummary, accuracy_interval, holm, mcnemar, over_seeds, source_interval


@dataclass(frozen=True)
class RunResult:
    """The finished folds of a cross-validation with their predictions.

    Attributes:
        name: of its folder.
        total: mean and spread over folds.
        config: all values, of its first fold.
        clips: (fold, file) of each scored clip, ascending; with ``random_clips`` a file may occur in several folds.
        targets: int64 (n,), in that order, indices into the classes.
        logits: float32 (n, C).
        correct: bool (n,).
        sources: (n,).
        interval: 95 % interval of the pooled accuracy, see `accuracy_interval`.
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
        name = (self.config.get("data") or {}).get("name")
        if name is None:
            raise InputError(f"The configuration of {self.name} lacks data.name. {REDO}")
        return str(name)

    def trained_on(self) -> str:
        """Describe the number of training clips, and of training images if it differs."""
        audits = [fold["audit"] for fold in self.total.folds]
        clips = sorted({audit["train"] for audit in audits})
        images = sorted({audit.get("images", audit["train"]) for audit in audits})
        return _range(clips) if images == clips else f"{_range(clips)}, as {_range(images)} images"

    def leaks(self) -> str:
        """Describe how many scored clips are related to clips that trained the model."""
        counts = {key: sum(fold["audit"].get(key) or 0 for fold in self.total.folds) for key in LEAKS}
        # the first three are nested, so a wider one is only worth a mention if it has more clips
        reported, phrases = 0, []
        for key, phrase in LEAKS.items():
            if counts[key] > (reported if key in NESTED_LEAKS else 0):
                phrases.append(f"{counts[key]} of {self.total.n} {phrase}")
                reported = max(reported, counts[key])
        phrases += [] if self.has_sources else ["sources unknown"]
        return "; ".join(phrases) or "nothing"

    @property
    def has_sources(self) -> bool:
        """Whether the source of every clip is known, so that an audit without a finding means no leak."""
        data = self.config.get("data") or {}
        if data.get("layout") == "folder" and not data.get("source_pattern") and not data.get("reader"):
            return False  # audits of older versions count each file as a source
        return all(fold["audit"].get("same_source", 0) is not None for fold in self.total.folds)

    def resampled(self) -> str:
        """Describe the units of the bootstrap."""
        number = len(set(self.sources))
        if self.has_sources:
            return f"{number} sources"
        are_clips = number == len({file for _, file in self.clips})
        return f"{number} clips, whose sources are unknown" if are_clips else f"{number} sources, some of them unknown"


NESTED_LEAKS = ("same_clip", "same_source_and_class", "same_source")
LEAKS = {
    "same_clip": "are also training clips",
    "same_source_and_class": "share source and class with a training clip",
    "same_source": "share the source of a training clip",
    "same_audio": "have the same audio as a training clip",
    "seen_before": "trained or selected the initial weights, or share source and class with a clip that did",
    "unknown_training": "were embedded by a model whose training data are unknown",
}


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def load_run(folder: Path) -> RunResult:
    """Read the finished folds of a run: result.json, predictions.csv and config.yaml of each.

    Raises:
        InputError: no fold is finished, or a fold's files cannot be read or do not match.
    """
    results = sorted(load_folds(folder), key=lambda result: result.fold or 0)
    total = summarise(results)
    rows: list[tuple[int, str, str, int, np.ndarray]] = []
    for result in results:
        fold = load_fold_predictions(folder, result)
        numbers = [result.fold] * len(fold.files)
        rows += zip(numbers, fold.files, fold.sources, fold.targets.tolist(), fold.logits, strict=True)  # type: ignore[arg-type]
    rows.sort(key=lambda row: row[:2])
    numbers, files, sources, targets, logits = zip(*rows, strict=True)
    correct = np.argmax(logits, axis=1) == np.array(targets)
    return RunResult(
        name=folder.resolve().name,
        total=total,
        config=load_config(folder / f"fold{results[0].fold}" / "config.yaml"),
        clips=tuple(zip(numbers, files, strict=True)),
        targets=np.array(targets),
        logits=np.array(logits, dtype=np.float32),
        correct=correct,
        sources=sources,
        interval=accuracy_interval(correct, sources),
    )


@dataclass(frozen=True)
class Comparison:
    """Two runs scored on the same clips.

    Attributes:
        a, b: names of the runs.
        difference: pooled accuracy of b minus that of a.
        interval: its 95 % interval, see `source_interval`.
        folds: the compared folds, if only some of those of a run are, else empty.
        p: exact McNemar test; None if a clip was scored several times, as the trials are then not independent.
        clips, sources: their numbers.
        adjusted_p: p after Holm's correction for ``pairs`` tests; the same as p for one.
        pairs: number of tests.
    """

    a: str
    b: str
    difference: float
    interval: tuple[float, float]
    p: float | None
    clips: int
    sources: int
    folds: tuple[int, ...]
    adjusted_p: float | None
    pairs: int = 1

    def describe(self) -> str:
        """Describe the difference and its significance."""
        # of the better run minus the other, like the difference that the sentence names
        ends = self.interval if self.difference >= 0 else (-self.interval[1], -self.interval[0])
        low, high = (f"{100 * end:+.2f}" for end in ends)
        interval = f"95 % interval of the difference, resampling {self.sources} sources: {low} to {high} points"
        part = f" of fold{'s' * (len(self.folds) > 1)} {', '.join(map(str, self.folds))}" if self.folds else ""
        if self.p is None:
            test = f"{self.clips} scores{part}, several of them of the same clip"
        else:
            test = f"exact McNemar test over {self.clips} clips{part}: p = {self.p:.2g}"
            if self.pairs > 1:
                test += f", {self.adjusted_p:.2g} after Holm's correction for {self.pairs} pairs"
        evidence = f"({interval}; {test})"
        if self.difference == 0:
            return f"{self.a} and {self.b} have equal accuracy {evidence}."
        better, worse = (self.b, self.a) if self.difference > 0 else (self.a, self.b)
        points = f"{100 * abs(self.difference):.2f} points"
        interval_excludes_zero = self.interval[0] > 0 or self.interval[1] < 0
        rejected = interval_excludes_zero if self.adjusted_p is None else self.adjusted_p < 0.05
        if interval_excludes_zero and rejected:
            return f"{better} is better than {worse} by {points}, which is significant {evidence}."
        if interval_excludes_zero or rejected:
            return f"{better} scored {points} more than {worse}, but the two tests disagree {evidence}."
        return f"{better} scored {points} more than {worse}, but the difference is not significant {evidence}."


def compare(a: RunResult, b: RunResult) -> Comparison:
    """Compare two runs clip by clip; if one is incomplete, on the folds that both finished.

    Raises:
        InputError: they were scored on different clips.
    """
    complete = a.total.is_complete and b.total.is_complete
    folds = {fold for fold, _ in a.clips} & {fold for fold, _ in b.clips}
    if not complete and folds:
        a, b = _on_folds(a, folds), _on_folds(b, folds)
    if a.clips != b.clips:
        only_a, only_b = len(set(a.clips) - set(b.clips)), len(set(b.clips) - set(a.clips))
        raise InputError(
            f"{a.name} and {b.name} were scored on different clips ({only_a} only in the first, {only_b} only in the "
            "second, counted by fold), which paired tests do not allow. Compare runs with the same collection, split "
            "and split seed; predictions.csv lists the scored clips of a fold."
        )
    difference = b.correct.astype(float) - a.correct
    independent = len({file for _, file in a.clips}) == len(a.clips)
    p = mcnemar(a.correct, b.correct) if independent else None
    return Comparison(
        a.name,
        b.name,
        difference=float(difference.mean()),
        interval=source_interval(difference, a.sources),
        p=p,
        adjusted_p=p,
        clips=len(a.clips),
        sources=len(set(a.sources)),
        folds=() if complete else tuple(sorted(folds)),
    )


def compare_pairs(runs: Sequence[RunResult]) -> list[Comparison | InputError]:
    """Compare each pair of runs, with Holm's correction; for runs that cannot be compared, return the reason."""
    outcomes: list[Comparison | InputError] = []
    for a, b in combinations(runs, 2):
        try:
            outcomes.append(compare(a, b))
        except InputError as error:
            outcomes.append(error)
    tests = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, Comparison) and outcome.p is not None]
    adjusted = holm([outcomes[i].p for i in tests])  # type: ignore[union-attr, misc]
    for i, p in zip(tests, adjusted, strict=True):
        outcomes[i] = replace(outcomes[i], adjusted_p=p, pairs=len(tests))  # type: ignore[type-var]
    return outcomes


def describe_outcome(outcome: Comparison | InputError) -> str:
    """Describe an item of `compare_pairs`."""
    return outcome.describe() if isinstance(outcome, Comparison) else str(outcome)


def _on_folds(run: RunResult, folds: set[int]) -> RunResult:
    """Return the clips of some folds with their scores; ``total`` and ``interval`` remain those of the run."""
    chosen = np.array([fold in folds for fold, _ in run.clips])
    pairs = zip(run.clips, run.sources, chosen, strict=True)
    clips, sources = zip(*((clip, source) for clip, source, is_chosen in pairs if is_chosen), strict=True)
    arrays = {name: getattr(run, name)[chosen] for name in ("targets", "logits", "correct")}
    return replace(run, clips=clips, sources=sources, **arrays)


def seed_groups(runs: Sequence[RunResult]) -> list[tuple[list[RunResult], SeedSummary]]:
    """Group and summarize runs that differ only in their seed, name and machine."""
    groups: dict[str, list[RunResult]] = {}
    for run in runs:
        config = drop_keys(run.config, (*NOT_IDENTITY, "seed", "label"))
        # data.root is not compared, so the clips are; with random_clips they depend on the seed
        clips = None if run.total.leaky else run.clips
        folds = [fold["fold"] for fold in run.total.folds]
        key = json.dumps([config, run.total.classes, run.total.n, folds, clips], sort_keys=True)
        groups.setdefault(key, []).append(run)
    return [
        (group, over_seeds(np.array([[fold["accuracy"] for fold in run.total.folds] for run in group])))
        for group in groups.values()
        if len({run.total.seed for run in group}) == len(group) > 1
    ]


def describe_seeds(group: Sequence[RunResult], summary: SeedSummary) -> str:
    """Describe a group of `seed_groups` in one sentence."""
    mark = "LEAKY: " if group[0].total.leaky else ""
    folds = group[0].total.part or f"{len(group[0].total.folds)} folds"
    text = f"{mark}{summary.seeds} seeds x {folds} ({', '.join(r.name for r in group)}): "
    text += f"{100 * summary.accuracy:.2f} %"
    if summary.interval and summary.seed_sd is not None:
        low, high = (100 * end for end in summary.interval)
        text += f", standard deviation over seeds {100 * summary.seed_sd:.2f}"
        text += "" if summary.fold_sd is None else f", over folds {100 * summary.fold_sd:.2f}"
        text += f"; 95 % interval over seeds {low:.2f} to {high:.2f} %"
    if not group[0].total.leaky:  # otherwise each seed has its own clips
        correct = ensemble(group)
        low, high = (100 * end for end in accuracy_interval(correct, group[0].sources))
        text += f". Ensemble of the seeds: {100 * correct.mean():.2f} %, 95 % interval {low:.2f} to {high:.2f} %"
    return text


def ensemble(runs: Sequence[RunResult]) -> np.ndarray:
    """Return whether the mean of the runs' probabilities is largest for the true class: bool (n,).

    A clip is predicted only by the models of its own fold, which did not train on it.

    Args:
        runs: scored on the same clips.
    """
    return np.mean([probabilities(run.logits) for run in runs], axis=0).argmax(axis=1) == runs[0].targets
