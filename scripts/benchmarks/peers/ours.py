"""soundfold's command with its defaults, or the overrides given; see `clock`."""

from __future__ import annotations

import sys
from typing import Any

from clock import Task

from soundfold.cli.train import main

SIZES = {"128x501": (), "128x128": ("features=seed_128x128",)}


def watch(task: Task) -> None:
    """Record steps as `Task.watch` does, but no trial step before the training, and also replays of a CUDA graph, which
    call no hook of the optimizer."""
    from lightning.pytorch import LightningModule

    optimize = LightningModule.optimizer_step

    def step(*args: Any, **options: Any) -> Any:
        # trains, with or without a graph
        output = optimize(*args, **options)
        task.step()
        return output

    LightningModule.optimizer_step = step  # type: ignore[method-assign]


task = Task("soundfold")
size = f"{task.bands}x{task.frames}"
sys.argv[1:] = [
    "data=esc50",
    "data.download=null",
    f"data.root={task.root}",
    f"data.batch_size={task.batch}",
    f"trainer.max_epochs={task.epochs}",
    f"trainer.accelerator={'gpu' if task.device == 'cuda' else 'cpu'}",
    f"paths.cache={task.scratch / 'cache'}",
    f"paths.outputs={task.scratch / 'outputs'}",
    "fold=1",
    "logger=csv",
    "rerun=true",
    "checkpoints.keep=none",
    "report.page=none",
    "trainer.enable_progress_bar=false",
    *SIZES.get(size, (f"features.n_mels={task.bands}", "features.hop=0.02")),
    *task.options,
]
watch(task)
main()
