"""The W&B run of one fold."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger

from soundfold.config import Wandb
from soundfold.experiment.wandb_runs.session import open_wandb_run
from soundfold.io.atomic import write_text


@contextmanager
def fold_logger(
    options: Wandb, folder: Path, cv_id: str, config: dict[str, Any], *, leaky: bool, fresh: bool
) -> Iterator[WandbLogger]:
    """Open the W&B run of a fold as a Lightning logger. A resumed fold continues its run, see `open_wandb_run`.

    Args:
        options: with ``artifact``, the fold's ``weights.pt`` is uploaded.
        folder: of the fold, inside that of the cross-validation; the run's files are stored in its ``wandb/``.
        cv_id: of the cross-validation.
        fresh: open a new run even if the fold has one.

    Raises:
        InputError: W&B cannot open the run.
    """
    init: dict[str, Any] = {"job_type": "fold", "name": folder.name, "id": _run_id(folder, cv_id, fresh), "dir": folder}
    with open_wandb_run(options, folder.parent, config, leaky=leaky, is_cv=False, **init) as run:
        # `WandbLogger` defines these for runs that it opens itself
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        run.summary["leaky"] = leaky
        yield WandbLogger(experiment=run, save_dir=folder)
        weights = folder / "checkpoints" / "weights.pt"
        if options.artifact and weights.is_file():
            artifact = wandb.Artifact(f"{cv_id}-{folder.name}", type="model")
            # immutable: W&B uploads this file instead of a copy
            artifact.add_file(str(weights), policy="immutable")
            run.log_artifact(artifact)


def _run_id(folder: Path, cv_id: str, fresh: bool) -> str:
    """Return the id of the fold's run, stored beside its files; random in part, as W&B never accepts an id again."""
    path = folder / "wandb" / "id"
    if fresh or not path.is_file():
        path.parent.mkdir(exist_ok=True)
        write_text(path, f"{folder.name}-{cv_id}-{secrets.token_hex(2)}")
    return path.read_text()
