"""Report sounds that are unlike the training clips as unknown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from soundfold.errors import InputError
from soundfold.evaluation.novelty import QUANTILE, energy, max_softmax, neighbor_distance, unit_vectors
from soundfold.evaluation.predictions import load_fold_predictions
from soundfold.evaluation.results import load_folds
from soundfold.inference.fold_models import FoldModel

SCORES = ("softmax", "energy", "distance")
# beside the folds of a run: training vectors of each fold's model, and the distances of its test clips to them
FILE = "novelty.npz"


@dataclass(frozen=True)
class Novelty:
    """A score of familiarity and the threshold below which a sound is unknown.

    Attributes:
        score: one of `SCORES`.
        threshold: the mean over models of the threshold of each.
        fitted: where the threshold is from.
        training: of ``distance``: vectors of length 1 of each model's training clips, float32 (m, D).
    """

    score: str
    threshold: float
    fitted: str
    training: tuple[np.ndarray, ...] = field(default=(), repr=False)

    def familiarity(
        self, logits: np.ndarray, temperatures: Sequence[float], embed: Callable[[], Sequence[np.ndarray]]
    ) -> np.ndarray:
        """Return the score of windows, the mean over models: (B,).

        Args:
            logits: (models, B, C).
            temperatures: of each model; of ``softmax``.
            embed: returns vectors (B, D) of each model; called for ``distance`` only.
        """
        if self.score == "softmax":
            scores = [max_softmax(rows, t) for rows, t in zip(logits, temperatures, strict=True)]
        elif self.score == "energy":
            scores = [energy(rows) for rows in logits]
        else:
            pairs = zip(embed(), self.training, strict=True)
            scores = [neighbor_distance(unit_vectors(vectors), training) for vectors, training in pairs]
        return np.mean(scores, axis=0)


def read_novelty(run: Path, models: Sequence[FoldModel], score: str, threshold: float | None = None) -> Novelty:
    """Return a score with its threshold, fitted for each model on the scored clips of the run's other folds.

    These clips are in the model's training folds, and their scores are those of the models that did not train on them:
    the test fold of the model has no part in its threshold, and no score is raised by training. The threshold is the
    5 % quantile, so about 5 % of new sounds of known classes are reported as unknown.

    Args:
        run: folder of the run.
        models: of the run.
        score: one of `SCORES`.
        threshold: instead of the fitted one.

    Raises:
        InputError: there is no other finished fold, the split leaks, or ``distance`` was not fitted.
    """
    training: tuple[np.ndarray, ...] = ()
    content: dict[str, Any] = {}
    if score == "distance":
        content = load_distances(run, models)
        training = tuple(content[f"training{model.fold}"] for model in models)
    if threshold is not None:
        return Novelty(score, threshold, "given", training)
    thresholds = [_threshold(run, model, score, content) for model in models]
    fitted = f"the {100 * QUANTILE:g} % quantile of the scored clips of the other folds"
    return Novelty(score, float(np.mean(thresholds)), fitted, training)


def _threshold(run: Path, model: FoldModel, score: str, distances: dict[str, Any]) -> float:
    others = [result for result in load_folds(run) if result.fold is not None and str(result.fold) != model.fold]
    if not others or any(result.leaky for result in others):
        reason = "its split leaks" if others else f"it has no finished fold besides {model.fold}"
        raise InputError(
            f"{run} cannot fit a threshold: {reason}. Train another fold under split=benchmark, or set --threshold."
        )
    if score == "distance":
        scores = [distances[f"test{result.fold}"] for result in others if f"test{result.fold}" in distances]
        if not scores:
            raise InputError(f"{run / FILE} has the fold {model.fold} only. Run `soundfold novelty {run}` again.")
    else:
        logits = [load_fold_predictions(run, result).logits for result in others]
        scores = [fold_scores(score, rows, model.temperature or 1.0) for rows in logits]
    return float(np.quantile(np.concatenate(scores), QUANTILE))


def fold_scores(score: str, logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return ``softmax`` or ``energy`` of logits: (n, C) -> (n,)."""
    return max_softmax(logits, temperature) if score == "softmax" else energy(logits)


def load_distances(run: Path, models: Sequence[FoldModel]) -> dict[str, np.ndarray]:
    """Read the file that ``soundfold novelty`` wrote.

    Raises:
        InputError: the file is missing, damaged, or of other weights.
    """
    if any(model.fold == "none" for model in models):
        raise InputError(
            "The distance to training clips is known for the models of scored folds, and not for that of fold none. "
            "Choose --novelty=softmax or energy."
        )
    path = run / FILE
    remedy = f"Run `soundfold novelty {run}`, which reads all clips of the run."
    if not path.is_file():
        raise InputError(f"There is no {path}, which the distance to training clips requires. {remedy}")
    try:
        with np.load(path) as archive:
            content = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}). {remedy}") from None
    for model in models:
        if str(content.get(f"weights{model.fold}")) != model.bundle.digest():
            raise InputError(f"{path} does not belong to the model of fold {model.fold}. {remedy}")
    return content
