"""Weights of the classes: their values, and the loss with them."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers import tiny
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from soundfold.config import compose_config
from soundfold.data.class_weights import class_weights
from soundfold.data.loader import SINGLE_PROCESS
from soundfold.errors import ArgumentError
from soundfold.experiment.fold import prepare_fold
from soundfold.experiment.setup import open_run
from soundfold.models.classifier import Classifier

TARGETS = np.array([0, 0, 0, 0, 1, 1, 2, 0])


def classifier(weights=None, **options) -> Classifier:
    return Classifier(torch.nn.Flatten(), 3, partial(torch.optim.SGD, lr=0.1), class_weights=weights, **options)


def test_balanced_weights_are_those_of_scikit_learn():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=TARGETS)
    assert class_weights("balanced", TARGETS, 3) == pytest.approx(expected)
    assert class_weights("none", TARGETS, 3) is None
    # a class without a training clip
    assert class_weights("balanced", TARGETS, 4) == pytest.approx([*expected, 0])


def test_only_ratios_of_numbers_matter():
    weights = class_weights([1, 2, 4], TARGETS, 3)
    assert weights == pytest.approx(class_weights([0.5, 1, 2], TARGETS, 3))
    assert weights[TARGETS].mean() == pytest.approx(1)
    assert weights / weights[0] == pytest.approx([1, 2, 4])


@pytest.mark.parametrize("kind", ["balance", [1, 2], [1, 2, 0], [1, 2, -1], [1, 2, float("nan")], [1, 2, "a"], None, 3])
def test_other_values_are_refused(kind):
    with pytest.raises(ArgumentError, match=r"`class_weights`=.* must be"):
        class_weights(kind, TARGETS, 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_of_hard_targets_is_that_of_torch_weighted(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(8, 3, generator=generator), torch.from_numpy(TARGETS)
    weights = torch.tensor([0.5, 1.0, 4.0])
    loss = classifier(weights, label_smoothing=smoothing).loss(logits, target)
    # torch divides by the weights of the batch, here by the number of clips
    torch_loss = functional.cross_entropy(logits, target, weights, label_smoothing=smoothing)
    torch.testing.assert_close(loss, torch_loss * weights[target].sum() / 8)
    # a soft target of one class is the same clip
    one_hot = functional.one_hot(target, 3).float()
    torch.testing.assert_close(classifier(weights, label_smoothing=smoothing).loss(logits, one_hot), loss)


def test_a_mixed_clip_is_weighted_by_its_shares():
    logits, soft = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[0.25, 0.0, 0.75]])
    weights = torch.tensor([0.5, 1.0, 4.0])
    expected = sum(
        share * weights[i] * functional.cross_entropy(logits, torch.tensor([i])) for i, share in enumerate(soft[0])
    )
    torch.testing.assert_close(classifier(weights).loss(logits, soft), expected)
    binary = functional.binary_cross_entropy_with_logits(logits, soft, pos_weight=weights, reduction="sum")
    torch.testing.assert_close(classifier(weights, loss="binary").loss(logits, soft), binary)


def test_the_loss_of_a_batch_is_the_mean_of_its_parts():
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(8, 3, generator=generator), torch.from_numpy(TARGETS)
    model = classifier(torch.tensor([0.5, 1.0, 4.0]))
    parts = [model.loss(logits[part], target[part]) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(model.loss(logits, target), sum(parts) / 2)


def test_weights_are_not_part_of_a_checkpoint():
    assert classifier(torch.ones(3)).state_dict().keys() == classifier().state_dict().keys()


def test_weights_come_from_the_training_clips_of_the_fold(tmp_path):
    root = tiny.render(tmp_path / "tiny")
    targets, folds = np.arange(30) % 2, np.arange(30) % 3 + 1
    targets[folds == 1] = 1
    rows = [f"{i}.wav,{folds[i]},{targets[i]},{'ab'[targets[i]]},{i}" for i in range(30)]
    (root / "meta" / "esc50.csv").write_text("\n".join(["filename,fold,target,category,src_file", *rows]))
    options = tiny.overrides(root, tmp_path / "out", "model.class_weights=balanced", "model.width=4")
    run = open_run(compose_config(*options))
    weights = [prepare_fold(run, fold, SINGLE_PROCESS).model.class_weights for fold in (1, 2, None)]
    assert weights[0].tolist() == [1, 1]  # of folds 2 and 3
    assert weights[1].tolist() == pytest.approx([20 / (2 * 5), 20 / (2 * 15)])
    assert weights[2].tolist() == pytest.approx([30 / (2 * 10), 30 / (2 * 20)])
