"""A fold on two devices: two processes on the processor, over gloo."""

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

WORDS = ("trainer.max_epochs=2", "data.batch_size=9", "split=nested", "optim=sgd", "schedule=constant", "optim.lr=0.01")
VARIED = ("augment=strong", "augment.mixing.mixup=0", "augment.mixing.time_cutmix=0", "crops.seconds=0.4")


class Watch(pl.Callback):
    """Keeps batch norms as they are, and the gradients and clips of the first step, a file a rank."""

    def __init__(self, folder: Path):
        self.folder, self.clips = folder, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        for part in module.modules():
            if isinstance(part, _BatchNorm):
                part.eval()
        self.clips.append(batch[2].tolist())

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.global_step == 0:
            grads = {name: weight.grad.clone() for name, weight in module.named_parameters()}
            torch.save(grads, self.folder / f"rank{trainer.global_rank}.pt")

    def on_train_end(self, trainer, module):
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(self.clips))


def opened(root: Path, outputs: Path, *words: str):
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        run = open_run(compose("train", overrides(root, outputs, *WORDS, *VARIED, *words)))
    run.folder.mkdir(parents=True)
    return run


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_two_processes_train_and_score_as_one_does(tmp_path):
    """Thirteen clips train, validate and are scored, nine a batch: shares of five and four, and of two."""
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
        run = opened(root, tmp_path / f"outputs{devices}", f"trainer.devices={devices}")
        results.append(run_fold(run, 1, [Watch(folder)]))
        folders.append(run.folder / "fold1")
    one, two = results
    alone, together = (torch.load(tmp_path / f"watched{n}" / "rank0.pt", weights_only=True) for n in (1, 2))
    other = torch.load(tmp_path / "watched2" / "rank1.pt", weights_only=True)
    scale = max(float(gradient.abs().max()) for gradient in alone.values())
    for name, gradient in alone.items():
        torch.testing.assert_close(together[name], gradient, atol=1e-4 * scale, rtol=1e-3)
        assert torch.equal(together[name], other[name])
    clips = json.loads((tmp_path / "watched1" / "rank0.json").read_text())
    shares = [json.loads((tmp_path / "watched2" / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    for epoch in (0, 2):
        whole = sorted(clips[epoch] + clips[epoch + 1])
        assert sorted(clip for share in shares for clip in share[epoch] + share[epoch + 1]) == whole
    assert sorted(shares[0][0] + shares[1][0]) != sorted(shares[0][2] + shares[1][2])
    # metrics are of all clips, whoever scored them
    for name in ("accuracy", "f1", "loss", "val_accuracy"):
        assert getattr(two, name) == pytest.approx(getattr(one, name), abs=1e-3), name
    assert two.confusion == one.confusion
    assert two.n == 13
    assert two.environment["devices"] == 2
    for ours, theirs in zip(rows(folders[1] / "metrics.csv"), rows(folders[0] / "metrics.csv"), strict=True):
        assert float(ours["train/loss"]) == pytest.approx(float(theirs["train/loss"]), abs=1e-3)
        assert ours["train/accuracy"] == theirs["train/accuracy"]
    # one set of files, the same as one process writes, in the same order
    names = [sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) for folder in folders]
    assert names[0] == names[1]
    ours, theirs = (rows(folder / "predictions.csv") for folder in folders)
    assert [row["filename"] for row in ours] == [row["filename"] for row in theirs]
    assert float(ours[0]["logit_tone"]) == pytest.approx(float(theirs[0]["logit_tone"]), abs=1e-3)


def test_the_gradient_of_parts_is_that_of_the_batch(tmp_path):
    root = render(tmp_path / "tiny")
    gradients = []
    for parts in (1, 2):
        folder = tmp_path / f"watched{parts}"
        folder.mkdir()
        words = ("split=benchmark", f"trainer.micro_batches={parts}")
        run_fold(opened(root, tmp_path / f"outputs{parts}", *words), 1, [Watch(folder)])
        gradients.append(torch.load(folder / "rank0.pt", weights_only=True))
    scale = max(float(gradient.abs().max()) for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-4 * scale, rtol=1e-3)


class End(pl.Callback):
    """Ends the second rank's process in its first step: with an exception, or killed."""

    def __init__(self, error: Exception | None):
        self.error = error

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_rank == 1 and self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if trainer.global_rank == 1:
            raise self.error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "raised", "told"),
    [
        (None, TrainingError, "rank 1 with -9, as where"),
        (TrainingError("it cannot go on"), TrainingError, "^it cannot go on$"),
        (OSError(errno.ENOSPC, "No space", "last.ckpt"), OSError, "No space: 'last.ckpt'"),
        (ValueError("of a library"), RuntimeError, "rank 1:\nTraceback(.|\n)*of a library"),
    ],
    ids=["killed", "ours", "disk", "theirs"],
)
def test_what_ends_one_process_ends_the_fold(tmp_path, error, raised, told):
    run = opened(render(tmp_path / "tiny"), tmp_path / "outputs", "trainer.devices=2")
    with pytest.raises(raised, match=told):
        run_fold(run, 1, [End(error)])
    assert not multiprocessing.active_children()
    assert not (run.folder / "fold1" / "result.json").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("trainer.devices=3", "data.batch_size=11"), "at least 12"),
        (("trainer.devices=2", "trainer.micro_batches=2", "data.batch_size=8"), "at least 16"),
        (("trainer.devices=0",), "trainer.devices=0 must be at least 1"),
        (("trainer.devices=2", "trainer.accelerator=mps"), "one such device"),
    ],
)
def test_what_cannot_be_shared_is_refused(tmp_path, words, told):
    with pytest.raises(InputError, match=told):
        opened(tmp_path, tmp_path / "outputs", *words)


def test_one_of_several_processes_that_others_started_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="torchrun"):
        opened(tmp_path, tmp_path / "outputs")


def test_shares_are_every_nth_clip():
    clips = list(range(11))
    shares = [BatchShard(rank, 2, 3) for rank in range(2)]
    parts = [clips[part] for share in shares for part in share.slices]
    assert sorted(clip for part in parts for clip in part) == clips
    assert {len(part) for part in parts} == {1, 2}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_processes_end_with_the_one_that_began_them_and_the_same_command_goes_on(tmp_path, number, code):
    root = render(tmp_path / "tiny")
    words = overrides(root, tmp_path / "outputs", "trainer.devices=2", "data.batch_size=16", "report.page=none")
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *words, "fold=1", "trainer.max_epochs=3000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as begun:
        awaited(lambda: [*tmp_path.glob("outputs/*/fold1/checkpoints/last.ckpt")])
        members = children(begun.pid)
        assert len(members) >= 2
        begun.send_signal(number)
        assert begun.wait(60) == code
    awaited(lambda: not [member for member in members if Path(f"/proc/{member}").exists()])
    (folder,) = (tmp_path / "outputs").glob("*/fold1")
    epochs = len(rows(folder / "metrics.csv"))
    assert not [*folder.rglob("*.part")] or number == signal.SIGKILL
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as begun:
        awaited(lambda: len(rows(folder / "metrics.csv")) > epochs + 3)
        begun.send_signal(signal.SIGTERM)
    assert [row["epoch"] for row in rows(folder / "metrics.csv")][: epochs + 3] == [*map(str, range(epochs + 3))]


def awaited(there: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not there():
        assert time.monotonic() < end
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """Processes that it began and those of them, from Linux's process table."""
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [grandchild for child in found for grandchild in children(child)]
