import numpy as np
import pytest
from scipy import stats

from soundfold.evaluation.statistics import accuracy_interval, mcnemar, over_seeds, source_interval, student_t


def clustered(rng: np.random.Generator, sources: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong answers of clips, each source with 1 to 6 clips and its own difficulty; 0.7 right on average."""
    sizes = rng.integers(1, 7, sources)
    chance = np.repeat(rng.beta(0.7 / spread, 0.3 / spread, sources), sizes)
    return rng.random(sizes.sum()) < chance, np.repeat(np.arange(sources).astype(str), sizes)


def test_interval_covers_the_truth_where_clips_of_a_source_are_alike():
    rng = np.random.default_rng(0)
    covered = {"sources": 0, "clips": 0}
    for trial in range(300):
        right, sources = clustered(rng, sources=120, spread=0.8)
        alone = np.arange(len(right)).astype(str)
        for name, names in (("sources", sources), ("clips", alone)):
            low, high = source_interval(right, names, draws=400, seed=trial)
            covered[name] += low <= 0.7 <= high
    assert 0.91 * 300 <= covered["sources"] <= 0.985 * 300
    # what resampling clip by clip would claim
    assert covered["clips"] < 0.85 * 300


def test_interval_of_independent_clips_is_the_binomial_one():
    right = np.arange(400) < 340
    low, high = source_interval(right, [str(i) for i in range(400)])
    exact = stats.binomtest(340, 400).proportion_ci(method="wilson")
    assert low == pytest.approx(exact.low, abs=0.006)
    assert high == pytest.approx(exact.high, abs=0.006)
    assert (low, high) == source_interval(right, [str(i) for i in range(400)])


def test_a_perfect_score_has_an_interval_too():
    names = [str(i // 2) for i in range(120)]
    low, high = accuracy_interval(np.ones(120, dtype=bool), names)
    exact = stats.binomtest(60, 60).proportion_ci(method="exact")
    assert (low, high) == pytest.approx((exact.low, exact.high))
    assert accuracy_interval(np.zeros(120, dtype=bool), names) == pytest.approx((0, 1 - exact.low))
    right = np.arange(120) % 3 > 0
    assert accuracy_interval(right, names) == source_interval(right, names)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 12), (40, 25), (900, 1100), (7, 7)])
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    a = np.array([True] * only_a + [False] * only_b + [True] * 5 + [False] * 3)
    b = np.array([False] * only_a + [True] * only_b + [True] * 5 + [False] * 3)
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 101])
def test_t_is_students(freedom):
    assert student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-6)


def test_several_seeds():
    accuracies = np.array([[0.8, 0.9, 0.7], [0.9, 0.9, 0.6], [0.7, 0.8, 0.9]])
    summary = over_seeds(accuracies)
    means = accuracies.mean(axis=1)
    assert summary.seeds == 3
    assert summary.accuracy == pytest.approx(means.mean())
    assert summary.seed_sd == pytest.approx(means.std(ddof=1))
    assert summary.fold_sd == pytest.approx(np.mean([np.std(row, ddof=1) for row in accuracies]))
    assert summary.interval == pytest.approx(stats.t.interval(0.95, 2, means.mean(), stats.sem(means)))
    one = over_seeds(accuracies[:1])
    assert one.seed_sd is None
    assert one.interval is None
