"""Workloads of the training benchmarks: clips of noise, a fold trained by Lightning, the same step without it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import synchronize
from soundfold.config import compose_config
from soundfold.data.collection import Collection
from soundfold.data.leakage import NOTHING_SEEN
from soundfold.data.store import Waveforms
from soundfold.data.tables import ClipTable
from soundfold.experiment.processes import run_fold
from soundfold.experiment.setup import RunContext
from soundfold.models.classifier import Classifier

FOLDS = 5
# of every timed training: all callbacks, no saved weights and no page
OVERRIDES = (
    "logger=csv",
    "checkpoints.keep=none",
    "report.page=none",
    "rerun=true",
    "schedule.decay=constant",
    "trainer.enable_progress_bar=false",
    "trainer.precision=32-true",
)


def noise(clips: int, seconds: float, rate: int, classes: int) -> Collection:
    """Return a collection of noise: int16 (clips, seconds * rate), five folds, one source per clip."""
    rng = np.random.default_rng(0)
    samples = rng.integers(-3000, 3000, (clips, round(seconds * rate)), dtype=np.int16)
    names = tuple(f"{i}.wav" for i in range(clips))
    number = np.arange(clips)
    table = ClipTable(names, number % FOLDS + 1, number // FOLDS % classes, names, tuple(map(str, range(classes))))
    return Collection(table, Waveforms(samples, np.full(clips, samples.shape[1]), names, rate, "noise"))


@dataclass
class Clock(pl.Callback):
    """Records the start of each epoch of a fit, and its objects for a loop without Lightning.

    Attributes:
        device: synchronized before the clock is read.
        began: start of each epoch, s.
        peak_bytes: peak allocation of a CUDA device, including the waveforms; None on a CPU.
        model, data, optimizer, schedule, precision: of the finished fit.
    """

    device: torch.device
    began: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    model: Any = None
    data: Any = None
    optimizer: Any = None
    schedule: Any = None
    precision: str = ""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        synchronize(self.device)
        self.began.append(time.perf_counter())
        if self.device.type == "cuda" and len(self.began) == 1:
            torch.cuda.reset_peak_memory_stats(self.device)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.model, self.data = pl_module, trainer.datamodule  # type: ignore[attr-defined]
        self.optimizer, self.schedule = trainer.optimizers[0], trainer.lr_scheduler_configs[0].scheduler
        self.precision = str(trainer.precision)
        if self.device.type == "cuda":
            self.peak_bytes = torch.cuda.max_memory_allocated(self.device)

    def ready(self) -> Classifier:
        """Return the model in training mode; Lightning has moved it and the optimizer's state off a CUDA device."""
        model = self.model.to(self.device).train()
        # loading moves the state to the device of the parameters
        self.optimizer.load_state_dict(self.optimizer.state_dict())
        return model

    @property
    def epochs(self) -> list[float]:
        """Seconds of each epoch except the first, which warms up, and the last, whose end is not recorded."""
        return [float(step) for step in np.diff(self.began)[1:]]


def trained(collection: Collection, folder: Path, device: torch.device, epochs: int, *overrides: str) -> Clock:
    """Train fold 1 as scripts/train.py does, with Lightning and every callback.

    Args:
        collection: see `noise`.
        folder: of the run; existing files are overwritten.
        device: of the training.
        epochs: number of timed epochs.
        overrides: of the configuration.
    """
    waves = collection.waves
    cfg = compose_config(
        *OVERRIDES,
        f"data.seconds={waves.samples.shape[1] / waves.sample_rate}",
        f"data.sample_rate={waves.sample_rate}",
        f"trainer.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}",
        f"trainer.max_epochs={epochs + 2}",
        *overrides,
    )
    clock = Clock(device)
    run_fold(RunContext(cfg, collection, NOTHING_SEEN, "benchmark", folder), 1, [clock])
    return clock


def step_of(clock: Clock) -> Callable[[tuple], Tensor]:
    """Return the training step of a finished fit, on the same objects but without Lightning: a batch -> its loss."""
    model, data = clock.ready(), clock.data
    mixed = clock.precision == "bf16-mixed"

    def step(batch: tuple) -> Tensor:
        image, target, *_ = data.augment(*batch)
        with torch.autocast(clock.device.type, torch.bfloat16) if mixed else nullcontext():
            loss = model.loss(model.training_logits(image), target)
        clock.optimizer.zero_grad()
        loss.backward()
        clock.optimizer.step()
        clock.schedule.step()
        return loss

    return step


def bare_epochs(clock: Clock, epochs: int) -> list[float]:
    """Return the seconds of each epoch of a plain loop over the fit's batches, after one that warms up.

    The loss is summed on the device and read at the end of the epoch, as Lightning does.
    """
    step, seconds = step_of(clock), []
    for number in range(epochs + 1):
        synchronize(clock.device)
        started = time.perf_counter()
        batches = clock.data.train_dataloader()
        batches.set_epoch(number)
        total = torch.zeros((), device=clock.device)
        for batch in batches:
            total += step(batch).detach()
        float(total)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]
