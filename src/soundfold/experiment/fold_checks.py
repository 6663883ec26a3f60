"""Checks of every fold before the first is trained, so that no run fails halfway for a reason known at its start."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from soundfold.data.leakage import audit, check_leakage
from soundfold.data.splits import Split, make_split
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.experiment.setup import RunContext
from soundfold.validation import config_keys, count_processes


@config_keys("split", "model")
def check_folds(run: RunContext, folds: Sequence[int | None]) -> None:
    """Check that each fold can be trained and scored without leakage.

    Raises:
        InputError: a fold does not exist, is too small, leaks, or would never be validated.
    """
    cfg, protocol, table = run.cfg, build.protocol(run.cfg), run.collection.table
    for fold in folds:
        split = make_split(table, protocol, fold, cfg.seed)
        check_leakage(audit(table, split, run.collection.waves.hashes, seen=run.seen), protocol, fold)
        _check_validated(cfg, len(split.train))
        _check_sizes(cfg, split)


def count_epochs(cfg: DictConfig, n_clips: int) -> int:
    """Return the number of epochs over ``n_clips`` training clips, from trainer.max_epochs and trainer.max_steps."""
    limits = (cfg.trainer.max_epochs, -(-cfg.trainer.max_steps // _count_batches(cfg, n_clips)))
    return min(limit for limit in limits if limit > 0)  # -1 is no limit


def count_steps(cfg: DictConfig, n_clips: int) -> int | None:
    """Return the greatest number of steps over ``n_clips`` training clips; None if augmented copies decide on it."""
    if cfg.augment.copies is not None:
        return None
    return _steps_over(cfg, n_clips)


def _steps_over(cfg: DictConfig, n_clips: int) -> int:
    """Return the number of steps if every epoch has ``n_clips`` clips."""
    steps = count_epochs(cfg, n_clips) * _count_batches(cfg, n_clips)
    return steps if cfg.trainer.max_steps == -1 else min(steps, cfg.trainer.max_steps)


def _count_batches(cfg: DictConfig, n_clips: int) -> int:
    return min(-(-n_clips // cfg.data.batch_size), cfg.trainer.limit_train_batches or n_clips)


def _check_validated(cfg: DictConfig, n_clips: int) -> None:
    interval, n_batches = cfg.trainer.val_check_interval, _count_batches(cfg, n_clips)
    batches = interval * n_batches if isinstance(interval, float) else interval
    if batches is not None and not 1 <= batches <= n_batches:
        raise InputError(
            f"trainer.val_check_interval={interval} must be between 1 and {n_batches}, the number of batches of an "
            f"epoch, or between {1 / n_batches:.3g} and 1.0 of an epoch."
        )
    every, steps = cfg.trainer.check_val_every_n_epoch, _steps_over(cfg, n_clips)
    first = (every - 1) * n_batches + int(batches or n_batches)
    if cfg.split.protocol == "nested" and cfg.selection.choose == "best" and steps < first:
        raise InputError(
            f"The run ends after {steps} steps, before its first validation after {first}: there would be no best "
            f"epoch. Raise trainer.max_epochs or trainer.max_steps, lower trainer.check_val_every_n_epoch={every} or "
            "trainer.val_check_interval, or set selection.choose=last."
        )


def _check_sizes(cfg: DictConfig, split: Split) -> None:
    devices, micro_batches = count_processes(cfg), cfg.trainer.accumulate_grad_batches
    for name, clips, least in (
        ("training", split.train, 2 * devices * micro_batches),  # batch norm needs two clips per micro-batch
        ("validation", split.val, devices),
        ("test", split.test, devices),
    ):
        if 0 < len(clips) < least:
            raise InputError(
                f"A fold has {len(clips)} {name} clips, but {devices} devices and "
                f"trainer.accumulate_grad_batches={micro_batches} require at least {least}. Set lower values."
            )
