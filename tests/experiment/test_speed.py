"""Faster settings compute the same numbers, and no training step waits for the device."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import soundfile
import torch
from benchmarks.workload import noise, step_of, trained
from helpers.tiny import cross_validate, overrides, render
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from soundfold.config import compose_config
from soundfold.data.datamodule import SoundDataModule
from soundfold.data.device_cache import DEVICE_CACHE, place_samples
from soundfold.data.leakage import NOTHING_SEEN
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.experiment import run as runs
from soundfold.experiment.callbacks.checkpoints import PeriodicCheckpoint
from soundfold.experiment.callbacks.progress import FoldProgress
from soundfold.experiment.device import _cpu_bfloat16
from soundfold.experiment.processes import run_fold
from soundfold.experiment.setup import RunContext
from soundfold.features.augment_params import ParamSampler
from soundfold.features.batch_transform import FULL_BATCH, BatchTransform
from soundfold.models.classifier import Classifier
from soundfold.models.resnet import ResNet18
from soundfold.report.reporter import RunReporter

STEPS = 50


# at three times the rate the loss falls within two steps, which amplifies rounding
LR = 0.003


def losses(channels_last: bool, bfloat16: bool, compile: str, steps: int = STEPS) -> torch.Tensor:
    """Return the losses, float32 (steps,), of a ResNet-18 that memorizes sixteen images of noise."""
    torch.manual_seed(0)
    network = ResNet18(4)
    image, target = torch.randn(16, 1, 32, 32), torch.arange(16) % 4
    model = Classifier(network, 4, partial(torch.optim.SGD, lr=LR), channels_last=channels_last, compile=compile)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9, fused=channels_last)
    history = []
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = functional.cross_entropy(model.training_logits(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.detach().float())
    return torch.stack(history)


@pytest.fixture(scope="module")
def plain() -> torch.Tensor:
    return losses(channels_last=False, bfloat16=False, compile="none")


@pytest.mark.slow
@pytest.mark.parametrize(("bfloat16", "tolerance"), [(False, 0.01), (True, 0.05)])
def test_channels_last_and_fused_losses_equal_the_plain_ones(plain, bfloat16, tolerance):
    fast = losses(channels_last=True, bfloat16=bfloat16, compile="none")
    assert plain[0] > 1.2
    assert plain[-1] < 0.1
    assert (fast - plain).abs().max() < tolerance


@pytest.mark.parametrize(("algorithm", "size"), [(None, torch.linalg.vector_norm), ("value", torch.max)])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_of_a_fused_optimizer_are_clipped(precision, algorithm, size):
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), 4, partial(torch.optim.SGD, lr=LR))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    options = {"gradient_clip_val": 0.5, "gradient_clip_algorithm": algorithm, "accelerator": "cpu", **quiet}
    model.trainer = trainer = pl.Trainer(precision=precision, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, fused=True)
    for gradient, is_clipped in ((3.0, True), (1e-3, False)):
        for weight in model.parameters():
            weight.grad = torch.full_like(weight, gradient)
        model.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        values = torch.cat([weight.grad.flatten() for weight in model.parameters()])
        expected = 0.5 if is_clipped else float(size(torch.full((68,), gradient)))
        assert float(size(values)) == pytest.approx(expected, rel=1e-3)


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler, g++")


@needs_compiler
@pytest.mark.slow
def test_compiled_losses_equal_the_plain_ones(plain):
    fast = losses(channels_last=True, bfloat16=False, compile="default")
    assert (fast - plain).abs().max() < 0.01


class CountingBackend:
    """A backend for `torch.compile` that counts graphs and runs them uncompiled."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        self.graphs += 1
        return module.forward


@pytest.fixture
def backend() -> Iterator[CountingBackend]:
    torch.compiler.reset()
    yield CountingBackend()
    torch.compiler.reset()


def test_folds_share_compiled_graphs(backend):
    """The network of the next fold, and the smaller batch at the end of an epoch, compile nothing new."""
    graphs = []
    for _ in range(2):
        compiled = torch.compile(ResNet18(4), backend=backend)
        for size in (8, 3, 8, 5, 3):
            compiled(torch.randn(size, 1, 32, 32)).sum().backward()
            graphs.append(backend.graphs)
    # one graph for the first size, one for every other
    assert graphs[1:] == [graphs[1]] * 9


class ReadBacks(TorchDispatchMode):
    """Counts the operations that wait for the device, by phase of the run."""

    READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.phase, self.counts = "setup", Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.READS:
            self.counts[self.phase] += 1
        return func(*args, **(kwargs or {}))


class Phases(pl.Callback):
    """Sets the phase of `ReadBacks`."""

    def __init__(self, reads: ReadBacks) -> None:
        self.reads = reads

    def on_train_epoch_start(self, *_) -> None:
        # fetching the next batch and making its images belongs to the steps
        self.reads.phase = "steps"

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            self.reads.phase = "end of epoch"


class ReadingModel(Phases):
    """Reads the loss in every step, which the test must detect."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        float(outputs["loss"])
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


@pytest.mark.parametrize("watcher", [Phases, ReadingModel])
def test_no_step_reads_from_the_device(tmp_path, watcher, monkeypatch):
    """A fold with its progress bar reads from the device only at the end of an epoch; a read in a step is detected.

    Augmentation is off, because the CPU's front end reads the drawn parameters. For other devices see
    `test_a_step_of_the_model_reads_nothing`.
    """
    monkeypatch.setattr(FoldProgress, "SECONDS_BETWEEN_LINES", 0)
    options = ("trainer.max_epochs=3", "trainer.enable_progress_bar=true", "augment=none", "optim=sgd", "average=ema")
    cfg = compose_config(*overrides(tmp_path, tmp_path, *options, "fold=1"))
    reads = ReadBacks()
    with reads:
        run_fold(RunContext(cfg, noise(30, 0.5, 8000, 2), NOTHING_SEEN, "x", tmp_path), 1, [watcher(reads)])
    assert reads.counts["end of epoch"] > 0
    assert (reads.counts["steps"] > 0) == (watcher is ReadingModel)


def test_a_step_of_the_model_reads_nothing(tmp_path, monkeypatch):
    """Augmentation, mixing, network, loss and optimizer run on the meta device, where reading a value is an error."""
    cfg = compose_config(*overrides(tmp_path, tmp_path, "augment=strong"))
    data = SoundDataModule(noise(10, 0.5, 8000, 2), build.front_end(cfg), fold=1, mixing=build.mixing(cfg))
    data.setup()
    params = _to_meta(data._batch_transform.draw(ParamSampler(8, data.generator)))
    monkeypatch.setattr(data._batch_transform, "draw", lambda *_: params)
    data.front_end.to("meta")
    wave, target = torch.zeros(8, 4000, dtype=torch.int16, device="meta"), torch.zeros(8, dtype=torch.int64)
    batch = data.augment(wave, target.to("meta"), target.to("meta"), torch.zeros(0))
    model = Classifier(ResNet18(2).to("meta"), 2, torch.optim.AdamW, channels_last=True)
    logged = []
    monkeypatch.setattr(model, "log", lambda name, value, **_: logged.append((name, value.device.type)))
    loss = model.training_step(batch, 0)
    loss.backward()
    torch.optim.AdamW(model.parameters()).step()
    assert logged == [("train/loss", "meta"), ("train/accuracy", "meta")]
    with pytest.raises(RuntimeError, match="meta"):
        float(loss.detach())


def _to_meta(params):
    """Move drawn parameters, nested dataclasses, tuples and dicts of tensors, to the meta device."""
    if isinstance(params, tuple | list):
        return type(params)(map(_to_meta, params))
    if isinstance(params, dict):
        return {name: _to_meta(value) for name, value in params.items()}
    if not is_dataclass(params):
        return params if params is None else params.to("meta")
    return type(params)(*(_to_meta(getattr(params, field.name)) for field in fields(params)))


@pytest.mark.parametrize(
    ("options", "part", "shape"),
    [
        (("experiment=scratch",), FULL_BATCH, (1, 128, 401)),
        (("experiment=scratch",), slice(1, None, 2), (1, 128, 401)),
        (("features=seed_128x128", "augment=noise_stretch_pitch"), FULL_BATCH, (1, 128, 128)),
    ],
)
def test_training_images_compile_to_one_graph_that_folds_share(backend, options, part, shape):
    """On the meta device, so that no value is read: no step of an accelerator waits for it."""
    cfg, generator = compose_config(*options, "data.seconds=5.0"), torch.Generator().manual_seed(0)
    graphs = []
    for _ in range(3):
        transform = BatchTransform(build.front_end(cfg).to("meta"), 10, build.crops(cfg), build.mixing(cfg))
        make_images = torch.compile(transform, backend=backend, fullgraph=True)
        wave = torch.zeros(8, 5 * 44100, dtype=torch.int16, device="meta")
        target = torch.zeros(8, dtype=torch.int64, device="meta")
        image, soft_target = make_images(wave, target, _to_meta(transform.draw(ParamSampler(8, generator))), part)
        assert image.shape[1:] == shape
        assert len(soft_target) == len(image) == len(range(8)[part])
        graphs.append(backend.graphs)
    assert graphs == [graphs[0]] * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="requires a CUDA device")
def test_no_step_waits_for_a_cuda_device(tmp_path):
    collection = noise(40, 1.0, 8000, 4)
    features = ("features=logmel", "features.f_max=4000", "features.n_mels=32", "features.n_fft=512")
    options = (
        "augment=strong",
        "data.batch_size=8",
        "model.channels_last=true",
        "trainer.precision=bf16-mixed",
    )
    (tmp_path / "recordings").mkdir()
    soundfile.write(tmp_path / "recordings" / "decay.wav", 0.99 ** np.arange(8000), 8000)
    options += tuple(
        f"augment.{key}.folder={tmp_path / 'recordings'}" for key in ("background_noise", "impulse_response")
    )
    options += ("augment.band_pass.p=0.5", f"paths.cache={tmp_path / 'cache'}")
    clock = trained(collection, tmp_path, torch.device("cuda"), 0, *features, *options)
    step = step_of(clock)
    batches = list(clock.data.train_dataloader())
    for _ in range(3):
        step(batches[0])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_last_epoch_is_saved_and_earlier_ones_are_spaced(tmp_path):
    class Trainer:
        def __init__(self, epoch):
            self.current_epoch, self.max_epochs, self.max_steps, self.global_step = epoch, 5, -1, 0
            self.should_stop = False
            self.strategy = SimpleNamespace(broadcast=lambda value: value)

    saved = []
    spaced = PeriodicCheckpoint(tmp_path, "last", every_seconds=1000.0)
    each = PeriodicCheckpoint(tmp_path, "last", every_seconds=0.0)
    every_other = PeriodicCheckpoint(tmp_path, "last", every_seconds=0.0, every_epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        base = PeriodicCheckpoint.__mro__[1]
        patch.setattr(base, "on_train_epoch_end", lambda self, trainer, _: saved.append((self, trainer.current_epoch)))
        for checkpoint in (spaced, each, every_other):
            checkpoint.on_fit_start(Trainer(0), None)
            for epoch in range(5):
                checkpoint.on_train_epoch_end(Trainer(epoch), None)
    epochs = [[epoch for callback, epoch in saved if callback is own] for own in (spaced, each, every_other)]
    assert epochs == [[4], [0, 1, 2, 3, 4], [1, 3, 4]]


def test_folds_and_jobs_of_a_process_share_resident_waveforms():
    device, first, again, other = (
        torch.device("meta"),
        noise(10, 0.1, 8000, 2),
        noise(10, 0.1, 8000, 2),
        noise(9, 0.1, 8000, 2),
    )
    samples = place_samples(first.waves, device)
    assert DEVICE_CACHE.holds(again.waves, device)
    assert place_samples(again.waves, device, on_device=False) is samples
    assert not DEVICE_CACHE.holds(other.waves, device)
    assert place_samples(other.waves, device).shape == (9, 800)
    assert not DEVICE_CACHE.holds(first.waves, device)
    assert np.array_equal(place_samples(first.waves, torch.device("cpu")).numpy(), first.waves.samples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("trainer.precision=16-mixed", "trainer.gradient_clip_val=1.0"), r"optim\.fused=false"),
        (("trainer.cuda_graph=true",), "CUDA graphs require a CUDA device"),
        (("checkpoints.every_seconds=-1",), r"checkpoints\.every_seconds=-1.* must be at least 0"),
    ],
)
def test_incompatible_options_are_refused(tmp_path, options, message):
    root = render(tmp_path / "c")
    with pytest.raises(InputError, match=message):
        cross_validate(root, tmp_path / "out", *options)


@pytest.mark.skipif(not any(_cpu_bfloat16()), reason="needs a CPU with bfloat16 instructions; emulated: an hour")
@pytest.mark.slow
def test_bfloat16_is_as_accurate_as_float32(tmp_path):
    """Over three seeds of the synthetic collection, the means differ by less than two standard deviations, or 3 %."""
    accuracies = {}
    for precision in ("32-true", "bf16-mixed"):
        for seed in (0, 1, 2):
            outputs = tmp_path / f"{precision}-{seed}"
            paths = (
                f"paths.outputs={outputs}",
                f"paths.cache={tmp_path / 'cache'}",
                f"data.root={tmp_path / 'sounds'}",
            )
            options = ("experiment=demo", f"seed={seed}", f"trainer.precision={precision}", "report.page=none")
            options += ("trainer.accelerator=cpu", "fold=1", "model.channels_last=true")
            accuracies[precision, seed] = runs.cross_validate(compose_config(*options, *paths), RunReporter())
    float32, bfloat16 = ([accuracies[name, seed] for seed in (0, 1, 2)] for name in ("32-true", "bf16-mixed"))
    assert np.mean(float32) > 0.8
    assert abs(np.mean(bfloat16) - np.mean(float32)) <= max(2 * np.std(float32, ddof=1), 0.03)
