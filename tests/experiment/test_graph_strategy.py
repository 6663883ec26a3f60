"""A whole iteration as one function, also one whose operations are recorded and repeated, trains exactly as Lightning's
step does; its capture by CUDA is in test_cuda.py."""

import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import soundfile
import torch
from helpers.recorded_graph import RecordedGraph, compute_as_on_a_gpu
from helpers.recording_logger import RecordingLogger
from helpers.tiny import RATE, cross_validate, only, render

from soundfold.config import compose_config
from soundfold.errors import InputError, TrainingError
from soundfold.experiment import trainer as trainers
from soundfold.experiment.callbacks.finite_loss import FiniteLoss
from soundfold.experiment.device import print_note
from soundfold.experiment.graph_strategy import GraphStrategy, choose_strategy, find_obstacle
from soundfold.experiment.iteration import CapturedIteration, Iteration
from soundfold.validation import validate

AVERAGED = ("augment=strong", "optim=adamw", "average=ema", "average.start=0.3")
# twenty clips in batches of eight: the last is smaller
OPTIONS = {
    "averaged, clipped": (*AVERAGED, "trainer.gradient_clip_val=1", "split=nested"),
    "sgd, swa, ended within an epoch": ("augment=none", "optim=sgd", "average=swa", "trainer.max_steps=5"),
    "bfloat16, crops, label smoothing": (
        "crops.seconds=0.4",
        "model.label_smoothing=0.1",
        "trainer.precision=bf16-mixed",
        "model.stochastic_depth=0.2",
    ),
    "copies": ("augment=seed_copies", "augment.copies.after=1", "schedule=constant"),
}


CASES = [*enumerate(OPTIONS.items())]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return render(tmp_path_factory.mktemp("clips") / "tiny")


@pytest.fixture
def whole(monkeypatch):
    """Train by whole iterations, without a capture."""
    make = lambda cfg, accelerator, averaging: GraphStrategy(torch.device("cpu"), averaging, required=True)  # noqa: E731
    monkeypatch.setattr(trainers, "choose_strategy", make)


LOGGER = "+logger.mine._target_=helpers.recording_logger.RecordingLogger"


def logged_steps():
    """Return loss, learning rate and gradient norm of every step, from the logger that was opened last."""
    rows = RecordingLogger.opened[-1].rows
    return [
        (step, row["train/loss_step"], row["train/lr"], row["train/grad_norm"])
        for step, row in rows
        if "train/lr" in row
    ]


def results(outputs):
    folder = only(outputs) / "fold1"
    return [(folder / name).read_bytes() for name in ("metrics.csv", "predictions.csv")]


@pytest.mark.parametrize(
    "options",
    [pytest.param(options, id=name, marks=[pytest.mark.slow] if number else []) for number, (name, options) in CASES],
)
def test_an_iteration_equals_lightnings_step(root, tmp_path, options, request):
    """Losses, accuracies, learning rates, gradient norms and predictions are equal to the last digit."""
    options = ("fold=1", LOGGER, *options)
    cross_validate(root, tmp_path / "plain", *options)
    steps = logged_steps()
    assert [step[0] for step in steps] == list(range(len(steps)))
    request.getfixturevalue("whole")
    cross_validate(root, tmp_path / "whole", *options)
    assert logged_steps() == steps
    assert results(tmp_path / "whole") == results(tmp_path / "plain")


class Replaying(GraphStrategy):
    """Replays on the CPU."""

    def setup(self, trainer):
        super().setup(trainer)
        if self._iteration is not None:
            self._run = CapturedIteration(self._iteration, self.required)


@pytest.fixture
def graphs(monkeypatch):
    """Let fits replay `RecordedGraph`s, and return the list of them with the clips of their batch."""
    compute_as_on_a_gpu(monkeypatch)
    captured = []

    def capture(self, key, inputs):
        graph, static_inputs = RecordedGraph(), tuple(value.clone() for value in inputs)
        with self.iteration.static_rates(), graph:
            outputs = self.iteration(*static_inputs)
        captured.append((len(inputs[0]), graph))
        self._graphs[key] = graph, static_inputs, outputs

    def run(self, *inputs):
        with self.iteration.static_rates():
            return self.iteration(*inputs)

    def load_rates(self):
        # float32 on a CUDA device, but plain fits on a CPU have float64
        while len(self.rates) < len(self.optimizer.param_groups):
            self.rates.append(torch.zeros((), dtype=torch.float64))
        load(self)

    load = Iteration.load_rates
    monkeypatch.setattr(Iteration, "load_rates", load_rates)
    for name, replacement in {"_capture": capture, "_run": run, "_run_and_check": run}.items():
        monkeypatch.setattr(CapturedIteration, name, replacement)
    for name in ("Stream", "graph_pool_handle", "current_stream", "set_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(
        trainers, "choose_strategy", lambda cfg, accelerator, averaging: Replaying(torch.device("cpu"), averaging, True)
    )
    return captured


@pytest.mark.slow
def test_replays_read_clips_numbers_rates_and_weights_from_static_tensors(root, tmp_path, graphs, monkeypatch):
    """Batches of eight and smaller ones have a graph each, after three steps with an average. Validation, and the
    statistics of the average before it, do not change what a graph takes as constant; unfreezing weights does."""

    class Unfreeze(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            pl_module.network.conv1.requires_grad_(trainer.current_epoch >= 8)

    options = ("fold=1", LOGGER, *AVERAGED, "split=nested", "selection.choose=last", "trainer.max_epochs=12")
    monkeypatch.setattr(trainers, "make_callbacks", lambda *_: [Unfreeze()])
    cross_validate(root, tmp_path / "replayed", *options)
    assert [(clips, graph.replays) for clips, graph in graphs] == [(8, 1), (2, 1)] * 3
    steps = logged_steps()
    with monkeypatch.context() as patch:
        patch.setattr(trainers, "choose_strategy", choose_strategy)
        cross_validate(root, tmp_path / "plain", *options)
    assert logged_steps() == steps
    assert results(tmp_path / "replayed") == results(tmp_path / "plain")


# three trainings with every augmentation, AdamW, Muon and SGD, and stochastic depth
REPLAYED = {
    "all of conf/augment, ema": (*AVERAGED, "trainer.gradient_clip_val=1", "average.start=0", "crops.seconds=0.4"),
    "recordings, filters, mixed waveforms and styles, muon": (
        "augment=none",
        "augment.mixing={between_class: 0.5, mixstyle: 0.5}",
        "augment.impulse_response={folder: recordings, p: 0.5}",
        "augment.background_noise={folder: recordings, p: 0.5}",
        "augment={low_pass: {high: 3000, p: 0.4}, high_pass: {p: 0.4}, band_pass: {p: 0.4}}",
        "augment.noise_std={low: 0.01, high: 0.05, p: 0.5}",
        "optim=muon",
        "crops={seconds: 0.4, trim: true}",
        "features.per_band=true",
        "model.class_weights=balanced",
    ),
    "copies, one at a time, binary, sgd": (
        *("augment=seed_copies", "augment.copies={low: 1, high: 2, after: 3}", "schedule=constant", "optim=sgd"),
        *("model.loss=binary", "model.stochastic_depth=0.2", "model.label_smoothing=0.1"),
        *("model.squeeze_excitation=true", "features.relative=true"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("options", REPLAYED.values(), ids=REPLAYED)
def test_replays_change_with_the_step(root, tmp_path, options, graphs, monkeypatch):
    """Nothing that a training draws or computes from step to step is a number of Python, which a graph would repeat."""
    monkeypatch.chdir(root.parent)
    Path("recordings").mkdir(exist_ok=True)
    for seed in range(3):
        noise = np.random.default_rng(seed).uniform(-0.5, 0.5, RATE // 4)
        soundfile.write(f"recordings/noise{seed}.wav", noise, RATE)
    options = ("fold=1", LOGGER, *options, "trainer.max_epochs=8")
    cross_validate(root, tmp_path / "replayed", *options)
    steps = logged_steps()
    assert sum(graph.replays for _, graph in graphs) >= 15
    with monkeypatch.context() as patch:
        patch.setattr(trainers, "choose_strategy", choose_strategy)
        cross_validate(root, tmp_path / "plain", *options)
    assert logged_steps() == steps
    assert results(tmp_path / "replayed") == results(tmp_path / "plain")


class GradientNorm(pl.Callback):
    def on_before_optimizer_step(self, *_):
        pass


class BatchPlot(pl.Callback):
    def on_train_batch_end(self, *_):
        pass


def fit(**changes):
    """Return what `find_obstacle` reads of a trainer."""
    values = {
        "accumulate": 1,
        "precision": "bf16-mixed",
        "reads": True,
        "fused": True,
        "interval": 1.0,
        "min_steps": None,
    }
    values |= {"callbacks": [FiniteLoss(1, "32-true"), pl.callbacks.LearningRateMonitor()]} | changes
    optimizer = SimpleNamespace(param_groups=[{"fused": values["fused"]}])
    return SimpleNamespace(
        strategy=SimpleNamespace(optimizers=[optimizer]),
        accumulate_grad_batches=values["accumulate"],
        precision=values["precision"],
        datamodule=SimpleNamespace(reads_on_device=values["reads"]),
        callbacks=values["callbacks"],
        val_check_interval=values["interval"],
        min_steps=values["min_steps"],
    )


@pytest.mark.parametrize(
    ("changes", "obstacle"),
    [
        ({"accumulate": 2}, r"trainer\.accumulate_grad_batches=2"),
        ({"precision": "16-mixed"}, r"trainer\.precision=16-mixed"),
        ({"reads": False}, r"data\.on_device"),
        ({"fused": False}, r"optim\.fused=false"),
        ({"callbacks": [GradientNorm()]}, "callback GradientNorm has the hook on_before_optimizer_step"),
        ({"callbacks": [BatchPlot()]}, "callback BatchPlot has the hook on_train_batch_end"),
        (
            {"callbacks": [pl.callbacks.LambdaCallback(on_train_batch_end=print)]},
            "LambdaCallback has the hook",
        ),
        ({"callbacks": [pl.callbacks.GradientAccumulationScheduler({0: 2})]}, "accumulates gradients"),
        ({"callbacks": [pl.callbacks.EarlyStopping("val/loss")], "interval": 0.5}, "can end an epoch"),
        ({"callbacks": [pl.callbacks.EarlyStopping("val/loss")], "min_steps": 7}, "min_steps can end an epoch"),
        ({"callbacks": [pl.callbacks.Timer("00:08:00:00")]}, "Timer can end an epoch"),
    ],
)
def test_what_prevents_a_capture_is_named(changes, obstacle):
    assert find_obstacle(fit()) is None
    assert re.search(obstacle, str(find_obstacle(fit(**changes))))


@pytest.mark.parametrize(
    "option", ["trainer.devices=2", "trainer.accumulate_grad_batches=2", "data.on_device=false", "optim.fused=false"]
)
def test_options_that_exclude_a_graph_are_refused(option):
    validate(compose_config(option))
    with pytest.raises(InputError, match=f"trainer.cuda_graph=true excludes {option}"):
        validate(compose_config("trainer.cuda_graph=true", option))


def test_a_capturable_optimizer_needs_no_fused_step():
    rmsprop = ("optim._target_=torch.optim.RMSprop", "~optim.betas", "optim.fused=false", "trainer.cuda_graph=true")
    validate(compose_config(*rmsprop, "optim.capturable=true"))
    with pytest.raises(InputError, match=r"excludes optim\.fused=false"):
        validate(compose_config(*rmsprop))


def test_a_graph_is_used_where_it_is_asked_for():
    kinds = {kind: compose_config(f"trainer.cuda_graph={kind}") for kind in ("auto", "true", "false")}
    chosen = {kind: choose_strategy(cfg, "gpu", None) is not None for kind, cfg in kinds.items()}
    assert chosen == {"auto": True, "true": True, "false": False}
    assert choose_strategy(compose_config("model.compile=default"), "gpu", None) is None
    assert choose_strategy(kinds["true"], "cpu", None) is None
    with pytest.raises(InputError, match=r"trainer\.cuda_graph=on must be one of auto, true, false"):
        validate(compose_config("trainer.cuda_graph='on'"))


@pytest.mark.parametrize("required", [False, True])
def test_training_goes_on_where_a_capture_fails(graphs, required, monkeypatch, capfd):
    class Counting:
        """An iteration without weights that counts its calls."""

        data, generators, averages, calls = SimpleNamespace(device=torch.device("cpu")), [], False, 0
        optimizer = SimpleNamespace(zero_grad=lambda set_to_none: None)

        def __call__(self, index):
            self.calls += 1
            return torch.zeros(()), torch.ones((), dtype=torch.bool)

        def load_rates(self):
            pass

        def constants(self):
            return [1]

        def static_rates(self):
            return nullcontext()

    def fail(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    print_note.cache_clear()
    monkeypatch.setattr(CapturedIteration, "_capture", fail)
    iteration = Counting()
    captured = CapturedIteration(iteration, required)
    for _ in range(3):
        captured(torch.arange(4))
    with pytest.raises(TrainingError, match="cannot be captured .* is capturing") if required else nullcontext():
        for _ in range(2):
            captured(torch.arange(4))
    assert iteration.calls == (3 if required else 5)
    # one line
    assert capfd.readouterr().err.count("note: training without a CUDA graph: operation") == (not required)
