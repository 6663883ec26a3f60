"""Probes: simple classifiers on frozen embeddings. Pure functions on arrays; they need scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from soundfold.config import install_command
from soundfold.data.tables import ClipTable
from soundfold.errors import InputError

KINDS = ("knn", "logistic")
# fixed, so that nothing is selected on scored clips
NEIGHBORS = 5
C = 1.0
MAX_ITERATIONS = 1000
# the smallest probability whose logarithm is stored: neighbors give none to most classes
FLOOR = 1e-7


def settings(kind: str) -> dict[str, Any]:
    """Return the fixed settings of a probe, one of `KINDS`."""
    if kind == "knn":
        return {"kind": kind, "neighbors": NEIGHBORS, "metric": "cosine"}
    return {"kind": kind, "C": C, "standardize": True, "max_iterations": MAX_ITERATIONS}


def make_probe(kind: str, shape: tuple[int, ...], neighbors: int = NEIGHBORS) -> Any:
    """Return scikit-learn's estimator.

    ``knn`` has the k nearest neighbors by cosine similarity, each with one vote; ``logistic`` multinomial logistic
    regression with an L2 penalty on values that are standardized by the training clips.

    Args:
        kind: one of `KINDS`.
        shape: of the training vectors, (n, D).
        neighbors: k of ``knn``, at most n.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        # imported here: it is an extra, and takes a second
        from sklearn.decomposition import PCA
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise InputError(
            f"Probes require scikit-learn, which is not installed: {install_command('embeddings')}."
        ) from error
    if kind == "knn":
        return KNeighborsClassifier(min(neighbors, shape[0]), metric="cosine")
    # The weights of a penalized regression are in the span of the training vectors. A rotation onto it changes no
    # prediction, and is twenty times as fast for fifty clips of a thousand values.
    rotation = [PCA(svd_solver="full")] if shape[0] < shape[1] else []
    return make_pipeline(StandardScaler(), *rotation, LogisticRegression(C=C, max_iter=MAX_ITERATIONS))


def log_probabilities(
    kind: str, train: np.ndarray, targets: np.ndarray, test: np.ndarray, classes: int, neighbors: int = NEIGHBORS
) -> np.ndarray:
    """Fit a probe and predict.

    Args:
        kind: one of `KINDS`.
        train: float32 (n, D).
        targets: int64 (n,).
        test: float32 (m, D).
        classes: number of classes; one without a training clip has a probability of about 0.
        neighbors: k of ``knn``, at most n.

    Returns:
        Natural logarithms of the class probabilities, float32 (m, classes).
    """
    probe = make_probe(kind, train.shape, neighbors)
    probabilities = np.zeros((len(test), classes))
    with warnings.catch_warnings():
        # with one clip of each class, scikit-learn suspects a regression
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        # few clips of many values take long to the last digit, which no prediction depends on
        warnings.filterwarnings("ignore", "lbfgs failed to converge", UserWarning)
        probe.fit(train, targets)
    probabilities[:, probe.classes_] = probe.predict_proba(test)
    return np.log(np.maximum(probabilities, FLOOR)).astype(np.float32)


def draw_shots(table: ClipTable, clips: np.ndarray, shots: int, rng: np.random.Generator) -> np.ndarray:
    """Draw clips of each class, from as many sources as possible.

    >>> table = ClipTable(("a", "b", "c"), np.array([1, 1, 2]), np.array([0, 0, 0]), ("s", "s", "t"), ("dog", "rain"))
    >>> 2 in draw_shots(table, np.arange(3), 2, np.random.default_rng(0))  # one clip of each source
    True

    Args:
        table: of all clips.
        clips: int64, those to draw from.
        shots: clips of each class; all of a class that has fewer.
        rng: of the draw.

    Returns:
        int64, ascending.
    """
    drawn: list[int] = []
    for target in np.unique(table.targets[clips]):
        of_class = rng.permutation(clips[table.targets[clips] == target])
        _, first = np.unique(table.source_numbers[of_class], return_index=True)
        first = rng.permutation(first)
        others = np.setdiff1d(np.arange(len(of_class)), first)
        drawn += of_class[np.concatenate([first, rng.permutation(others)])[:shots]].tolist()
    return np.sort(drawn)


def few_shot_hits(
    kind: str,
    table: ClipTable,
    spaces: Mapping[int, np.ndarray],
    shots: int,
    draws: int,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Fit a probe on a few clips of each class, many times, and predict the clips of the test fold.

    Args:
        kind: one of `KINDS`; ``knn`` has at most ``shots`` neighbors.
        table: of the clips.
        spaces: the embeddings of all clips for each test fold, float32 (clips, D).
        shots: training clips of each class, see `draw_shots`.
        draws: repetitions for each fold.
        seed: of the draws.
        advance: called after each fit.

    Returns:
        Whether a clip of the test folds is correct in a draw, bool (draws, scored clips), in the order of the folds.
    """
    hits = []
    for fold, vectors in spaces.items():
        test, train = np.flatnonzero(table.folds == fold), np.flatnonzero(table.folds != fold)
        of_fold = np.zeros((draws, len(test)), dtype=bool)
        for draw in range(draws):
            chosen = draw_shots(table, train, shots, np.random.default_rng([seed, fold, shots, draw]))
            logits = log_probabilities(
                kind,
                vectors[chosen],
                table.targets[chosen],
                vectors[test],
                len(table.classes),
                min(NEIGHBORS, shots),
            )
            of_fold[draw] = logits.argmax(axis=1) == table.targets[test]
            advance()
        hits.append(of_fold)
    return np.concatenate(hits, axis=1)


def scored_sources(table: ClipTable, folds: Sequence[int]) -> list[str]:
    """Return the source of each clip in the order of `few_shot_hits`."""
    return [table.sources[i] for fold in folds for i in np.flatnonzero(table.folds == fold)]
