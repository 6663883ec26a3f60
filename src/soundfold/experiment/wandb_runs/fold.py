"""The W&B run of one fold."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from soundfold.config import stored_values
from soundfold.experiment import build, environment
from soundfold.experiment.model_bundle import WEIGHTS
from soundfold.experiment.setup import RunContext
from soundfold.experiment.wandb_runs.artifacts import describe_collection, log_model, use_collection
from soundfold.experiment.wandb_runs.session import first_step, open_wandb_run
from soundfold.io.atomic import write_text
from soundfold.validation import wandb_options

LAST = "train/loss"


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
    describe_collection(run, folder)
    with open_wandb_run(options, run.folder, config, leaky=protocol.leaky, **init) as wandb_run:
        # as `WandbLogger` does for runs that it opens itself
        wandb_run.define_metric("trainer/global_step")
        wandb_run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        wandb_run.summary["leaky"] = protocol.leaky
        use_collection(wandb_run, folder)
        logger = FoldLogger(experiment=wandb_run, save_dir=folder)
        try:
            yield logger
        except BaseException:
            logger.send(only_complete=True)
            raise
        logger.send()
        weights = folder / WEIGHTS
        if options.artifact and weights.is_file():
            log_model(wandb_run, f"{run.cv_id}-{folder.name}", weights)


class FoldLogger(WandbLogger):
    """Logs one row of history per step, as a whole, and only rows that W&B's server does not have.

    A resumed fold logs its history again. The row of a step is identified by W&B's own step, so rows before
    `first_step` are left out. A row that was sent in parts could lack a part forever: its step would be taken.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._row: dict[str, float] = {}
        self._step, self._first = 0, first_step(self.experiment)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is not None and step != self._step:
            self.send()
            self._step = step
        self._row |= metrics

    def send(self, *, only_complete: bool = False) -> None:
        """Send the row of the current step.

        Args:
            only_complete: send it only if it has the training loss, which Lightning logs last in an epoch.
        """
        if self._row and self._step >= self._first and not (only_complete and LAST not in self._row):
            self.experiment.log({**self._row, "trainer/global_step": self._step}, step=self._step)
        self._row = {}


def _run_id(folder: Path, cv_id: str, fresh: bool) -> str:
    """Return the id of the fold's run, stored beside its files; random in part, as W&B never accepts an id again."""
    path = folder / "wandb" / "id"
    if fresh or not path.is_file():
        path.parent.mkdir(exist_ok=True)
        write_text(path, f"{folder.name}-{cv_id}-{secrets.token_hex(2)}")
    return path.read_text()
