"""What training benchmarks share: clips of noise, a fold trained as it always is, the same step without Lightning."""

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

from benchmarks.timing import synchronise
from soundfold.config import compose_config
from soundfold.data.collection import Collection
from soundfold.data.leakage import NOTHING_SEEN
from soundfold.data.store import Waveforms
from soundfold.data.tables import ClipTable
from soundfold.experiment.processes import run_fold
from soundfold.experiment.setup import RunContext
from soundfold.models.classifier import Classifier

FOLDS = 5
# of every training that is timed: the whole of its shell, and nothing to keep
WORDS = ("logger=csv", "checkpoints.keep=none", "report.page=none", "rerun=true", "schedule.decay=constant")


def noise(clips: int, seconds: float, rate: int, classes: int) -> Collection:
    """A collection of noise: int16 (clips, seconds * rate), five folds, every clip its own source."""
    rng = np.random.default_rng(0)
    samples = rng.integers(-3000, 3000, (clips, round(seconds * rate)), dtype=np.int16)
    names = tuple(f"{i}.wav" for i in range(clips))
    number = np.arange(clips)
    table = ClipTable(names, number % FOLDS + 1, number // FOLDS % classes, names, tuple(map(str, range(classes))))
    return Collection(table, Waveforms(samples, np.full(clips, samples.shape[1]), names, rate, "noise"))


@dataclass
class Clock(pl.Callback):
    """When each epoch of a fit began, and, kept for a loop without Lightning, what was trained.

    Attributes:
        began: seconds, one an epoch; the device is waited for, so that an epoch's time is that of its work.
        peak_bytes: the most that a CUDA device held, the waveforms included; None elsewhere.
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
        synchronise(self.device)
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
        """The model, to be trained on: Lightning has taken it, and the optimiser's state, off a CUDA device."""
        model = self.model.to(self.device).train()
        # the state goes where its parameters are
        self.optimizer.load_state_dict(self.optimizer.state_dict())
        return model

    @property
    def epochs(self) -> list[float]:
        """Seconds of each epoch but the first, which warms up, and the last, whose end is the fit's."""
        return [float(step) for step in np.diff(self.began)[1:]]


def trained(collection: Collection, folder: Path, device: torch.device, epochs: int, *words: str) -> Clock:
    """Train fold 1 as `scripts/train.py` does, through Lightning with every callback; timed epochs are ``epochs``.

    Args:
        collection: see `noise`.
        folder: of the run; what is in it is overwritten.
        epochs: how many are timed.
        words: of the configuration.
    """
    waves = collection.waves
    cfg = compose_config(
        *WORDS,
        f"data.seconds={waves.samples.shape[1] / waves.sample_rate}",
        f"data.sample_rate={waves.sample_rate}",
        f"trainer.accelerator={'gpu' if device.type == 'cuda' else 'cpu'}",
        f"trainer.max_epochs={epochs + 2}",
        *words,
    )
    clock = Clock(device)
    run_fold(RunContext(cfg, collection, NOTHING_SEEN, "benchmark", folder), 1, [clock])
    return clock


def step_of(clock: Clock) -> Callable[[tuple], Tensor]:
    """The training step of a finished fit, on the very same objects, without Lightning: a batch -> its loss."""
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
    """Seconds of each of some epochs in a plain loop over the fit's own batches, after one that warms up.

    The loss is summed on the device and read at the epoch's end, as Lightning's is.
    """
    step, seconds = step_of(clock), []
    for number in range(epochs + 1):
        synchronise(clock.device)
        started = time.perf_counter()
        batches = clock.data.train_dataloader()
        batches.set_epoch(number)
        total = torch.zeros((), device=clock.device)
        for batch in batches:
            total += step(batch).detach()
        float(total)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]
