"""The learning-rate finder."""

import csv

import numpy as np
import pytest
import torch
from helpers.tiny import overrides

from soundfold.config import compose_config, cv_id
from soundfold.data.datamodule import SoundDataModule
from soundfold.errors import InputError
from soundfold.experiment.find_lr import find_lr, suggest_lr
from soundfold.models.classifier import Classifier
from soundfold.report.lr_curve import plot_lr_curve, report_lr_curve
from soundfold.validation import validate

SMALL = ("find_lr.steps=30", "find_lr.low=1e-4", "find_lr.high=30", "optim=sgd")


def config(tiny_run, outputs, *options):
    return compose_config(*overrides(tiny_run.parents[1] / "tiny", outputs, "experiment=find_lr", *SMALL, *options))


def test_the_suggestion_is_the_steepest_fall_before_the_minimum():
    lr = np.geomspace(1e-5, 1, 101)
    # falls fastest at 1e-3, and diverges above 1e-1
    loss = 2 - np.tanh(np.log10(lr) + 3) + 50 * np.maximum(lr - 0.1, 0)
    assert suggest_lr(lr, loss) == pytest.approx(1e-3)
    assert suggest_lr(lr, lr) is None
    assert suggest_lr(lr[:1], loss[:1]) is None


def test_the_loss_is_measured_on_the_training_clips_of_one_fold(tiny_run, tmp_path, monkeypatch, capsys):
    seen, rates, augment = set(), [], SoundDataModule.augment

    def record(self, wave, target, index, *part):
        seen.update(self.files(index))
        group = self.trainer.optimizers[0].param_groups
        rates.append([group[0]["lr"], group[-1]["lr"]])
        return augment(self, wave, target, index, *part)

    monkeypatch.setattr(SoundDataModule, "augment", record)
    monkeypatch.setattr(Classifier, "test_step", lambda *_: pytest.fail("scored"))
    monkeypatch.setattr(Classifier, "validation_step", lambda *_: pytest.fail("validated"))
    curve = find_lr(config(tiny_run, tmp_path, "fold=2", "model.layer_decay=0.5"))
    with (tiny_run / "fold2" / "predictions.csv").open() as stream:
        scored = {row["filename"] for row in csv.DictReader(stream)}
    assert len(seen) == 20
    assert seen.isdisjoint(scored)
    steps = len(curve.lr)
    assert 10 < steps < 30  # it diverged
    assert curve.lr == pytest.approx(np.geomspace(1e-4, 30, 30)[:steps])
    assert rates[steps - 1][1] / rates[steps - 1][0] == pytest.approx(2**5)
    assert curve.mean[0] == curve.loss[0]
    assert curve.mean[1] == pytest.approx((0.9 * curve.loss[0] + curve.loss[1]) / 1.9)
    with (curve.folder / "find_lr.csv").open() as stream:
        assert [float(row["mean"]) for row in csv.DictReader(stream)] == pytest.approx(curve.mean, rel=1e-5)
    report_lr_curve(curve)
    assert (curve.folder / "find_lr.png").read_bytes().startswith(b"\x89PNG")
    axes = plot_lr_curve(curve).axes[0]
    assert "0.01" in [label.get_text() for label in axes.get_xticklabels()]
    out, err = capsys.readouterr()
    assert "steps on the training clips of fold 2" in err
    assert out == f"optim.lr={curve.suggestion:.2g}\n"
    assert sorted(path.name for path in curve.folder.iterdir()) == ["find_lr.csv", "find_lr.png"]


@pytest.mark.slow
def test_micro_batches_are_one_step(tiny_run, tmp_path):
    """The loss of a step is that of the entire batch, and the same command gives the same curve."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    options = ("trainer.deterministic=true", "augment=none", "find_lr.high=1e-3")
    curves = [find_lr(config(tiny_run, tmp_path, *options, f"trainer.accumulate_grad_batches={n}")) for n in (1, 1, 2)]
    torch.set_num_threads(threads)
    assert np.array_equal(curves[0].loss, curves[1].loss)
    assert curves[0].fold == 1
    assert len(curves[2].loss) == 30
    # batch norm has the statistics of a micro-batch
    assert curves[2].loss[0] == pytest.approx(curves[0].loss[0], rel=0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["find_lr.low=1", "find_lr.high=0.1"], r"^find_lr\.low=1 must be below find_lr\.high=0\.1\.$"),
        (["find_lr.steps=3"], r"^find_lr\.steps=3 must be at least 20\.$"),
        (["trainer.devices=2"], r"^find_lr requires trainer\.devices=1 and no search"),
    ],
)
def test_an_invalid_range_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        validate(compose_config("experiment=find_lr", *options))


def test_it_is_combined_with_a_recipe_and_changes_no_id():
    digests = {"table": "t", "audio": "a", "weights": "none"}
    both = compose_config("experiment=[quick,find_lr]", "find_lr.steps=50")
    assert (both.find_lr.steps, both.features.n_mels) == (50, 64)
    assert cv_id(both, digests) == cv_id(compose_config("experiment=quick"), digests)
