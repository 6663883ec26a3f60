"""W&B: a run per fold, one per cross-validation, grouped; offline unless asked otherwise. Imported only when used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger

from soundfold.config import Wandb
from soundfold.experiment.results import CVResult
from soundfold.files import write_whole


def _settle(mode: str, folder: Path) -> str:
    """The mode, WANDB_MODE first; the same in the environment, where W&B looks before any option reaches it."""
    mode = os.environ.setdefault("WANDB_MODE", mode)
    # else W&B writes to the home folder
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder.resolve() / ".wandb-cache"))
    os.environ.setdefault("WANDB_DATA_DIR", str(folder.resolve() / ".wandb-cache"))
    os.environ.setdefault("WANDB_SILENT", "true")
    return mode


@contextmanager
def fold_logger(
    options: Wandb, folder: Path, group: str, name: str, config: dict[str, Any], leaky: bool
) -> Iterator[WandbLogger]:
    """A logger of one fold's run, closed whatever happens, and marked failed after an exception.

    Args:
        options: project, entity and mode.
        folder: the fold's folder; the run's files lie in its ``wandb/``.
        group: the cross-validation, ``<name>-<id>``.
        name: of the run, such as ``fold3``.
        config: plain values that W&B shows and compares.
        leaky: tag the run, and say so in its summary.
    """
    mode = _settle(options.mode, folder.parent)
    logger = WandbLogger(
        project=options.project,
        entity=options.entity,
        group=group,
        job_type="fold",
        name=name,
        save_dir=folder,
        config=config,
        mode=mode,
        tags=["leaky"] if leaky else None,
    )
    failed = 1
    try:
        logger.experiment.summary["leaky"] = leaky
        yield logger
        failed = 0
    finally:
        # Lightning's logger takes over a run that is still open: the next fold must find none
        wandb.finish(exit_code=failed)


def log_cv(options: Wandb, folder: Path, group: str, result: CVResult, config: dict[str, Any]) -> None:
    """One run with the figures of the whole cross-validation; its id is the identity of the cross-validation.

    What was logged is kept as ``wandb/cv.json``: figures that are no others than those are not logged again.
    """
    mode = _settle(options.mode, folder)
    figures, logged = (folder / "cv.json").read_text(), folder / "wandb" / "cv.json"
    if mode == "disabled" or (logged.is_file() and logged.read_text() == figures):
        return
    with wandb.init(
        project=options.project,
        entity=options.entity,
        group=group,
        job_type="cv",
        name=f"{group} cv",
        id=f"cv-{result.cv_id}",
        resume="allow" if mode == "online" else None,
        dir=folder,
        config=config,
        tags=["leaky"] if result.leaky else None,
        mode=mode,  # type: ignore[arg-type]
    ) as run:
        for name in ("accuracy", "accuracy_sd", "f1", "f1_sd", "loss", "loss_sd", "n", "protocol", "leaky", "seconds"):
            run.summary[f"cv/{name}"] = getattr(result, name)
        if result.interval:
            run.summary["cv/accuracy_low"], run.summary["cv/accuracy_high"] = result.interval
        rows = [
            [true, predicted, count]
            for true, counts in zip(result.classes, result.confusion, strict=True)
            for predicted, count in zip(result.classes, counts, strict=True)
        ]
        run.log({"cv/confusion": wandb.Table(columns=["true", "predicted", "clips"], data=rows)})
    write_whole(logged, figures)
