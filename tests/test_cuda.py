"""Resuming, compiled training and memory on a CUDA device."""

import csv
import gc

import pytest
import torch
from benchmarks.workload import noise, trained
from helpers.tiny import cross_validate, only, render

from soundfold.errors import TrainingError
from soundfold.models.classifier import Classifier

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="requires a CUDA device")
CUDA = ("trainer.accelerator=gpu", "report.page=none", "fold=1")
FAST = ("trainer.precision=bf16-mixed", "model.channels_last=true")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return render(tmp_path_factory.mktemp("clips") / "tiny")


def results(outputs) -> dict[str, str]:
    return {name: (only(outputs) / "fold1" / name).read_text() for name in ("predictions.csv", "metrics.csv")}


@pytest.mark.parametrize("options", [(), ("split=nested", "average=ema", "augment=strong", *FAST)])
def test_a_stopped_and_resumed_deterministic_run_equals_an_uninterrupted_one(root, tmp_path, monkeypatch, options):
    options = (*CUDA, *options, "trainer.deterministic=true", "trainer.max_epochs=4")
    cross_validate(root, tmp_path / "reference", *options)
    step = Classifier.training_step

    def stop(self, batch, batch_idx):
        if self.trainer.current_epoch == 2 and batch_idx == 1:
            raise RuntimeError("stopped")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", stop)
        with pytest.raises(RuntimeError, match="^stopped$"):
            cross_validate(root, tmp_path / "stopped", *options)
    assert (only(tmp_path / "stopped") / "fold1" / "checkpoints" / "last.ckpt").exists()
    cross_validate(root, tmp_path / "stopped", *options)
    assert results(tmp_path / "stopped") == results(tmp_path / "reference")


def test_an_averaged_run_stopped_after_its_last_epoch_is_scored_without_training(root, tmp_path, monkeypatch):
    options = (*CUDA, "average=ema", "checkpoints.keep=all", "trainer.deterministic=true")
    cross_validate(root, tmp_path, *options)
    expected = results(tmp_path)
    (only(tmp_path) / "fold1" / "result.json").unlink()
    monkeypatch.setattr(Classifier, "training_step", lambda *_: pytest.fail("trained again"))
    cross_validate(root, tmp_path, *options)
    assert results(tmp_path) == expected


@pytest.mark.parametrize("compile", ["default", "graphs"])
def test_compiled_training_equals_plain_training(root, tmp_path, compile):
    """Losses agree within 1 %, and the weights move in the same direction, at a learning rate so low that rounding is
    not amplified. The last batch of an epoch is smaller, and validation runs in between."""
    options = (*CUDA, "split=nested", "augment=strong", "model.channels_last=true", "trainer.tf32=false")
    # large enough for the last stage's feature maps to have a memory format
    options += (
        "features.n_mels=64",
        "features.hop=0.005",
        "optim=sgd",
        "schedule=constant",
        "trainer.max_epochs=3",
    )
    losses, weights = {}, {}
    for name, kind, rate in (("first", "none", 1e-30), ("plain", "none", 1e-5), ("fast", compile, 1e-5)):
        cross_validate(root, tmp_path / name, *options, f"model.compile={kind}", f"optim.lr={rate}")
        folder = only(tmp_path / name) / "fold1"
        with (folder / "metrics.csv").open() as stream:
            losses[name] = [float(row[key]) for row in csv.DictReader(stream) for key in ("train/loss", "val/loss")]
        saved = torch.load(folder / "checkpoints" / "weights.pt", weights_only=True)["network"]
        weights[name] = torch.cat([value.flatten().double() for key, value in saved.items() if key.endswith("weight")])
    assert losses["fast"] == pytest.approx(losses["plain"], rel=0.01)
    plain, fast = (weights[name] - weights["first"] for name in ("plain", "fast"))
    assert plain.norm() > 0
    assert torch.dot(plain, fast) > 0.99 * plain.norm() * fast.norm()
    assert fast.norm() == pytest.approx(float(plain.norm()), rel=0.01)


def test_out_of_memory_is_explained(tmp_path):
    collection, device = noise(80, 5.0, 44100, 4), torch.device("cuda")
    options = ("experiment=scratch", "trainer.max_steps=-1", "data.batch_size=64")
    trained(collection, tmp_path, device, -1, *options)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trained(collection, tmp_path, device, -1, *options)
    fraction = 0.8 * torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(fraction)
    try:
        with pytest.raises(TrainingError) as caught:
            trained(collection, tmp_path, device, -1, *options)
        # the first remedy of the message; 4 if activations are not the larger part
        message = str(caught.value)
        assert "trainer.micro_batches=2" in message
        del caught  # its traceback holds the batch
        gc.collect()
        torch.cuda.empty_cache()
        trained(collection, tmp_path, device, -1, *options, "trainer.micro_batches=4")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "Out of memory with 64 clips at once: CUDA out of memory. Tried to allocate" in message
    assert "Including non-PyTorch memory" not in message
