"""The run of a trial of a W&B sweep: it is open during the whole cross-validation, and shows the mean so far."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import wandb
import yaml

from soundfold.config import stored_values
from soundfold.evaluation.results import FoldResult
from soundfold.experiment import build, environment
from soundfold.experiment.setup import RunContext
from soundfold.experiment.wandb_runs.session import first_step, open_wandb_run
from soundfold.io.signals import Stopped
from soundfold.validation import wandb_options

# the sweep's metric, and the number of folds that it is the mean of
OBJECTIVE, FOLDS = "cv/objective", "cv/folds"


@contextmanager
def open_trial(run: RunContext) -> Iterator[Callable[[list[FoldResult]], None]]:
    """Open the W&B run that W&B's agent has assigned to this process.

    It has a row of history for every fold: the mean objective of the folds so far, by which hyperband compares trials
    of the same number of folds. W&B stops a trial by SIGTERM: the trial ends without an error, with the mean of its
    finished folds, so that the agent does not take it for a failure. After Ctrl-C the run is marked as preempted, and
    the sweep assigns it again; its finished folds are reused.

    Yields:
        A function to call after every fold, with the results so far.

    Raises:
        Stopped: with exit code 0, after SIGTERM.
    """
    options: Any = wandb_options(run.cfg.logger)
    config: dict[str, Any] = {**stored_values(run.cfg), "cv_id": run.cv_id, "protocol": run.cfg.split.protocol}
    init: dict[str, Any] = {"job_type": "search", "name": f"{run.group} trial", "dir": run.folder}
    init |= {"id": os.environ.get("WANDB_RUN_ID"), "command": environment.command()}
    settings: Any = {"sweep_id": os.environ["WANDB_SWEEP_ID"], "stop_fn": _stop}
    leaky = build.protocol(run.cfg).leaky
    with open_wandb_run(
        options, run.folder, config | _drawn(), leaky=leaky, settings=wandb.Settings(**settings), **init
    ) as wandb_run:
        wandb_run.define_metric(FOLDS)
        wandb_run.define_metric(OBJECTIVE, step_metric=FOLDS)

        first = first_step(wandb_run)

        def log(results: list[FoldResult]) -> None:
            # a trial that is assigned again has the rows of its finished folds
            if len(results) >= first:
                mean = float(np.mean([result.objective for result in results]))
                wandb_run.log({OBJECTIVE: mean, FOLDS: len(results)}, step=len(results), commit=True)

        try:
            yield log
        except Stopped as stop:
            if stop.code == 128 + signal.SIGTERM:
                wandb_run.summary["cv/stopped"] = True
                raise Stopped(0) from None
            wandb_run.mark_preempting()
            raise


def _drawn() -> dict[str, Any]:
    """Return the settings that the sweep has drawn, under the names of its parameters, by which it reads them."""
    path = os.environ.get("WANDB_SWEEP_PARAM_PATH")
    if path is None or not Path(path).is_file():
        return {}
    entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return {name: entry["value"] for name, entry in entries.items() if isinstance(entry, dict)}


def _stop() -> None:
    """Stop the trial when somebody stops its run in W&B; W&B would send SIGINT."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGTERM)
