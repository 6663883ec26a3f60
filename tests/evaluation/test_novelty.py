"""Scores of novelty against reference implementations, and the AUROC with its interval over sources."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from soundfold.evaluation.novelty import (
    FoldScores,
    energy,
    max_softmax,
    mean_auroc,
    neighbor_distance,
    separation,
    unit_vectors,
)

RNG = np.random.default_rng(0)


def test_softmax_and_energy_equal_those_of_torch():
    logits = RNG.normal(0, 30, (20, 5)).astype(np.float32)
    tensor = torch.from_numpy(logits).double()
    np.testing.assert_allclose(max_softmax(logits, 2.5), (tensor / 2.5).softmax(dim=1).amax(dim=1))
    np.testing.assert_allclose(energy(logits), tensor.logsumexp(dim=1))
    assert np.isfinite(energy(1000 * logits)).all()


@pytest.mark.parametrize("neighbors", [1, 5, 100])
def test_the_distance_is_that_to_the_kth_neighbor(neighbors):
    training, vectors = (unit_vectors(RNG.normal(size=(n, 8))) for n in (30, 7))
    k = min(neighbors, len(training))
    expected = NearestNeighbors(n_neighbors=k).fit(training).kneighbors(vectors)[0][:, -1]
    np.testing.assert_allclose(neighbor_distance(vectors, training, neighbors), -expected, atol=1e-3)
    assert unit_vectors(np.zeros((1, 8))).tolist() == [[0] * 8]


@pytest.mark.parametrize("decimals", [8, 0], ids=["distinct", "with ties"])
def test_the_auroc_equals_that_of_scikit_learn(decimals):
    known, unknown = RNG.normal(1, 1, 40).round(decimals), RNG.normal(0, 1, 25).round(decimals)
    expected = roc_auc_score([1] * 40 + [0] * 25, np.concatenate([known, unknown]))
    assert separation(known, unknown).mean() == pytest.approx(expected)
    names = [[f"{kind}{i}" for i in range(n)] for kind, n in (("k", 40), ("u", 25))]
    found = mean_auroc([FoldScores(known, unknown, *names)])
    assert found.auroc == pytest.approx(expected)
    assert found.low < expected < found.high


def test_the_interval_resamples_sources_and_folds_are_not_mixed():
    known, unknown = RNG.normal(1, 1, 30), RNG.normal(0, 1, 20)
    clips = FoldScores(known, unknown, [f"k{i}" for i in range(30)], [f"u{i}" for i in range(20)])
    # ten copies of each clip from the same source tell nothing new
    copies = FoldScores(*(np.repeat(values, 10) for values in (known, unknown)), *(np.repeat(s, 10) for s in clips[2:]))
    assert mean_auroc([copies]) == pytest.approx(mean_auroc([clips]))
    # a fold whose scores are on another scale has its own AUROC
    shifted = FoldScores(known + 100, unknown + 100, *clips[2:])
    assert mean_auroc([clips, shifted]) == pytest.approx(mean_auroc([clips]))


def test_a_draw_without_an_unknown_clip_does_not_count():
    found = mean_auroc([FoldScores(np.array([1.0, 2.0]), np.array([0.0]), ["a", "b"], ["c"])])
    assert found == (1, 1, 1)
