"""What goes wrong while a fold trains: told with its cause, and nothing else is lost."""

import re

import pytest
import torch
from helpers.tiny import cross_validate, only, overrides, render, train

from soundfold.errors import OutOfMemory, TrainingError
from soundfold.experiment import fold as folds
from soundfold.experiment import run as runs
from soundfold.features.pipeline import FrontEnd
from soundfold.models.classifier import Classifier

SHORT = ("report.page=none", "trainer.max_epochs=1", "augment=none")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return render(tmp_path_factory.mktemp("clips") / "tiny")


def test_a_loss_that_diverges_ends_the_command_with_its_step_batch_and_cause(root, tmp_path):
    words = overrides(root, tmp_path, *SHORT, "fold=1", "optim=sgd", "optim.lr=1e30", "schedule=constant")
    done = train(*words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = " ".join(done.stderr.split())
    assert re.search(r"error: Fold 1: The loss is (nan|inf) at step 2 \(epoch 0, a batch with \d+\.wav, \d+\.wav", told)
    assert "the rate, 1e+30 here, is most likely too high" in told
    assert not list(only(tmp_path).glob("fold1/checkpoints/*"))
    assert not (only(tmp_path) / "fold1" / "result.json").exists()


def test_images_that_are_not_finite_are_told_from_weights_that_diverge(root, tmp_path, monkeypatch):
    image = FrontEnd.normalize

    def broken(self, level):
        made = image(self, level)
        # the third clip in training; evaluation sees no draw, and so is not asked for here
        broken.calls += 1
        return made * (float("inf") if broken.calls == 3 else 1)

    broken.calls = 0
    monkeypatch.setattr(FrontEnd, "normalize", broken)
    with pytest.raises(TrainingError, match=r"step 1 .*images are not finite, so it is not the network"):
        cross_validate(root, tmp_path, *SHORT, "fold=1")


def test_another_device_is_asked_at_the_end_of_an_epoch_before_a_checkpoint(root, tmp_path, monkeypatch):
    """As on a CUDA device: steps go on, and what is kept does not know of them."""
    step = Classifier.training_step

    def diverging(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        return loss * float("nan") if self.trainer.current_epoch == 1 and batch_idx == 1 else loss

    monkeypatch.setattr(Classifier, "training_step", diverging)
    monkeypatch.setattr(folds.FiniteLoss, "_at_hand", lambda self, loss: False)
    with pytest.raises(TrainingError, match="The loss is nan at step 5"):
        cross_validate(root, tmp_path, *SHORT[:1], "fold=1", "trainer.max_epochs=3")
    found = torch.load(only(tmp_path) / "fold1" / "checkpoints" / "last.ckpt", weights_only=True)
    assert found["epoch"] == 0


def test_a_score_that_is_not_finite_is_no_score(root, tmp_path, monkeypatch):
    scored = Classifier._clip_logits
    monkeypatch.setattr(Classifier, "_clip_logits", lambda self, *given: scored(self, *given) * float("inf"))
    with pytest.raises(TrainingError, match=r"Fold 1: test/loss is (nan|inf) after epoch"):
        cross_validate(root, tmp_path, *SHORT, "fold=1")
    assert not (only(tmp_path) / "fold1" / "result.json").exists()


def small_device(monkeypatch, most: int):
    """A device whose memory holds so many clips; gives the sizes that were tried."""
    sizes = []
    step = Classifier.training_step

    def limited(self, batch, batch_idx):
        sizes.append(len(batch[0]))
        if len(batch[0]) > most:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity. Including"
            )
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", limited)
    return sizes


def test_out_of_memory_says_what_to_lower(root, tmp_path, monkeypatch):
    small_device(monkeypatch, 4)
    with pytest.raises(OutOfMemory) as told:
        cross_validate(root, tmp_path, *SHORT, "fold=1")
    text = str(told.value)
    assert "Fold 1: Out of memory with 8 clips at once: CUDA out of memory. Tried to allocate 2.00 GiB. Give" in text
    for remedy in ("trainer.micro_batches=2", "bf16-mixed", "data.on_device=false"):
        assert remedy in text


def test_a_fold_that_fails_does_not_lose_the_others(root, tmp_path, monkeypatch, capsys):
    real = runs.run_fold

    def failing(run, fold, *more):
        if fold == 2:
            raise TrainingError("Fold 2: the loss is nan.")
        return real(run, fold, *more)

    monkeypatch.setattr(runs, "run_fold", failing)
    with pytest.raises(TrainingError, match=r"^tiny-\w+ has no score, as 1 of 3 folds .* nan\. Fold 1, 3 is finished"):
        cross_validate(root, tmp_path, *SHORT)
    assert sorted(path.parent.name for path in only(tmp_path).glob("*/result.json")) == ["fold1", "fold3"]
    assert not (only(tmp_path) / "cv.json").exists()
    trained = []
    monkeypatch.setattr(runs, "run_fold", lambda run, fold, *more: trained.append(fold) or real(run, fold, *more))
    cross_validate(root, tmp_path, *SHORT)
    assert trained == [2]
    assert (only(tmp_path) / "cv.json").exists()
