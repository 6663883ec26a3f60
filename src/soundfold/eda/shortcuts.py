"""Shortcut audit: accuracy of a linear model that sees only file-level cues, under the folds of the collection.

If the files of a class were cut, padded, band-limited or normalized alike, a network can learn that instead of the
sound. ESC-50's README warns of preprocessing that might depend on the class, mostly band limiting.

Labels are permuted over the sources of a fold, because clips of one recording are not independent: P. Good,
Permutation, Parametric and Bootstrap Tests of Hypotheses, 2005.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from soundfold.data.store import Waveforms
from soundfold.data.tables import ClipTable
from soundfold.eda.cues import BAND_CUES, CUES, FILE_FACTS, measure_cues
from soundfold.eda.progress import Progress, show_nothing
from soundfold.evaluation.statistics import accuracy_interval

# sets of cues by name, with their description
CUE_SETS = {
    "file_facts": (FILE_FACTS, "duration, digital silence, clipping, bit depth, DC offset"),
    "band_limit": (BAND_CUES, "bandwidth and low-pass edge, which also depend on the sound"),
    "all_cues": (CUES, "also level, background and roll-off, which depend on the sound"),
}
N_PERMUTATIONS = 20
# more clips would take hours; the standard error of an accuracy over so many is at most 0.4 points
MAX_CLIPS = 20_000
MAX_PRINTED = 5


@dataclass(frozen=True)
class CueScore:
    """Scores of the linear model with one set of cues; fractions.

    Attributes:
        accuracy: over all clips, each scored once, by the model that was trained on the other folds.
        interval: its 95 % interval, by a bootstrap over sources.
        permuted: accuracies with labels permuted over the sources of each fold.
        recall, precision: by class; None for a class without clips, or that was never predicted.
        strongest: for each class the cue with the largest standardized weight, as "high rms_db" or "low rms_db", or "".
    """

    accuracy: float
    interval: tuple[float, float]
    permuted: list[float]
    recall: list[float | None]
    precision: list[float | None]
    strongest: list[str]


@dataclass(frozen=True)
class ShortcutAudit:
    """Accuracy from file-level cues.

    Attributes:
        clips, folds: number of clips that the models saw, at most about `MAX_CLIPS`, and of folds.
        classes: class names.
        chance: accuracy of a guess, 1 / classes.
        majority: accuracy of the most frequent class.
        scores: by the names of `CUE_SETS`.
        cues: float64 (n, cues) of all n clips, see `soundfold.eda.cues.CUES`.
    """

    clips: int
    folds: int
    classes: tuple[str, ...]
    chance: float
    majority: float
    scores: dict[str, CueScore]
    cues: np.ndarray

    def summary(self) -> dict[str, Any]:
        """Return the values for JSON, without the cues of the clips."""
        return {name: value for name, value in asdict(self).items() if name != "cues"}


def audit_shortcuts(table: ClipTable, waves: Waveforms, progress: Progress = show_nothing) -> ShortcutAudit | None:
    """Measure the cues of all clips and score linear models on them; None for a table of one fold.

    The models of a collection with more than `MAX_CLIPS` clips see all clips of a random sample of its sources.

    Args:
        table: of the clips.
        waves: packed store of the same clips.
        progress: wraps each loop, called with a description, the items and their number.
    """
    if len(table.fold_numbers) < 2:
        return None
    cues = measure_cues(waves, lambda items, total: progress("Measuring cues", items, total))
    clips = _sample(table)
    table, sampled = table.rows(clips), cues[clips]
    return ShortcutAudit(
        clips=len(table),
        folds=len(table.fold_numbers),
        classes=table.classes,
        chance=1 / len(table.classes),
        majority=float(np.bincount(table.targets).max() / len(table)),
        scores={name: _score(table, sampled, list(used), progress) for name, (used, _) in CUE_SETS.items()},
        cues=cues,
    )


def _sample(table: ClipTable) -> np.ndarray:
    """Return the clips that are scored, ascending: all, or those of a random share of the sources."""
    if len(table) <= MAX_CLIPS:
        return np.arange(len(table))
    number_of_sources = table.source_numbers.max() + 1
    share = np.random.default_rng(0).random(number_of_sources) < MAX_CLIPS / len(table)
    return np.flatnonzero(share[table.source_numbers])


def _score(table: ClipTable, cues: np.ndarray, names: Sequence[str], progress: Progress) -> CueScore:
    n_classes = len(table.classes)
    columns = [list(CUES).index(name) for name in names]
    folds = [FoldInputs.of(cues[:, columns], table.folds == fold) for fold in table.fold_numbers]
    predicted, weights = _cross_validate(folds, table.targets, n_classes)
    correct = predicted == table.targets
    labels = progress(f"Permuting labels, {len(names)} cues", permuted_labels(table), N_PERMUTATIONS)
    return CueScore(
        accuracy=float(correct.mean()),
        interval=accuracy_interval(correct, table.sources),
        permuted=[float((_cross_validate(folds, y, n_classes)[0] == y).mean()) for y in labels],
        recall=_mean_by_class(correct, table.targets, n_classes),
        precision=_mean_by_class(correct, predicted, n_classes),
        strongest=[_describe(names, weights[:, target]) for target in range(n_classes)],
    )


def _mean_by_class(correct: np.ndarray, classes: np.ndarray, n_classes: int) -> list[float | None]:
    return [float(correct[classes == t].mean()) if (classes == t).any() else None for t in range(n_classes)]


def _describe(names: Sequence[str], weights: np.ndarray) -> str:
    largest = int(np.abs(weights).argmax())
    return f"{'high' if weights[largest] > 0 else 'low'} {names[largest]}" if weights[largest] else ""


def permuted_labels(table: ClipTable) -> Iterator[np.ndarray]:
    """Yield permuted targets, int64 (clips,): clips of one fold, source and class get the same class of that fold.

    Each fold retains its classes: otherwise a class that is rare in a test fold would be frequent in training, and a
    model without information would score below chance. If classes differ in clips per source, it may score slightly
    above: a class of few sources becomes rare in every fold.
    """
    keys = [f"{f}\0{t}\0{source}" for f, t, source in zip(table.folds, table.targets, table.sources, strict=True)]
    _, first, group = np.unique(np.array(keys), return_index=True, return_inverse=True)
    for seed in range(N_PERMUTATIONS):
        rng, labels = np.random.default_rng(seed), table.targets[first]
        for fold in table.fold_numbers:
            inside = table.folds[first] == fold
            labels[inside] = rng.permutation(labels[inside])
        yield labels[group]


@dataclass(frozen=True)
class FoldInputs:
    """Model inputs of one fold: training clips (n, d), test clips (m, d), and the mask of the test clips (n + m,).

    Each cue is replaced by its mid-rank among the training clips and standardized on them: cues have heavy tails.
    """

    train: np.ndarray
    test: np.ndarray
    is_test: np.ndarray

    @classmethod
    def of(cls, cues: np.ndarray, is_test: np.ndarray) -> FoldInputs:
        ordered = np.sort(cues[~is_test], axis=0)
        ranks = np.empty_like(cues)
        for column, values, rank in zip(ordered.T, cues.T, ranks.T, strict=True):
            rank[:] = np.searchsorted(column, values, "left") + np.searchsorted(column, values, "right")
        mean, std = ranks[~is_test].mean(axis=0), ranks[~is_test].std(axis=0)
        # a cue that is constant in training has no weight, whatever its value in the test clips
        scaled = np.where(std > 0, (ranks - mean) / np.where(std > 0, std, 1.0), 0.0)
        return cls(scaled[~is_test], scaled[is_test], is_test)


def _cross_validate(folds: Sequence[FoldInputs], targets: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted class of every clip (clips,) and the weights (cues, classes), mean over folds."""
    predicted, weights = np.empty_like(targets), []
    for fold in folds:
        weight, bias = fit_logistic(fold.train, targets[~fold.is_test], n_classes)
        predicted[fold.is_test] = (fold.test @ weight + bias).argmax(axis=1)
        weights.append(weight)
    return predicted, np.mean(weights, axis=0)


def fit_logistic(inputs: np.ndarray, targets: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit a multinomial logistic regression: (n, d), int (n,) -> weights (d, classes), biases (classes,).

    Minimizes the sum of the cross entropy plus half the squared weights, as scikit-learn does by default (C=1). The
    penalty is not chosen on any clip.
    """
    from scipy.optimize import minimize  # imported here: it takes half a second

    n, d = inputs.shape
    design = np.hstack([inputs, np.ones((n, 1))])
    rows = np.arange(n)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(d + 1, n_classes)
        logits = design @ weights
        logits -= logits.max(axis=1, keepdims=True)
        correct = logits[rows, targets]
        probability = np.exp(logits)
        total = probability.sum(axis=1, keepdims=True)
        probability /= total
        probability[rows, targets] -= 1
        penalized = weights.copy()
        penalized[d] = 0  # not the bias
        value = np.log(total).sum() - correct.sum() + 0.5 * np.square(penalized).sum()
        return value / n, (design.T @ probability + penalized).ravel() / n

    start = np.zeros((d + 1) * n_classes)
    weights = minimize(loss, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-4, "maxiter": 500}).x
    return weights[:-n_classes].reshape(d, n_classes), weights[-n_classes:]


def shortcut_lines(audit: ShortcutAudit | None) -> Iterator[str]:
    """Yield the audit as sentences."""
    if audit is None:
        yield "Shortcuts are not audited, because that requires at least two folds."
        return
    largest = f", the largest class {100 * audit.majority:.1f} %" if audit.majority > audit.chance + 5e-4 else ""
    yield (
        f"Shortcuts: accuracy of a linear model that sees only file-level cues, over {audit.folds} folds of "
        f"{audit.clips} clips. Chance is {100 * audit.chance:.1f} %{largest}."
    )
    for name, score in audit.scores.items():
        yield f"  {name.replace('_', ' ')} ({CUE_SETS[name][1]}): {score_sentence(score)}"
        # not by recall: clips without a cue are all assigned to one class
        best = sorted(range(len(audit.classes)), key=lambda t: -_f1(score.recall[t], score.precision[t]))[:MAX_PRINTED]
        yield "    The classes with the highest F1:"
        for t in best:
            precision = f" and a precision of {_percent(score.precision[t])}" if score.precision[t] is not None else ""
            cue = f"; the cue of largest weight is {score.strongest[t]}" if score.strongest[t] else ""
            yield f"    {audit.classes[t]} has a recall of {_percent(score.recall[t])}{precision}{cue}."


def score_sentence(score: CueScore) -> str:
    """Return accuracy, interval and permutations as a sentence."""
    low, high = score.interval
    mean, most = float(np.mean(score.permuted)), max(score.permuted)
    verdict = "more than" if score.accuracy > most else "not more than"
    return (
        f"The accuracy is {100 * score.accuracy:.1f} %, with a 95 % interval of {100 * low:.1f} to {100 * high:.1f} %. "
        f"This is {verdict} the maximum of {len(score.permuted)} permutations of the labels, which is "
        f"{100 * most:.1f} %; their mean is {100 * mean:.1f} %."
    )


def shortcut_rows(audit: ShortcutAudit) -> list[dict[str, Any]]:
    """Return for each class recall and precision (%) and strongest cue with each set; highest recall first."""
    scores = audit.scores
    order = sorted(range(len(audit.classes)), key=lambda t: -(scores["all_cues"].recall[t] or 0))
    rows = []
    for t in order:
        row: dict[str, Any] = {"class": audit.classes[t]}
        for name, score in scores.items():
            row[f"{name}_recall_percent"] = _percent(score.recall[t], "")
            row[f"{name}_precision_percent"] = _percent(score.precision[t], "")
            row[f"{name}_strongest_cue"] = score.strongest[t]
        rows.append(row)
    return rows


def _f1(recall: float | None, precision: float | None) -> float:
    return 2 * recall * precision / (recall + precision) if recall and precision else 0.0


def _percent(value: float | None, unit: str = " %") -> str:
    return "" if value is None else f"{100 * value:.1f}{unit}"
