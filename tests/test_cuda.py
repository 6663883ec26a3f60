"""Resuming, compiled training and memory on a CUDA device."""

import csv
import gc

import pytest
import torch
from benchmarks.workload import noise, trained
from helpers.tiny import cross_validate, only, render

from soundfold.errors import TrainingError
from soundfold.experiment.device import print_note
from soundfold.experiment.graph_strategy import GraphStrategy
from soundfold.experiment.iteration import CapturedIteration
from soundfold.models.classifier import Classifier

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="requires a CUDA device")
CUDA = ("trainer.accelerator=gpu", "report.page=none", "fold=1")
FAST = ("trainer.precision=bf16-mixed", "model.channels_last=true")
AVERAGED = ("split=nested", "average=ema", "augment=strong", *FAST)
EAGER, GRAPH = "trainer.cuda_graph=false", "trainer.cuda_graph=true"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return render(tmp_path_factory.mktemp("clips") / "tiny")


def results(outputs, fold: int = 1) -> dict[str, str]:
    return {name: (only(outputs) / f"fold{fold}" / name).read_text() for name in ("predictions.csv", "metrics.csv")}


@pytest.mark.parametrize("options", [(EAGER,), (EAGER, *AVERAGED), AVERAGED])
def test_a_stopped_and_resumed_deterministic_run_equals_an_uninterrupted_one(root, tmp_path, monkeypatch, options):
    options = (*CUDA, *options, "trainer.deterministic=true", "trainer.max_epochs=4")
    cross_validate(root, tmp_path / "reference", *options)
    owner = Classifier if EAGER in options else GraphStrategy
    step = owner.training_step

    def stop(self, batch, batch_idx):
        if getattr(self, "lightning_module", self).trainer.current_epoch == 2 and batch_idx == 1:
            raise RuntimeError("stopped")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(owner, "training_step", stop)
        with pytest.raises(RuntimeError, match="^stopped$"):
            cross_validate(root, tmp_path / "stopped", *options)
    assert (only(tmp_path / "stopped") / "fold1" / "checkpoints" / "last.ckpt").exists()
    cross_validate(root, tmp_path / "stopped", *options)
    assert results(tmp_path / "stopped") == results(tmp_path / "reference")


# with a logger, the norm of the gradient is computed in the graph
LOGGER = ("+logger.mine._target_=helpers.recording_logger.LoggerWithoutFolder",)


@pytest.mark.parametrize(
    "options", [("optim=sgd", "average=swa"), ("optim=muon",), (*AVERAGED, *LOGGER, "model.stochastic_depth=0.2")]
)
def test_a_graph_trains_as_the_same_iterations_without_a_capture(root, tmp_path, monkeypatch, options):
    """Losses and predictions are equal to the last digit, also of smaller batches and of a fold that follows."""
    options = (*CUDA[:-1], *options, GRAPH, "trainer.deterministic=true", "trainer.max_epochs=8")
    replays, replay = [], torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: (replays.append(graph), replay(graph)))
    for fold in (1, 2):
        cross_validate(root, tmp_path / "graph", *options, f"fold={fold}")
    count = len(replays)
    monkeypatch.setattr(CapturedIteration, "WARMUP", 1000)
    for fold in (1, 2):
        cross_validate(root, tmp_path / "iteration", *options, f"fold={fold}")
        assert results(tmp_path / "graph", fold) == results(tmp_path / "iteration", fold)
    assert len(replays) == count > 0


def test_training_goes_on_eagerly_where_the_loss_waits_for_the_device(root, tmp_path, monkeypatch, capfd):
    loss = Classifier.loss
    monkeypatch.setattr(Classifier, "loss", lambda *args: loss(*args) * (1 + 0 * loss(*args).item()))
    with pytest.raises(TrainingError, match=r"cannot be captured as a CUDA graph: it waits for the device in "):
        cross_validate(root, tmp_path / "required", *CUDA, GRAPH)
    print_note.cache_clear()
    cross_validate(root, tmp_path / "auto", *CUDA)
    assert (only(tmp_path / "auto") / "fold1" / "result.json").exists()
    assert capfd.readouterr().err.count("note: training without a CUDA graph: it waits for the device in ") == 1


def test_an_averaged_run_stopped_after_its_last_epoch_is_scored_without_training(root, tmp_path, monkeypatch):
    options = (*CUDA, "average=ema", "checkpoints.keep=all", "trainer.deterministic=true")
    cross_validate(root, tmp_path, *options)
    expected = results(tmp_path)
    (only(tmp_path) / "fold1" / "result.json").unlink()
    for owner in (Classifier, GraphStrategy):
        monkeypatch.setattr(owner, "training_step", lambda *_: pytest.fail("trained again"))
    cross_validate(root, tmp_path, *options)
    assert results(tmp_path) == expected


@pytest.mark.parametrize("options", [("model.compile=default",), (GRAPH,), ("model.compile=default", GRAPH)])
def test_faster_training_equals_plain_training(root, tmp_path, options):
    """Losses agree within 1 %, and the weights move in the same direction, at a learning rate so low that rounding is
    not amplified. The last batch of an epoch is smaller, and validation runs in between."""
    common = (*CUDA, EAGER, "split=nested", "augment=strong", "model.channels_last=true", "trainer.tf32=false")
    # large enough for the last stage's feature maps to have a memory format
    common += (
        "features.n_mels=64",
        "features.hop=0.005",
        "optim=sgd",
        "schedule=constant",
        "trainer.max_epochs=3",
    )
    losses, weights = {}, {}
    for name, faster, rate in (("first", (), 1e-30), ("plain", (), 1e-5), ("fast", options, 1e-5)):
        cross_validate(root, tmp_path / name, *common, *faster, f"optim.lr={rate}")
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
    options = ("experiment=scratch", "trainer.max_steps=-1", "data.batch_size=64", EAGER)
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
        assert "trainer.accumulate_grad_batches=2" in message
        del caught  # its traceback holds the batch
        gc.collect()
        torch.cuda.empty_cache()
        trained(collection, tmp_path, device, -1, *options, "trainer.accumulate_grad_batches=4")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "Out of memory with 64 clips at once: CUDA out of memory. Tried to allocate" in message
    assert "Including non-PyTorch memory" not in message
