"""Measure explanations on scored clips of a cross-validation, each by the model that did not train on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from soundfold.errors import InputError
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.statistics import source_interval
from soundfold.inference.explanation import ORDERS, ExplanationOptions, explain_clip
from soundfold.inference.predictor import Predictor
from soundfold.models.faithfulness import Curves, mean_curves
from soundfold.report.run_audio import RunAudio

MAPS, BASELINES = ("activation", "occlusion"), ("random", "loudest")
AREAS = {"deletion": "deletion_area", "insertion": "insertion_area"}


@dataclass(frozen=True)
class MeasuredClip:
    """The curves of one clip.

    Attributes:
        file, fold, source: of the clip.
        prediction: the explained class, the most probable one.
        correct: whether it is the clip's class.
        curves: by `soundfold.inference.explanation.ORDERS`.
        agreement: see `soundfold.inference.explanation.Explanation`.
    """

    file: str
    fold: int
    source: str
    prediction: str
    correct: bool
    curves: dict[str, Curves]
    agreement: float | None


class Estimate(NamedTuple):
    """A mean over clips, and its 95 % interval by bootstrap over sources."""

    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """A map beside a baseline: the difference of the areas under their curves, and what it means.

    Attributes:
        curve: ``deletion`` or ``insertion``.
        map, baseline: of `ORDERS`.
        difference: area of the map minus that of the baseline.
        verdict: ``better``, ``worse`` or ``no difference``, by whether the interval contains 0.
    """

    curve: str
    map: str
    baseline: str
    difference: Estimate
    verdict: str

    def sentence(self) -> str:
        """Return the comparison as a sentence."""
        difference, low, high = self.difference
        result = {"better": "beats", "worse": "is worse than", "no difference": "does not beat"}[self.verdict]
        return (
            f"{self.curve.capitalize()}: {ORDERS[self.map]} {result} {ORDERS[self.baseline]} (difference of the areas "
            f"{difference:+.3f}, 95 % interval {low:+.3f} to {high:+.3f})."
        )


def measure_run(
    folder: Path,
    run: RunResult,
    per_fold: int,
    options: ExplanationOptions,
    load: Callable[[int], Predictor],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[MeasuredClip]:
    """Explain the predicted class of scored clips of each fold, drawn at random with a fixed seed.

    Args:
        folder: of the run.
        run: its finished folds.
        per_fold: clips of each fold; at most as many as it scored.
        options: see `explain_clip`.
        load: returns the model of a fold.
        progress: called with the number of clips done and of all.

    Raises:
        InputError: a model or the audio is missing.
    """
    audio = RunAudio(folder, run)
    chosen = _draw(run, per_fold)
    measured: list[MeasuredClip] = []
    predictors: dict[int, Predictor] = {}
    for i in chosen:
        fold, file = run.clips[i]
        if fold not in predictors:
            predictors = {fold: load(fold)}  # one fold's model at a time
        explanation = explain_clip(predictors[fold], audio.read(file)[0], int(run.predictions[i]), options)
        name, correct = run.total.classes[explanation.target], bool(run.correct[i])
        clip = MeasuredClip(file, fold, run.sources[i], name, correct, explanation.curves, explanation.agreement)
        measured.append(clip)
        progress(len(measured), len(chosen))
    return measured


def _draw(run: RunResult, per_fold: int) -> list[int]:
    """Return indices of scored clips, fold by fold."""
    folds = np.array([fold for fold, _ in run.clips])
    chosen: list[int] = []
    for fold in np.unique(folds):
        clips = np.flatnonzero(folds == fold)
        order = np.random.default_rng(int(fold)).permutation(clips)
        chosen += sorted(order[:per_fold].tolist())
    if not chosen:
        raise InputError(f"{run.name} has no scored clips to explain. Train a fold, or ask for one clip at least.")
    return chosen


def estimates(clips: Sequence[MeasuredClip]) -> dict[str, dict[str, Estimate]]:
    """Return the mean areas by order and curve: ``{"activation": {"deletion": ..., "insertion": ...}, ...}``."""
    sources = [clip.source for clip in clips]
    return {
        order: {curve: _estimate(_areas(clips, order, curve), sources) for curve in AREAS} for order in _orders(clips)
    }


def comparisons(clips: Sequence[MeasuredClip]) -> list[Comparison]:
    """Compare every map with every baseline, clip by clip."""
    sources = [clip.source for clip in clips]
    found = []
    for order in (name for name in MAPS if name in _orders(clips)):
        for baseline in BASELINES:
            for curve in AREAS:
                difference = _estimate(_areas(clips, order, curve) - _areas(clips, baseline, curve), sources)
                # a good order has a small area of deletion and a large one of insertion
                low, high = difference.low, difference.high
                if curve == "deletion":
                    low, high = -high, -low
                verdict = "better" if low > 0 else "worse" if high < 0 else "no difference"
                found.append(Comparison(curve, order, baseline, difference, verdict))
    return found


def average_curves(clips: Sequence[MeasuredClip]) -> dict[str, Curves]:
    """Average the curves over clips, by order."""
    return {order: mean_curves([clip.curves[order] for clip in clips]) for order in _orders(clips)}


def _orders(clips: Sequence[MeasuredClip]) -> list[str]:
    return [order for order in ORDERS if all(order in clip.curves for clip in clips)]


def _areas(clips: Sequence[MeasuredClip], order: str, curve: str) -> np.ndarray:
    return np.array([getattr(clip.curves[order], AREAS[curve]) for clip in clips])


def _estimate(values: np.ndarray, sources: Sequence[str]) -> Estimate:
    return Estimate(float(values.mean()), *source_interval(values, sources))
