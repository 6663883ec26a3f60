"""Searches whose folds are scored by a formula instead of training. A module, so that other processes can import it."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from helpers.tiny import overrides
from soundfold.config import compose_config
from soundfold.evaluation.results import FoldResult
from soundfold.experiment import run as runs
from soundfold.experiment import search as searches
from soundfold.experiment.setup import RunContext
from soundfold.report.reporter import RunReporter

SEARCH_OVERRIDES = ("search=lr_wd", "trainer.max_epochs=1", "report.page=none", "checkpoints.keep=none")
scored: list[tuple[float, int]] = []  # (lr, fold)


def score(run: RunContext, fold: int) -> FoldResult:
    """Return a result that is best at a learning rate of 2e-3.

    With the label "faulty", learning rates below 1e-3 and seed 1 raise an error.
    """
    lr = float(run.cfg.optim.lr)
    scored.append((lr, fold))
    if run.cfg.label == "faulty" and (lr < 1e-3 or run.cfg.seed == 1):
        raise RuntimeError("cannot be trained")
    empty = dict.fromkeys(FoldResult.__dataclass_fields__)
    return FoldResult(**{**empty, "fold": fold, "folds": [1, 2, 3], "objective": -abs(lr - 2e-3) + fold / 1e3})


@contextmanager
def scored_by_formula(kill_at: tuple[int, int] | None = None, pause: float = 0.0) -> Iterator[None]:
    """Replace training by `score`.

    Args:
        kill_at: (n, fold) before which this process kills itself, in the n-th trial, from 1.
        pause: seconds that each fold takes.
    """

    def run_fold(run: RunContext, fold: int) -> FoldResult:
        time.sleep(pause)
        n_trials = len({lr for lr, _ in scored} | {float(run.cfg.optim.lr)})
        if kill_at == (n_trials, fold):
            os.kill(os.getpid(), signal.SIGKILL)
        return score(run, fold)

    with mock.patch.object(runs, "run_fold", run_fold), mock.patch.object(RunReporter, "print_folds"):
        yield


def search(root: Path, outputs: Path, *more: str, **options) -> float:
    """Run a search with `scored_by_formula(**options)`; return the best objective."""
    args = overrides(root, outputs, *SEARCH_OVERRIDES, *more)
    with scored_by_formula(**options):
        return searches.search(compose_config(*args), args, RunReporter())
