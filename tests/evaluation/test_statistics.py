"""Intervals and tests against SciPy, closed forms and simulated data."""

import math

import numpy as np
import pytest
from scipy import stats

from soundfold.evaluation import statistics
from soundfold.evaluation.statistics import (
    accuracy_interval,
    draws_interval,
    holm,
    mcnemar,
    over_seeds,
    source_interval,
)


def clustered(rng: np.random.Generator, sources: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Correct flags of clips, with 1 to 6 clips and a random difficulty per source; 0.7 correct on average."""
    sizes = rng.integers(1, 7, sources)
    chance = np.repeat(rng.beta(0.7 / spread, 0.3 / spread, sources), sizes)
    return rng.random(sizes.sum()) < chance, np.repeat(np.arange(sources).astype(str), sizes)


@pytest.mark.slow
def test_interval_covers_the_truth_if_clips_of_a_source_are_similar():
    rng = np.random.default_rng(0)
    covered = {"sources": 0, "clips": 0}
    for trial in range(300):
        correct, sources = clustered(rng, sources=120, spread=0.8)
        clips = np.arange(len(correct)).astype(str)
        for name, clusters in (("sources", sources), ("clips", clips)):
            low, high = source_interval(correct, clusters, draws=400, seed=trial)
            covered[name] += low <= 0.7 <= high
    assert 0.91 * 300 <= covered["sources"] <= 0.985 * 300
    # resampling clips is too optimistic
    assert covered["clips"] < 0.85 * 300


def test_interval_of_independent_clips_equals_the_binomial_interval():
    correct = np.arange(400) < 340
    low, high = source_interval(correct, [str(i) for i in range(400)])
    exact = stats.binomtest(340, 400).proportion_ci(method="wilson")
    assert low == pytest.approx(exact.low, abs=0.006)
    assert high == pytest.approx(exact.high, abs=0.006)
    assert (low, high) == source_interval(correct, [str(i) for i in range(400)])


def test_interval_of_a_perfect_score_is_exact():
    sources = [str(i // 2) for i in range(120)]
    # Clopper-Pearson for 60 successes in 60 trials
    low = 0.025 ** (1 / 60)
    assert accuracy_interval(np.ones(120, dtype=bool), sources) == pytest.approx((low, 1), rel=1e-9)
    assert accuracy_interval(np.zeros(120, dtype=bool), sources) == pytest.approx((0, 1 - low), rel=1e-9)
    correct = np.arange(120) % 3 > 0
    assert accuracy_interval(correct, sources) == source_interval(correct, sources)


def test_one_source_says_nothing_on_others():
    assert source_interval(np.array([0.5, 0.1]), ["a", "a"]) == (-1.0, 1.0)
    assert accuracy_interval(np.array([True, False, True]), ["a", "a", "a"]) == (0.0, 1.0)
    assert accuracy_interval(np.array([True, True]), ["a", "a"]) == pytest.approx((0.025, 1.0))


def test_the_interval_of_draws_that_are_all_correct_is_exact():
    sources = ["a", "a", "b", "c"]
    assert draws_interval(np.ones((5, 4)), sources) == accuracy_interval(np.ones(4, dtype=bool), sources)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 12), (40, 25), (900, 1100), (7, 7)])
def test_mcnemar_equals_twice_the_binomial_tail(only_a, only_b):
    a = np.array([True] * only_a + [False] * only_b + [True] * 5 + [False] * 3)
    b = np.array([False] * only_a + [True] * only_b + [True] * 5 + [False] * 3)
    discordant = only_a + only_b
    # integers: 2**2000 overflows a float
    tail = sum(math.comb(discordant, k) for k in range(min(only_a, only_b) + 1))
    assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail / 2**discordant), rel=1e-9)


# quantiles of 0.975 from printed tables
@pytest.mark.parametrize(
    ("seeds", "t"), [(2, 12.7062), (3, 4.30265), (4, 3.18245), (5, 2.77645), (10, 2.26216), (31, 2.04227)]
)
def test_interval_over_seeds_uses_student_t(seeds, t):
    accuracies = np.random.default_rng(0).random((seeds, 5))
    summary = over_seeds(accuracies)
    assert summary.interval[1] - summary.accuracy == pytest.approx(t * summary.seed_sd / np.sqrt(seeds), rel=2e-6)


def test_summary_over_seeds():
    accuracies = np.array([[0.8, 0.9, 0.7], [0.9, 0.9, 0.6], [0.7, 0.8, 0.9]])
    summary = over_seeds(accuracies)
    means = accuracies.mean(axis=1)
    assert summary.seeds == 3
    assert summary.accuracy == pytest.approx(means.mean())
    assert summary.seed_sd == pytest.approx(means.std(ddof=1))
    assert summary.fold_sd == pytest.approx(np.mean([np.std(row, ddof=1) for row in accuracies]))
    assert summary.interval == pytest.approx(stats.t.interval(0.95, 2, means.mean(), stats.sem(means)))
    single = over_seeds(accuracies[:1])
    assert single.seed_sd is None
    assert single.interval is None


def test_holm_adjusts_stepwise_and_keeps_the_order():
    # as R: p.adjust(p, "holm")
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.9, 0.001, 0.6]) == pytest.approx([1.0, 0.003, 1.0])
    assert holm([]) == []


@pytest.mark.parametrize("kind", ["correct", "difference"])
def test_sources_of_equal_clips_are_drawn_together_from_the_same_distribution(monkeypatch, kind):
    rng = np.random.default_rng(0)
    sources = [str(source) for source in rng.integers(0, 300, 900)]
    values = (rng.random(900) < 0.8).astype(float)
    values = values if kind == "correct" else values - (rng.random(900) < 0.7)
    exact = source_interval(values, sources)
    monkeypatch.setattr(statistics, "MAX_DRAWN", 10)
    # a quantile of 10,000 draws has a standard error of about 3 % of the interval's half width
    assert source_interval(values, sources) == pytest.approx(exact, abs=0.15 * (exact[1] - exact[0]) / 2)


def test_the_interval_of_many_sources_is_that_of_a_proportion():
    correct = np.arange(60_000) % 5 > 0
    low, high = accuracy_interval(correct, list(map(str, range(60_000))))
    assert (low + high) / 2 == pytest.approx(0.8, abs=1e-4)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.16 / 60_000), rel=0.05)
