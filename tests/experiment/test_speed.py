"""The fast path gives the plain path's numbers, and no step reads from the device."""

import shutil
from collections import Counter
from dataclasses import fields, is_dataclass
from functools import partial
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from benchmarks.workload import noise, step_of, trained
from helpers.tiny import cross_validate, overrides, render
from torch._dynamo.testing import CompileCounter
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from soundfold.config import compose_config
from soundfold.data.datamodule import SoundDataModule
from soundfold.data.device_cache import DEVICE_CACHE, place_samples
from soundfold.data.leakage import NOTHING_SEEN
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.experiment.callbacks import PeriodicCheckpoint, ThrottledProgressBar
from soundfold.experiment.processes import run_fold
from soundfold.experiment.setup import RunContext
from soundfold.features.batch_transform import FULL_BATCH, BatchTransform
from soundfold.models.classifier import Classifier
from soundfold.models.resnet import single_channel_resnet18

STEPS = 50


# three times as fast, it is learnt within two steps, whose slope shows a rounding enlarged
LR = 0.003


def losses(channels_last: bool, bfloat16: bool, compile: str, steps: int = STEPS) -> torch.Tensor:
    """Of a ResNet-18 that learns sixteen images of noise by heart: float32 (steps,)."""
    torch.manual_seed(0)
    network = single_channel_resnet18(4)
    image, target = torch.randn(16, 1, 32, 32), torch.arange(16) % 4
    model = Classifier(network, 4, partial(torch.optim.SGD, lr=LR), channels_last=channels_last, compile=compile)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9, fused=channels_last)
    out = []
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = functional.cross_entropy(model.training_logits(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out.append(loss.detach().float())
    return torch.stack(out)


@pytest.fixture(scope="module")
def plain() -> torch.Tensor:
    return losses(channels_last=False, bfloat16=False, compile="none")


@pytest.mark.parametrize(("bfloat16", "tolerance"), [(False, 0.01), (True, 0.05)])
def test_fast_losses_are_the_plain_ones(plain, bfloat16, tolerance):
    """Over fifty steps, channels-last and fused: within 0.01 in float32, and within 0.05 in bfloat16."""
    fast = losses(channels_last=True, bfloat16=bfloat16, compile="none")
    assert plain[0] > 1.2
    assert plain[-1] < 0.1
    assert (fast - plain).abs().max() < tolerance


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler, g++")


@needs_compiler
@pytest.mark.slow
def test_compiled_losses_are_the_plain_ones(plain):
    fast = losses(channels_last=True, bfloat16=False, compile="default")
    assert (fast - plain).abs().max() < 0.01


def test_folds_share_what_was_compiled():
    """Another fold's network, and the smaller batch at an epoch's end, twice over: two graphs in all."""
    counter = CompileCounter()
    torch._dynamo.reset()
    for _ in range(2):
        network = single_channel_resnet18(4)
        run = torch.compile(network, backend=counter)
        for size in (8, 3, 8, 5, 3):
            run(torch.randn(size, 1, 32, 32)).sum().backward()
    torch._dynamo.reset()
    assert counter.frame_count == 2


class ReadBacks(TorchDispatchMode):
    """Counts what a device would have to be waited for, by the part of the run that did it."""

    READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.part, self.found = "set-up", Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.READS:
            self.found[self.part] += 1
        return func(*args, **(kwargs or {}))


class Parts(pl.Callback):
    def __init__(self, reads: ReadBacks) -> None:
        self.reads = reads

    def on_train_epoch_start(self, *_) -> None:
        # the next batch is fetched, and its images are made, within the steps
        self.reads.part = "steps"

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            self.reads.part = "epoch's end"


class ReadingModel(Parts):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        float(outputs["loss"])
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


@pytest.mark.parametrize("watcher", [Parts, ReadingModel])
def test_no_step_reads_from_the_device(tmp_path, watcher, monkeypatch):
    """A whole fold with its progress bar: every read lies at an epoch's end; one that is put into a step is found.

    Without augmentation, as a CPU's front end reads what was drawn; that a device's does not, the meta device shows.
    """
    monkeypatch.setattr(ThrottledProgressBar, "SECONDS_BETWEEN", 0)
    words = ("trainer.max_epochs=3", "trainer.enable_progress_bar=true", "augment=none", "optim=sgd", "fold=1")
    words += ("average=ema",)
    cfg = compose_config(*overrides(tmp_path, tmp_path, *words))
    reads = ReadBacks()
    with reads:
        run_fold(RunContext(cfg, noise(30, 0.5, 8000, 2), NOTHING_SEEN, "x", tmp_path), 1, [watcher(reads)])
    assert reads.found["epoch's end"] > 0
    assert (reads.found["steps"] > 0) == (watcher is ReadingModel)


def test_a_step_of_the_model_reads_nothing(tmp_path, monkeypatch):
    """On the meta device a tensor has no values: reading one is an error. Drawing, mixing, network, loss, optimiser."""
    cfg = compose_config(*overrides(tmp_path, tmp_path, "augment=strong"))
    data = SoundDataModule(noise(10, 0.5, 8000, 2), build.front_end(cfg), fold=1, mixing=build.mixing(cfg))
    data.setup()
    drawn = _meta(data._batch_transform.draw(8, data._generator))
    monkeypatch.setattr(data._batch_transform, "draw", lambda *_: drawn)
    data.front_end.to("meta")
    wave, target = torch.zeros(8, 4000, dtype=torch.int16, device="meta"), torch.zeros(8, dtype=torch.int64)
    batch = data.augment(wave, target.to("meta"), target.to("meta"))
    model = Classifier(single_channel_resnet18(2).to("meta"), 2, torch.optim.AdamW, channels_last=True)
    logged = []
    monkeypatch.setattr(model, "log", lambda name, value, **_: logged.append((name, value.device.type)))
    loss = model.training_step(batch, 0)
    loss.backward()
    torch.optim.AdamW(model.parameters()).step()
    assert logged == [("train/loss", "meta"), ("train/accuracy", "meta")]
    with pytest.raises(RuntimeError, match="meta"):
        float(loss.detach())


def _meta(drawn):
    """What was drawn, without values; a draw may be of others."""
    if not is_dataclass(drawn):
        return drawn if drawn is None else drawn.to("meta")
    return type(drawn)(*(_meta(getattr(drawn, f.name)) for f in fields(drawn)))


@pytest.mark.parametrize(
    ("words", "part", "shape"),
    [
        (("experiment=scratch",), FULL_BATCH, (1, 128, 401)),
        (("experiment=scratch",), slice(1, None, 2), (1, 128, 401)),
        (("features=seed_128x128", "augment=noise_stretch_pitch"), FULL_BATCH, (1, 128, 128)),
    ],
)
def test_training_images_compile_in_one_piece_and_once(words, part, shape):
    """As on an accelerator, of which no value is read: no step would wait for it, and no fold is compiled anew."""
    cfg, counter, generator = (
        compose_config(*words, "data.seconds=5.0"),
        CompileCounter(),
        torch.Generator().manual_seed(0),
    )
    torch._dynamo.reset()
    for _ in range(3):
        variation = BatchTransform(build.front_end(cfg).to("meta"), 10, build.crops(cfg), build.mixing(cfg))
        make = torch.compile(variation, backend=counter, fullgraph=True)
        wave = torch.zeros(8, 5 * 44100, dtype=torch.int16, device="meta")
        target = torch.zeros(8, dtype=torch.int64, device="meta")
        image, soft = make(wave, target, _meta(variation.draw(8, generator)), part)
        assert image.shape[1:] == shape
        assert len(soft) == len(image) == len(range(8)[part])
    torch._dynamo.reset()
    assert counter.frame_count == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compile", ["none", "graphs"])
def test_no_step_waits_for_a_cuda_device(tmp_path, compile):
    collection = noise(40, 1.0, 8000, 4)
    words = ("augment=strong", "features=logmel", "features.f_max=4000", "features.n_mels=32", "features.n_fft=512")
    options = (f"model.compile={compile}", "model.channels_last=true", "trainer.precision=bf16-mixed")
    clock = trained(collection, tmp_path, torch.device("cuda"), 0, "data.batch_size=8", *words, *options)
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


def test_a_last_epoch_is_kept_and_others_are_spaced(tmp_path):
    class Fit:
        def __init__(self, epoch):
            self.current_epoch, self.max_epochs, self.max_steps, self.global_step = epoch, 5, -1, 0
            self.should_stop = False
            self.strategy = SimpleNamespace(broadcast=lambda due: due)

    taken = []
    spaced = PeriodicCheckpoint(tmp_path, "last", every_seconds=1000.0)
    each = PeriodicCheckpoint(tmp_path, "last", every_seconds=0.0)
    every_other = PeriodicCheckpoint(tmp_path, "last", every_seconds=0.0, every_epochs=2)
    with pytest.MonkeyPatch.context() as patch:
        base = PeriodicCheckpoint.__mro__[1]
        patch.setattr(base, "on_train_epoch_end", lambda self, fit, _: taken.append((self, fit.current_epoch)))
        for checkpoint in (spaced, each, every_other):
            checkpoint.on_fit_start(None, None)
            for epoch in range(5):
                checkpoint.on_train_epoch_end(Fit(epoch), None)
    epochs = {one: [epoch for other, epoch in taken if other is one] for one in (spaced, each, every_other)}
    assert list(epochs.values()) == [[4], [0, 1, 2, 3, 4], [1, 3, 4]]


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
    ("words", "message"),
    [
        (("trainer.precision=bf16-mixed", "trainer.gradient_clip_val=1.0"), r"optim\.fused=false"),
        (("model.compile=graphs",), "CUDA graphs need a CUDA device"),
        (("model.compile=graphs", "trainer.micro_batches=2"), r"graphs requires trainer\.micro_batches=1 \(not 2\)"),
        (("checkpoints.every_seconds=-1",), r"checkpoints\.every_seconds=-1.* must be at least 0"),
    ],
)
def test_switches_that_do_not_go_together_are_refused(tmp_path, words, message):
    root = render(tmp_path / "c")
    with pytest.raises(InputError, match=message):
        cross_validate(root, tmp_path / "out", *words)


@pytest.mark.slow
def test_accuracy_is_that_of_the_plain_path(tmp_path):
    """Over three seeds of the synthetic collection, bfloat16 and float32 differ by less than seeds do, or 3 %."""
    import json

    means = {}
    for precision in ("32-true", "bf16-mixed"):
        scores = []
        for seed in (0, 1, 2):
            out = tmp_path / f"{precision}-{seed}"
            from soundfold.experiment.run import cross_validate as validate

            words = ("experiment=demo", f"seed={seed}", f"trainer.precision={precision}", "report.page=none")
            places = (f"paths.outputs={out}", f"paths.cache={tmp_path / 'cache'}", f"data.root={tmp_path / 'sounds'}")
            cfg = compose_config(*words, *places, "trainer.accelerator=cpu", "fold=1", "model.channels_last=true")
            validate(cfg)
            (result,) = out.glob("*/fold1/result.json")
            scores.append(json.loads(result.read_text())["accuracy"])
        means[precision] = (np.mean(scores), np.std(scores, ddof=1))
    (plain, spread), (fast, _) = means["32-true"], means["bf16-mixed"]
    assert plain > 0.8
    assert abs(fast - plain) <= max(2 * spread, 0.03)
