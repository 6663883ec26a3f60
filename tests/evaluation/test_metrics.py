"""Scores per class and of certainty, against scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torchmetrics.functional.classification import multiclass_calibration_error

from soundfold.data.groups import esc50_groups
from soundfold.evaluation.metrics import (
    HOTTEST,
    calibration,
    class_metrics,
    fit_temperature,
    merge_classes,
    probabilities,
)


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Logits (300, 7) and targets (300,); class 6 is never predicted and class 5 never there."""
    rng = np.random.default_rng(0)
    targets = rng.choice([0, 1, 2, 3, 4, 6], 300)
    logits = rng.normal(size=(300, 7)).astype(np.float32) + 2 * np.eye(7, dtype=np.float32)[targets]
    logits[:, 6] = -50
    return logits, targets


def test_class_scores_are_scikit_learn_s(scored):
    logits, targets = scored
    predicted = logits.argmax(axis=1)
    found = class_metrics(confusion_matrix(targets, predicted, labels=range(7)))
    expected = precision_recall_fscore_support(targets, predicted, labels=range(7), zero_division=0)
    for ours, theirs in zip((found.precision, found.recall, found.f1, found.clips), expected, strict=True):
        assert ours == pytest.approx(theirs)
    assert found.f1[5] == found.f1[6] == 0


def test_groups_of_classes_are_scored_as_if_they_were_classes(scored):
    logits, targets = scored
    group_of = np.array([0, 0, 1, 1, 2, 2, 2])
    predicted = logits.argmax(axis=1)
    merged = merge_classes(confusion_matrix(targets, predicted, labels=range(7)), group_of)
    assert (merged == confusion_matrix(group_of[targets], group_of[predicted], labels=range(3))).all()


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_calibration_error_is_torchmetrics_s(scored, scale):
    logits, targets = scored
    chances = probabilities(scale * logits)
    assert chances == pytest.approx(torch.softmax(torch.from_numpy(scale * logits).double(), 1).numpy())
    found = calibration(chances.max(axis=1), chances.argmax(axis=1) == targets)
    expected = multiclass_calibration_error(torch.from_numpy(chances), torch.from_numpy(targets), 7, n_bins=15)
    assert found.error == pytest.approx(float(expected), abs=1e-6)
    assert found.clips.sum() == 300


def test_certain_answers_lie_in_the_last_part():
    found = calibration(np.array([1.0, 1.0, 0.1]), np.array([True, False, False]))
    assert found.clips[[1, -1]].tolist() == [1, 2]
    assert found.error == pytest.approx((2 * 0.5 + 0.1) / 3)


def test_esc50_s_groups_are_tens_of_its_targets(esc50_table):
    rows = [line.split(",") for line in esc50_table.read_text().splitlines()[1:]]
    names = dict((int(row[2]), row[3]) for row in rows)
    groups, of_class = esc50_groups([names[target] for target in range(50)])
    assert len(groups) == 5
    assert of_class.tolist() == [target // 10 for target in range(50)]
    assert esc50_groups(["dog", "no class of it"]) is None


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_is_where_scipy_finds_the_least_cross_entropy(scale):
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rng = np.random.default_rng(0)
    targets = rng.integers(0, 7, 500)
    logits = scale * (rng.standard_normal((500, 7)) + 2 * np.eye(7)[targets])

    def entropy(temperature):
        return -log_softmax(logits / temperature, axis=1)[np.arange(500), targets].mean()

    reference = minimize_scalar(entropy, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-8})
    assert fit_temperature(logits, targets) == pytest.approx(reference.x, rel=1e-4)


def test_the_temperature_of_what_is_all_right_is_bounded():
    logits = 3 * np.eye(4)
    assert fit_temperature(logits, np.arange(4)) == pytest.approx(1 / HOTTEST)
    assert fit_temperature(logits, (np.arange(4) + 1) % 4) == pytest.approx(HOTTEST)
