"""Exhausted memory while a file is read does not pass for damage, for which the file would be deleted or refused."""

import errno

import numpy as np
import pytest
import soundfile
import torch

from soundfold.data.store import open_store
from soundfold.experiment.callbacks.checkpoints import can_resume
from soundfold.experiment.model_bundle import ModelBundle, seen_by_weights
from soundfold.io.checkpoints import save_checkpoint
from soundfold.models.initial_weights import initialize
from soundfold.models.resnet import ResNet18

ERRORS = (
    RuntimeError("unable to mmap 40 bytes: Cannot allocate memory (12)"),
    MemoryError(),
    OSError(errno.ENOMEM, "no"),
)


@pytest.fixture(params=ERRORS, ids=["PyTorch", "Python", "system"])
def error(request) -> Exception:
    return request.param


@pytest.fixture
def fail(error, monkeypatch):
    """Return a function that lets every later reading of a file fail."""

    def raise_error(*_args, **_options):
        raise error

    def patch() -> None:
        monkeypatch.setattr(torch, "load", raise_error)
        monkeypatch.setattr(np, "load", raise_error)

    return patch


def test_a_checkpoint_is_not_deleted(error, fail, tmp_path):
    save_checkpoint(tmp_path / "last.ckpt", {"state_dict": {}})
    fail()
    with pytest.raises(type(error)):
        can_resume(tmp_path)
    assert (tmp_path / "last.ckpt").is_file()


def test_a_store_is_not_deleted(error, fail, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    options = {"seconds": 0.1, "sample_rate": 8000, "cache": tmp_path / "cache"}
    open_store(tmp_path, ["a.wav"], **options)
    (samples,) = tmp_path.glob("cache/*/samples.npy")
    inode = samples.stat().st_ino
    fail()
    with pytest.raises(type(error)):
        open_store(tmp_path, ["a.wav"], **options)
    assert samples.stat().st_ino == inode


def test_weights_are_not_refused_and_their_clips_not_forgotten(error, fail, tmp_path):
    path = tmp_path / "weights.pt"
    save_checkpoint(path, {})
    fail()
    readers = (ModelBundle.load, lambda path: seen_by_weights(str(path)))
    for read in (*readers, lambda path: initialize(ResNet18(2), 2, str(path))):
        with pytest.raises(type(error)) as raised:
            read(path)
        assert raised.value is error
