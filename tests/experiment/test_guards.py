"""Failures while a fold trains: explained, and contained to that fold."""

import errno
import re

import pytest
import torch
from helpers.tiny import cross_validate, only, overrides, render, train
from omegaconf import OmegaConf

from soundfold.errors import TrainingError
from soundfold.experiment import run as runs
from soundfold.experiment.callbacks.finite_loss import FiniteLoss
from soundfold.experiment.guards import explain_oom
from soundfold.features.pipeline import FrontEnd
from soundfold.models.classifier import Classifier

SHORT = ("report.page=none", "trainer.max_epochs=1", "augment=none")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return render(tmp_path_factory.mktemp("clips") / "tiny")


def test_a_diverging_loss_ends_the_command_with_step_batch_and_cause(root, tmp_path):
    done = train(*overrides(root, tmp_path, *SHORT, "fold=1", "optim=sgd", "optim.lr=1e30", "schedule.warmup=0.5"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    message = " ".join(done.stderr.split())
    where = r"error: Fold 1: The loss is (nan|inf) at step 2 \(epoch 0, a batch with \d+\.wav, \d+\.wav"
    assert re.search(where, message)
    assert "The learning rate, 1e+30 after the warmup, is most likely too high" in message
    assert not list(only(tmp_path).glob("fold1/checkpoints/*"))
    assert not (only(tmp_path) / "fold1" / "result.json").exists()


def test_images_that_are_not_finite_are_distinguished_from_diverged_weights(root, tmp_path, monkeypatch):
    make_images = FrontEnd.forward

    def overflow(self, wave, params=None):
        image = make_images(self, wave, params)
        overflow.calls += 1
        image[2] *= float("inf") if overflow.calls == 1 else 1
        return image

    overflow.calls = 0
    monkeypatch.setattr(FrontEnd, "forward", overflow)
    with pytest.raises(TrainingError, match=r"step 1 .*images are not finite, so the network is not the cause"):
        cross_validate(root, tmp_path, *SHORT, "fold=1")


def test_an_accelerator_s_loss_is_checked_at_the_end_of_an_epoch_before_the_checkpoint(root, tmp_path, monkeypatch):
    training_step = Classifier.training_step

    def diverge(self, batch, batch_idx):
        loss = training_step(self, batch, batch_idx)
        return loss * float("nan") if self.trainer.current_epoch == 1 and batch_idx == 1 else loss

    monkeypatch.setattr(Classifier, "training_step", diverge)
    monkeypatch.setattr(FiniteLoss, "_is_free_to_read", lambda self, loss: False)
    with pytest.raises(TrainingError, match="The loss is nan at step 5"):
        cross_validate(root, tmp_path, "report.page=none", "fold=1", "trainer.max_epochs=3")
    checkpoint = torch.load(only(tmp_path) / "fold1" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 0


def test_a_test_loss_that_is_not_finite_is_no_result(root, tmp_path, monkeypatch):
    # scoring calls `forward`, training calls `training_logits`
    forward = Classifier.forward
    monkeypatch.setattr(Classifier, "forward", lambda self, image: forward(self, image) * float("inf"))
    with pytest.raises(TrainingError, match=r"Fold 1: test/loss is (nan|inf) after epoch"):
        cross_validate(root, tmp_path, *SHORT, "fold=1")
    assert not (only(tmp_path) / "fold1" / "result.json").exists()


CUDA_MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1.00 GiB. Including"


def test_out_of_memory_is_explained_with_remedies(root, tmp_path, monkeypatch):
    def exhaust(*_args):
        raise torch.OutOfMemoryError(CUDA_MESSAGE)

    monkeypatch.setattr(Classifier, "training_step", exhaust)
    with pytest.raises(TrainingError) as caught:
        cross_validate(root, tmp_path, *SHORT, "fold=1")
    message = str(caught.value)
    explained = "Fold 1: Out of memory with 8 clips at once: CUDA out of memory. Tried to allocate 2.00 GiB. Any of"
    assert explained in message
    for remedy in ("trainer.accumulate_grad_batches=2", "data.batch_size=8", "bf16-mixed", "data.on_device=false"):
        assert remedy in message


@pytest.mark.parametrize(
    ("error", "size", "micro_batches", "message"),
    [
        (torch.OutOfMemoryError(CUDA_MESSAGE), 64, 4, "with 16 clips at once.*set trainer.accumulate_grad_batches=8"),
        # four clips per micro-batch are required
        (torch.OutOfMemoryError(CUDA_MESSAGE), 16, 4, "with 4 clips at once.*lower data.batch_size"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: tried 1 byte"), 64, 1, "enforce"),
        (MemoryError(), 64, 1, "at once: MemoryError. Any of"),
        (RuntimeError("could not create a primitive"), 64, 1, "at once: could not create a primitive. Any of"),
        (RuntimeError("std::bad_alloc"), 64, 1, "at once: std::bad_alloc. Any of"),
        (RuntimeError("can't start new thread"), 64, 1, "at once: can't start new thread. Any of"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 64, 1, "Cannot allocate memory. Any of"),
    ],
    ids=["CUDA", "small batch", "CPU", "Python", "oneDNN", "C++", "threads", "system"],
)
def test_every_allocator_is_recognized(error, size, micro_batches, message):
    trainer = {"accumulate_grad_batches": micro_batches, "devices": 1, "num_nodes": 1, "precision": "16-mixed"}
    cfg = OmegaConf.create({"data": {"batch_size": size}, "trainer": trainer})
    with pytest.raises(TrainingError, match=message), explain_oom(cfg, 1):
        raise error


def test_other_errors_pass_unchanged():
    with pytest.raises(RuntimeError, match="^shapes differ$"), explain_oom(OmegaConf.create({}), 1):
        raise RuntimeError("shapes differ")
    with pytest.raises(OSError, match="No space"), explain_oom(OmegaConf.create({}), 1):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_fold_does_not_prevent_the_others(root, tmp_path, monkeypatch):
    run_fold = runs.run_fold

    def fail_fold_2(run, fold, *args):
        if fold == 2:
            raise TrainingError("Fold 2: the loss is nan.")
        return run_fold(run, fold, *args)

    monkeypatch.setattr(runs, "run_fold", fail_fold_2)
    pattern = r"^tiny-\w+ has no score, because 1 of 3 folds .* nan\. Finished: fold 1, 3\.$"
    with pytest.raises(TrainingError, match=pattern):
        cross_validate(root, tmp_path, *SHORT)
    assert sorted(path.parent.name for path in only(tmp_path).glob("*/result.json")) == ["fold1", "fold3"]
    assert not (only(tmp_path) / "cv.json").exists()
    trained = []
    monkeypatch.setattr(runs, "run_fold", lambda run, fold, *args: trained.append(fold) or run_fold(run, fold, *args))
    cross_validate(root, tmp_path, *SHORT)
    assert trained == [2]
    assert (only(tmp_path) / "cv.json").exists()
