"""Scores per class and calibration, against scikit-learn, torchmetrics and SciPy."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torchmetrics.functional.classification import multiclass_calibration_error

from soundfold.data.groups import esc50_groups
from soundfold.evaluation.metrics import (
    MAX_TEMPERATURE,
    calibration,
    class_metrics,
    fit_temperature,
    merge_classes,
    probabilities,
)


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Logits (300, 7) and targets (300,); class 6 is never predicted and class 5 has no clip."""
    rng = np.random.default_rng(0)
    targets = rng.choice([0, 1, 2, 3, 4, 6], 300)
    logits = rng.normal(size=(300, 7)).astype(np.float32) + 2 * np.eye(7, dtype=np.float32)[targets]
    logits[:, 6] = -50
    return logits, targets


def test_class_metrics_equal_scikit_learn(scored):
    logits, targets = scored
    predicted = logits.argmax(axis=1)
    metrics = class_metrics(confusion_matrix(targets, predicted, labels=range(7)))
    expected = precision_recall_fscore_support(targets, predicted, labels=range(7), zero_division=0)
    for ours, theirs in zip((metrics.precision, metrics.recall, metrics.f1, metrics.clips), expected, strict=True):
        assert ours == pytest.approx(theirs)
    assert metrics.f1[5] == metrics.f1[6] == 0


def test_merged_confusion_matrix_equals_that_of_merged_labels(scored):
    logits, targets = scored
    group_of = np.array([0, 0, 1, 1, 2, 2, 2])
    predicted = logits.argmax(axis=1)
    merged = merge_classes(confusion_matrix(targets, predicted, labels=range(7)), group_of)
    assert (merged == confusion_matrix(group_of[targets], group_of[predicted], labels=range(3))).all()


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_calibration_error_equals_torchmetrics(scored, scale):
    logits, targets = scored
    softmax = probabilities(scale * logits)
    assert softmax == pytest.approx(torch.softmax(torch.from_numpy(scale * logits).double(), 1).numpy())
    result = calibration(softmax.max(axis=1), softmax.argmax(axis=1) == targets)
    expected = multiclass_calibration_error(torch.from_numpy(softmax), torch.from_numpy(targets), 7, n_bins=15)
    assert result.error == pytest.approx(float(expected), abs=1e-6)
    assert result.clips.sum() == 300


def test_confidence_1_is_in_the_last_bin():
    result = calibration(np.array([1.0, 1.0, 0.1]), np.array([True, False, False]))
    assert result.clips[[1, -1]].tolist() == [1, 2]
    assert result.error == pytest.approx((2 * 0.5 + 0.1) / 3)


def test_esc50_groups_have_ten_consecutive_targets_each(esc50_table):
    rows = [line.split(",") for line in esc50_table.read_text().splitlines()[1:]]
    names = dict((int(row[2]), row[3]) for row in rows)
    groups, of_class = esc50_groups([names[target] for target in range(50)])
    assert len(groups) == 5
    assert of_class.tolist() == [target // 10 for target in range(50)]
    assert esc50_groups(["dog", "unknown class"]) is None


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_fitted_temperature_minimizes_the_cross_entropy(scale):
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rng = np.random.default_rng(0)
    targets = rng.integers(0, 7, 500)
    logits = scale * (rng.standard_normal((500, 7)) + 2 * np.eye(7)[targets])

    def entropy(temperature):
        return -log_softmax(logits / temperature, axis=1)[np.arange(500), targets].mean()

    reference = minimize_scalar(entropy, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-8})
    assert fit_temperature(logits, targets) == pytest.approx(reference.x, rel=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fitted_temperature_is_a_root_of_the_gradient(dtype):
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 7, 500)
    logits = (3 * (rng.standard_normal((500, 7)) + 2 * np.eye(7)[targets])).astype(dtype)
    scale = 1 / fit_temperature(logits, targets)

    def slope(scale):
        return ((probabilities(logits * scale) * logits).sum(axis=1) - logits[np.arange(500), targets]).mean()

    # T is within 1e-8 of the minimum
    assert slope(np.float64(scale * (1 - 1e-8))) < 0 < slope(np.float64(scale * (1 + 1e-8)))


def test_fitted_temperature_is_bounded_if_all_or_no_predictions_are_correct():
    logits = 3 * np.eye(4)
    assert fit_temperature(logits, np.arange(4)) == pytest.approx(1 / MAX_TEMPERATURE)
    assert fit_temperature(logits, (np.arange(4) + 1) % 4) == pytest.approx(MAX_TEMPERATURE)
