"""The W&B run of one fold."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import wandb
from lightning.pytorch.loggers import WandbLogger

from soundfold.config import stored_values
from soundfold.experiment import build, environment
from soundfold.experiment.setup import RunContext
from soundfold.experiment.wandb_runs.session import open_wandb_run
from soundfold.io.atomic import write_text
from soundfold.validation import wandb_options


@contextmanager
def fold_logger(run: RunContext, folder: Path, fold: int | None) -> Iterator[WandbLogger]:
    """Open the W&B run of a fold as a Lightning logger; a resumed fold continues its run.

    With ``logger.wandb.artifact`` the fold's ``weights.pt`` is uploaded at the end.

    Args:
        run: see `open_run`.
        folder: of the fold; the W&B run's files are stored in its ``wandb/``.
        fold: number of the fold; None trains on every clip.

    Raises:
        InputError: W&B cannot open the run.
    """
    cfg, protocol = run.cfg, build.protocol(run.cfg)
    config: dict[str, Any] = stored_values(cfg)
    config |= {"fold": fold, "cv_id": run.cv_id, "protocol": protocol.name}
    config["commit"] = environment.describe(torch.device("cpu"))["commit"]
    run_id = _run_id(folder, run.cv_id, fresh=cfg.rerun or cfg.debug)
    init: dict[str, Any] = {"job_type": "fold", "name": f"{run.group} fold {fold or 'none'}", "id": run_id}
    init |= {"dir": folder, "command": environment.command()}
    options: Any = wandb_options(cfg.logger)
    with open_wandb_run(options, run.folder, config, leaky=protocol.leaky, is_cv=False, **init) as wandb_run:
        # as `WandbLogger` does for runs that it opens itself
        wandb_run.define_metric("trainer/global_step")
        wandb_run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        wandb_run.summary["leaky"] = protocol.leaky
        yield WandbLogger(experiment=wandb_run, save_dir=folder)
        weights = folder / "checkpoints" / "weights.pt"
        if options.artifact and weights.is_file():
            artifact = wandb.Artifact(f"{run.cv_id}-{folder.name}", type="model")
            # immutable: W&B uploads this file instead of a copy
            artifact.add_file(str(weights), policy="immutable")
            wandb_run.log_artifact(artifact)


def _run_id(folder: Path, cv_id: str, fresh: bool) -> str:
    """Return the id of the fold's run, stored beside its files; random in part, as W&B never accepts an id again."""
    path = folder / "wandb" / "id"
    if fresh or not path.is_file():
        path.parent.mkdir(exist_ok=True)
        write_text(path, f"{folder.name}-{cv_id}-{secrets.token_hex(2)}")
    return path.read_text()
