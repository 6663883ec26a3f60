"""What holds on a CUDA device and nowhere else can be seen."""

import csv

import pytest
import torch
from benchmarks.workload import noise, trained
from helpers.tiny import cross_validate, only, render

from soundfold.errors import TrainingError
from soundfold.models.classifier import Classifier

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = ("trainer.accelerator=gpu", "report.page=none", "fold=1")
FAST = ("trainer.precision=bf16-mixed", "model.channels_last=true")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return render(tmp_path_factory.mktemp("clips") / "tiny")


def outcome(outputs) -> dict[str, str]:
    return {name: (only(outputs) / "fold1" / name).read_text() for name in ("predictions.csv", "metrics.csv")}


@pytest.mark.parametrize("words", [(), ("split=nested", "average=ema", "augment=strong", *FAST)])
def test_a_deterministic_run_cut_anywhere_ends_as_an_uninterrupted_one(root, tmp_path, monkeypatch, words):
    words = (*CUDA, *words, "trainer.deterministic=true", "trainer.max_epochs=4")
    cross_validate(root, tmp_path / "whole", *words)
    step = Classifier.training_step

    def stop(self, batch, batch_idx):
        if self.trainer.current_epoch == 2 and batch_idx == 1:
            raise RuntimeError("cut here")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", stop)
        with pytest.raises(RuntimeError, match="^cut here$"):
            cross_validate(root, tmp_path / "cut", *words)
    assert (only(tmp_path / "cut") / "fold1" / "checkpoints" / "last.ckpt").exists()
    cross_validate(root, tmp_path / "cut", *words)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_an_averaged_run_cut_after_its_last_epoch_is_scored_without_training(root, tmp_path, monkeypatch):
    words = (*CUDA, "average=ema", "checkpoints.keep=all", "trainer.deterministic=true")
    cross_validate(root, tmp_path, *words)
    whole = outcome(tmp_path)
    (only(tmp_path) / "fold1" / "result.json").unlink()
    monkeypatch.setattr(Classifier, "training_step", lambda *_: pytest.fail("trained again"))
    cross_validate(root, tmp_path, *words)
    assert outcome(tmp_path) == whole


@pytest.mark.parametrize("compile", ["default", "graphs"])
def test_a_compiled_training_is_the_plain_one(root, tmp_path, compile):
    """Where weights hardly move, as roundings grow with them, losses are within 1 %, and the weights move the same way:
    batches of eight and a last one of four, validated in between."""
    words = (*CUDA, "split=nested", "augment=strong", "model.channels_last=true", "trainer.tf32=false")
    # large enough for the last stage's maps to have a layout
    words += ("features.n_mels=64", "features.hop=0.005", "optim=sgd", "schedule=constant", "trainer.max_epochs=3")
    losses, weights = {}, {}
    for name, kind, rate in (("first", "none", 1e-30), ("plain", "none", 1e-5), ("fast", compile, 1e-5)):
        cross_validate(root, tmp_path / name, *words, f"model.compile={kind}", f"optim.lr={rate}")
        folder = only(tmp_path / name) / "fold1"
        with (folder / "metrics.csv").open() as stream:
            losses[name] = [float(row[key]) for row in csv.DictReader(stream) for key in ("train/loss", "val/loss")]
        kept = torch.load(folder / "checkpoints" / "weights.pt", weights_only=True)["network"]
        weights[name] = torch.cat([value.flatten().double() for key, value in kept.items() if key.endswith("weight")])
    assert losses["fast"] == pytest.approx(losses["plain"], rel=0.01)
    plain, fast = (weights[name] - weights["first"] for name in ("plain", "fast"))
    assert plain.norm() > 0
    assert torch.dot(plain, fast) > 0.99 * plain.norm() * fast.norm()
    assert fast.norm() == pytest.approx(float(plain.norm()), rel=0.01)


def test_a_device_that_is_too_small_for_a_batch_says_what_to_lower(tmp_path):
    collection, device = noise(80, 5.0, 44100, 4), torch.device("cuda")
    words = ("experiment=scratch", "trainer.max_steps=-1", "data.batch_size=64")
    trained(collection, tmp_path / "whole", device, -1, *words)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trained(collection, tmp_path / "whole", device, -1, *words)
    share = 0.8 * torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        with pytest.raises(TrainingError) as raised:
            trained(collection, tmp_path / "small", device, -1, *words)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    message = str(raised.value)
    assert "Out of memory with 64 clips at once: CUDA out of memory. Tried to allocate" in message
    assert "trainer.micro_batches=2" in message
    assert "Including non-PyTorch memory" not in message
