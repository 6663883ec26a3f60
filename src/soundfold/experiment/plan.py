"""The trainings that a command would run, and what they would take: ``dry_run``. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from soundfold.config import stored_values
from soundfold.data.splits import make_split
from soundfold.errors import InputError, TrainingError
from soundfold.evaluation.results import FoldResult
from soundfold.experiment import build, environment
from soundfold.experiment.callbacks.checkpoints import resume_point
from soundfold.experiment.computed import check_computed
from soundfold.experiment.device import choose_accelerator
from soundfold.experiment.finished import check_modules
from soundfold.experiment.fold_checks import check_folds, count_epochs, count_steps
from soundfold.experiment.past_speeds import Speed, find_speed
from soundfold.experiment.run import select_folds
from soundfold.experiment.setup import RunContext, open_run
from soundfold.models.networks import on_meta
from soundfold.validation import validate


@dataclass(frozen=True)
class PlannedFold:
    """One fold of a run.

    Attributes:
        fold: its number; None is the model trained on every clip.
        status: ``finished`` (its result would be reused), ``interrupted`` (it would resume) or ``missing``.
        epoch, step: completed at the checkpoint that an interrupted fold would resume from.
        steps: left to train, at most; None if unknown beforehand.
        seconds: estimate of its time; None if unknown.
    """

    fold: int | None
    status: str
    epoch: int = 0
    step: int = 0
    steps: int | None = 0
    seconds: float | None = 0.0


@dataclass(frozen=True)
class PlannedRun:
    """One setting, which is a cross-validation or a part of it.

    Attributes:
        run: its folder.
        folds: those that the command asks for.
        epochs: of a fold, at most.
        speed: of past runs; None if there is none.
        kept: bytes of weights and checkpoints that stay, of all folds that are not finished.
        training: bytes of checkpoints while a fold is trained, at most.
        store: bytes of the store of decoded clips that would be built.
    """

    run: str
    folds: list[PlannedFold]
    epochs: int
    speed: Speed | None
    kept: int
    training: int
    store: int

    @property
    def seconds(self) -> float | None:
        """Time of all folds, one after the other; None if unknown."""
        times = [fold.seconds for fold in self.folds]
        return None if None in times else sum(time for time in times if time is not None)


@dataclass(frozen=True)
class PlannedSetting:
    """A setting of a command.

    Attributes:
        overrides: its own, of a sweep.
        jobs: number of jobs: one, or one for each fold.
        plan: its run; None if it would fail.
        error: why it would fail.
    """

    overrides: list[str]
    jobs: int
    plan: PlannedRun | None = None
    error: str | None = None


def plan_settings(
    settings: Sequence[list[str]], load: Callable[[list[str]], DictConfig], *, elsewhere: bool
) -> list[PlannedSetting]:
    """Return what the settings of a sweep would train. A setting that would fail has an error.

    Args:
        settings: overrides of each.
        load: returns the configuration of overrides.
        elsewhere: the jobs would run on other machines, so this one's devices do not matter.

    Raises:
        InputError: there are no settings.
    """
    if not settings:
        raise InputError("This sweep has no jobs: a glob() or range() selects nothing. Correct it.")
    planned = []
    for overrides in settings:
        try:
            cfg = load(overrides)
            plan = plan_run(cfg, elsewhere=elsewhere)
            planned.append(PlannedSetting(overrides, len(plan.folds) if cfg.fold == "each" else 1, plan))
        except (InputError, TrainingError) as error:
            planned.append(PlannedSetting(overrides, 1, error=str(error)))
    return planned


def plan_run(cfg: DictConfig, *, elsewhere: bool = False) -> PlannedRun:
    """Return what a training would do, after its checks.

    Raises:
        InputError: the training would be refused, or its collection is not downloaded yet.
    """
    validate(cfg)
    # the root may be a folder of the cache, which is replaced
    changed: dict[str, Any] = {"data": {"root": cfg.data.root}}
    if cfg.fold == "each":
        changed["fold"] = "all"
    if elsewhere:
        changed["trainer"] = {"accelerator": "auto", "cuda_graph": "auto"}
        changed["optim"] = {"capturable": False} if cfg.optim.get("capturable") else {}
    with TemporaryDirectory() as scratch:
        merged = OmegaConf.merge(cfg, changed, {"paths": {"cache": scratch}})
        assert isinstance(merged, DictConfig)
        run = open_run(merged, existing=Path(cfg.paths.cache))
    numbers = select_folds(run)
    # precision may be chosen by the device
    for check in (check_folds, check_modules, *([] if elsewhere else [check_computed])):
        check(run, numbers)
    here = None if elsewhere else _machine(choose_accelerator(cfg))
    speed = find_speed(Path(cfg.paths.outputs), run.folder, stored_values(run.cfg), here)
    folds = [_plan_fold(run, fold, speed) for fold in numbers]
    kept, training = _disk_bytes(run.cfg, len(run.collection.table.classes))
    table, waves = run.collection.table, run.collection.waves
    clips = len(make_split(table, build.protocol(cfg), numbers[0], cfg.seed).train)
    return PlannedRun(
        str(run.folder),
        folds,
        count_epochs(cfg, clips),
        speed,
        kept * sum(fold.status != "finished" for fold in folds),
        training,
        0 if waves.is_built else 2 * round(cfg.data.seconds * cfg.data.sample_rate) * len(table),
    )


def _plan_fold(run: RunContext, fold: int | None, speed: Speed | None) -> PlannedFold:
    cfg, folder = run.cfg, run.fold_folder(fold)
    starts_over = cfg.rerun or cfg.debug
    if (folder / "result.json").is_file() and not starts_over:
        FoldResult.load(folder / "result.json")
        return PlannedFold(fold, "finished")
    point = None if starts_over else resume_point(folder / "checkpoints")
    epoch, step = point or (0, 0)
    clips = len(make_split(run.collection.table, build.protocol(cfg), fold, cfg.seed).train)
    total = count_steps(cfg, clips)
    left = None if total is None else max(0, total - step)
    seconds = None if left is None or speed is None else left * speed.seconds_per_step
    return PlannedFold(fold, "interrupted" if point else "missing", epoch, step, left, seconds)


def _disk_bytes(cfg: DictConfig, classes: int) -> tuple[int, int]:
    """Return the bytes that a fold keeps, and those of its checkpoints while it is trained."""
    try:
        with on_meta():
            network = build.network(cfg, classes)
    except (NotImplementedError, RuntimeError):  # of a network that needs values to be built
        network = build.network(cfg, classes)
    weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    # SGD has at most one value per weight, AdamW two
    states = int(bool(cfg.optim.get("momentum"))) if cfg.optim._target_ == "torch.optim.SGD" else 2
    last = weights * (1 + states + (cfg.average.kind != "none"))
    best = weights if cfg.split.protocol == "nested" and cfg.selection.choose == "best" else 0
    kept = {"none": 0, "weights": weights, "all": weights + last + best}[cfg.checkpoints.keep]
    # a new checkpoint is complete before the old one is removed
    return (0 if cfg.debug else kept), 2 * last + best


@cache
def _machine(accelerator: str) -> dict[str, Any]:
    device = torch.device({"gpu": "cuda"}.get(accelerator, accelerator))
    described = environment.describe(device)
    return {key: described[key] for key in ("device", "processor")}
