"""A fold on two devices: two processes on the CPU, connected by gloo."""

import csv
import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import soundfile
import torch
from helpers.tiny import ROOT, overrides, render
from hydra import compose, initialize_config_dir
from torch.nn.modules.batchnorm import _BatchNorm

from soundfold.config import register
from soundfold.data.loader import BatchShard
from soundfold.errors import InputError, TrainingError
from soundfold.experiment.processes import run_fold
from soundfold.experiment.setup import open_run

OPTIONS = (
    "trainer.max_epochs=2",
    "data.batch_size=9",
    "split=nested",
    "optim=sgd",
    "schedule=constant",
    "optim.lr=0.01",
)
AUGMENTED = ("augment=strong", "augment.mixing.mixup=0", "augment.mixing.time_cutmix=0", "crops.seconds=0.4")


class Watch(pl.Callback):
    """Freezes batch norms, and writes the first step's gradients and every step's clips to a file per rank."""

    def __init__(self, folder: Path):
        self.folder, self.clips = folder, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()
        self.clips.append(batch[2].tolist())

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.global_step == 0:
            grads = {name: weight.grad.clone() for name, weight in module.named_parameters()}
            torch.save(grads, self.folder / f"rank{trainer.global_rank}.pt")

    def on_train_end(self, trainer, module):
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(self.clips))


def open_tiny_run(root: Path, outputs: Path, *more: str):
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        run = open_run(compose("train", overrides(root, outputs, *OPTIONS, *AUGMENTED, *more)))
    run.folder.mkdir(parents=True)
    return run


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_two_processes_train_and_score_as_one_process_does(tmp_path):
    """Thirteen clips each to train, validate and test, in batches of nine: shards of five and four, and of two."""
    root = render(tmp_path / "tiny")
    table = (root / "meta" / "esc50.csv").read_text().splitlines()
    rng = np.random.default_rng(1)
    for number in range(9):
        soundfile.write(root / "audio" / f"more{number}.wav", rng.uniform(-0.3, 0.3, 4000), 8000)
        table.append(f"more{number}.wav,{number % 3 + 1},0,noise,more{number}")
    (root / "meta" / "esc50.csv").write_text("\n".join(table) + "\n")
    results, folders = [], []
    for devices in (1, 2):
        folder = tmp_path / f"watched{devices}"
        folder.mkdir()
        run = open_tiny_run(root, tmp_path / f"outputs{devices}", f"trainer.devices={devices}", "trainer.strategy=ddp")
        results.append(run_fold(run, 1, [Watch(folder)]))
        folders.append(run.folder / "fold1")
    single, double = results
    expected = torch.load(tmp_path / "watched1" / "rank0.pt", weights_only=True)
    rank0, rank1 = (torch.load(tmp_path / "watched2" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(rank0[name], gradient, atol=1e-4 * scale, rtol=1e-3)
        assert torch.equal(rank0[name], rank1[name])
    clips = json.loads((tmp_path / "watched1" / "rank0.json").read_text())
    shards = [json.loads((tmp_path / "watched2" / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    for step in (0, 2):  # the first step of each epoch
        epoch = sorted(clips[step] + clips[step + 1])
        assert sorted(clip for shard in shards for clip in shard[step] + shard[step + 1]) == epoch
    assert sorted(shards[0][0] + shards[1][0]) != sorted(shards[0][2] + shards[1][2])
    # metrics include the clips of both ranks
    for name in ("accuracy", "loss", "val_accuracy"):
        assert getattr(double, name) == pytest.approx(getattr(single, name), abs=1e-3), name
    assert double.metrics == pytest.approx(single.metrics, abs=1e-3)
    assert double.confusion == single.confusion
    assert double.n == 13
    assert double.environment["devices"] == 2
    for row, reference in zip(rows(folders[1] / "metrics.csv"), rows(folders[0] / "metrics.csv"), strict=True):
        assert float(row["train/loss"]) == pytest.approx(float(reference["train/loss"]), abs=1e-3)
        assert row["train/accuracy"] == reference["train/accuracy"]
    # the same set of files as one process writes, with clips in the same order
    names = [sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) for folder in folders]
    assert names[0] == names[1]
    reference, predictions = (rows(folder / "predictions.csv") for folder in folders)
    assert [row["filename"] for row in predictions] == [row["filename"] for row in reference]
    assert float(predictions[0]["logit_tone"]) == pytest.approx(float(reference[0]["logit_tone"]), abs=1e-3)


@pytest.mark.slow
def test_accumulated_parts_have_the_gradient_of_the_batch(tmp_path):
    """Twenty clips in three parts, of unequal sizes, and in four."""
    root = render(tmp_path / "tiny")
    gradients = []
    options = ("split=benchmark", "data.batch_size=20", "trainer.max_epochs=1")
    for n in (1, 3, 4):
        folder = tmp_path / f"watched{n}"
        folder.mkdir()
        run = open_tiny_run(root, tmp_path / f"outputs{n}", *options, f"trainer.accumulate_grad_batches={n}")
        run_fold(run, 1, [Watch(folder)])
        gradients.append(torch.load(folder / "rank0.pt", weights_only=True))
    scale = max(float(gradient.abs().max()) for gradient in gradients[0].values())
    for accumulated in gradients[1:]:
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(accumulated[name], gradient, atol=1e-4 * scale, rtol=1e-3)


class End(pl.Callback):
    """Ends rank 1 in its first step: with an exception, or by SIGKILL if the exception is None."""

    def __init__(self, error: Exception | None):
        self.error = error

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_rank == 1 and self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if trainer.global_rank == 1:
            raise self.error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (None, TrainingError, "rank 1 with exit code -9, probably killed because"),
        (TrainingError("it cannot go on"), TrainingError, "^it cannot go on$"),
        (OSError(errno.ENOSPC, "No space", "last.ckpt"), OSError, "No space: 'last.ckpt'"),
        (ValueError("of a library"), RuntimeError, "rank 1:\nTraceback(.|\n)*of a library"),
    ],
    ids=["killed", "explained", "disk", "unexpected"],
)
def test_a_failed_rank_ends_the_fold(tmp_path, error, raised, message):
    run = open_tiny_run(render(tmp_path / "tiny"), tmp_path / "outputs", "trainer.devices=2")
    with pytest.raises(raised, match=message):
        run_fold(run, 1, [End(error)])
    assert not multiprocessing.active_children()
    assert not (run.folder / "fold1" / "result.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("trainer.devices=3", "data.batch_size=11"), "at least 12"),
        (("trainer.devices=2", "trainer.accumulate_grad_batches=2", "data.batch_size=8"), "at least 16"),
        (("trainer.devices=0",), "trainer.devices=0 must be at least 1"),
        (("trainer.devices=2", "trainer.accelerator=mps"), "trainer.accelerator=mps has one device"),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        open_tiny_run(tmp_path, tmp_path / "outputs", *options)


def test_shards_divide_a_batch_evenly():
    clips = list(range(11))
    shards = [BatchShard(rank, 2, 3) for rank in range(2)]
    micro_batches = [clips[indices] for shard in shards for indices in shard.slices]
    assert sorted(clip for micro_batch in micro_batches for clip in micro_batch) == clips
    assert {len(micro_batch) for micro_batch in micro_batches} == {1, 2}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_ranks_end_with_their_parent_and_the_same_command_resumes(tmp_path, number, code):
    root = render(tmp_path / "tiny")
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "fold=1", "trainer.devices=2", "report.page=none"]
    command += overrides(root, tmp_path / "outputs", "data.batch_size=16", "trainer.max_epochs=3000")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: [*tmp_path.glob("outputs/*/fold1/checkpoints/last.ckpt")])
        ranks = descendants(process.pid)
        assert len(ranks) >= 2
        process.send_signal(number)
        assert process.wait(60) == code
    wait_until(lambda: not [rank for rank in ranks if Path(f"/proc/{rank}").exists()])
    (folder,) = (tmp_path / "outputs").glob("*/fold1")
    epochs = len(rows(folder / "metrics.csv"))
    assert not [*folder.rglob("*.part")] or number == signal.SIGKILL
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: len(rows(folder / "metrics.csv")) > epochs + 3)
        process.send_signal(signal.SIGTERM)
    assert [row["epoch"] for row in rows(folder / "metrics.csv")][: epochs + 3] == [*map(str, range(epochs + 3))]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def descendants(pid: int) -> list[int]:
    """Children of a process, their children and so on, from Linux's process table."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [descendant for child in children for descendant in descendants(child)]
