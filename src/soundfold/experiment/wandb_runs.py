"""W&B: a run per fold, one per cross-validation, grouped; offline unless asked otherwise. Imported only when used."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from soundfold.config import NOT_IDENTITY, Wandb
from soundfold.errors import InputError
from soundfold.io.atomic import write_text
from soundfold.validation import is_wandb_trial

# what `wandb agent` tells the program that it starts; with these every run takes the trial's id
TRIAL = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")


def wandb_mode(options: Wandb) -> str:
    """``WANDB_MODE`` before any option; a sweep is online, where its other trials are."""
    return os.environ.get("WANDB_MODE") or ("online" if is_wandb_trial() else options.mode)


def sweep_columns() -> dict[str, Any]:
    """The overrides of a job under ``-m`` as columns, such as ``sweep/optim.lr``; empty for a run of its own.

    What does not change the numbers, such as paths, is left out.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return {}
    found = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    values = {(override.key_or_group or "").split("@")[0]: override.value() for override in found}
    apart = tuple(f"{key}." for key in NOT_IDENTITY)
    return {f"sweep/{key}": value for key, value in values.items() if not f"{key}.".startswith(apart)}


@contextmanager
def fold_logger(
    options: Wandb, folder: Path, cv_id: str, config: dict[str, Any], *, leaky: bool, fresh: bool
) -> Iterator[WandbLogger]:
    """A logger of one fold's run, closed whatever happens, and marked failed after an exception.

    A fold that is resumed goes on in its own run. W&B cannot go on with a run that is kept offline: there the earlier
    epochs are logged again, see `MetricsCsv`, and the new files take the place of the old.

    Args:
        options: project, entity, mode, tags, notes; with ``artifact`` the weights that the fold keeps are uploaded.
        folder: the fold's folder, in that of the cross-validation; the run's files lie in its ``wandb/``.
        cv_id: of the cross-validation.
        config: plain values that W&B shows and compares.
        leaky: tag the run, and say so in its summary.
        fresh: begin another run where there is one.

    Raises:
        InputError: W&B cannot open the run.
    """
    with _session(options, folder.parent, leaky, trial=False) as common:
        logger = WandbLogger(
            **common,
            job_type="fold",
            name=folder.name,
            id=_run_id(folder, cv_id, fresh),
            save_dir=folder,
            config={**config, **sweep_columns()},
        )
        failed = 1
        old: list[Path] = []
        try:
            run = logger.experiment
            if isinstance(run, wandb.Run):  # on other ranks it is a stand-in
                run.summary["leaky"] = leaky
            yield logger
            weights = folder / "checkpoints" / "weights.pt"
            if options.artifact and weights.is_file():
                artifact = wandb.Artifact(f"{cv_id}-{folder.name}", type="model")
                # immutable: else W&B keeps a copy of its own until it is uploaded
                artifact.add_file(str(weights), policy="immutable")
                run.log_artifact(artifact)
            failed = 0
        finally:
            if wandb.run is not None and not wandb.run.resumed and wandb.run.step:
                old = _earlier(wandb.run, folder)
            # Lightning's logger takes over a run that is still open: the next fold must find none
            wandb.finish(exit_code=failed)
    _remove(old)


@contextmanager
def cv_run(options: Wandb, folder: Path, cv_id: str, config: dict[str, Any], *, leaky: bool) -> Iterator[wandb.Run]:
    """The open run of a whole cross-validation: that of the trial under W&B's agent, else ``cv-<id>``.

    It is closed whatever happens, marked failed after an exception. As it is logged whole each time, it takes the place
    of what was kept of it offline before.

    Args:
        folder: of the cross-validation; the rest as in `fold_logger`.

    Raises:
        InputError: W&B cannot open the run.
    """
    with _session(options, folder, leaky, trial=True) as common:
        # not as a context of its own, which would print the traceback of what is told elsewhere
        run = wandb.init(
            **common,
            job_type="cv",
            name=f"{folder.name} cv",
            id=None if is_wandb_trial() else f"cv-{cv_id}",
            resume="allow",
            dir=folder,
            config={**config, **sweep_columns()},
        )
        failed = 1
        try:
            yield run
            old = _earlier(run, folder)
            failed = 0
        finally:
            run.finish(exit_code=failed)
    _remove(old)


@contextmanager
def _session(options: Wandb, folder: Path, leaky: bool, *, trial: bool) -> Iterator[dict[str, Any]]:
    """W&B's surroundings for one run: gives what every run is opened with.

    W&B reads its environment once, when a session begins, so that here a session ends with its run; its service, which
    writes the last records, ends with it.

    Args:
        folder: of the cross-validation.
        trial: the run may be that of a trial.
    """
    before = _environment()
    agent = is_wandb_trial()
    # W&B looks in the environment before any option reaches it
    os.environ["WANDB_MODE"] = mode = wandb_mode(options)
    # else W&B writes to the home folder
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder.resolve() / ".wandb-cache"))
    os.environ.setdefault("WANDB_DATA_DIR", str(folder.resolve() / ".wandb-cache"))
    os.environ.setdefault("WANDB_SILENT", "true")
    # with these W&B's service writes the user's key into its logs beside the run
    for name in ("WANDB_DEBUG", "WANDB_CORE_DEBUG"):
        os.environ.pop(name, None)
    if not trial:
        for name in TRIAL:
            os.environ.pop(name, None)
    try:
        yield {
            # folds stay with their sweep
            "project": (agent and before.get("WANDB_PROJECT")) or options.project,
            "entity": (agent and before.get("WANDB_ENTITY")) or options.entity,
            "group": folder.name,
            "tags": [*options.tags, *(["leaky"] if leaky else [])],
            "notes": options.notes,
            "mode": mode,
        }
    except wandb.Error as error:
        raise InputError(
            f"W&B: {error} logger.wandb.mode=offline needs neither network nor account, and `wandb sync` uploads "
            "later; logger=csv does without W&B."
        ) from error
    finally:
        wandb.teardown()
        for name in _environment():
            del os.environ[name]
        os.environ.update(before)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}


@rank_zero_only
def _run_id(folder: Path, cv_id: str, fresh: bool) -> str:
    """The id of a fold's run, kept beside its files. A part is drawn: W&B never takes an id again, and a rerun of the
    fold is another run."""
    path = folder / "wandb" / "id"
    if fresh or not path.is_file():
        path.parent.mkdir(exist_ok=True)
        write_text(path, f"{folder.name}-{cv_id}-{secrets.token_hex(2)}")
    return path.read_text()


def _earlier(run: wandb.Run, folder: Path) -> list[Path]:
    """What was kept offline of a run before it was opened again."""
    own = Path(run.dir).parent
    return [path for path in folder.glob(f"wandb/offline-run-*-{run.id}") if path.resolve() != own.resolve()]


def _remove(folders: list[Path]) -> None:
    for path in folders:
        shutil.rmtree(path)
