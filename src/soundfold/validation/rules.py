"""Rules across the fields of a training's configuration, one function each."""

from __future__ import annotations

from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf

from soundfold.config import known_keys
from soundfold.errors import InputError
from soundfold.validation.collection import validate_data, validate_features
from soundfold.validation.loggers import check_logger_packages, check_loggers, check_wandb, check_wandb_trial
from soundfold.validation.metrics import check_metrics, check_monitor
from soundfold.validation.ranks import check_batch_size, check_ranks, count_processes
from soundfold.validation.search import validate_search
from soundfold.validation.trainer import (
    check_class_entries,
    check_determinism,
    check_find_lr,
    check_strategy,
    check_trainer_keys,
    check_validation_interval,
)


def validate(cfg: DictConfig) -> None:
    """Check a training's configuration.

    Raises:
        InputError: a value is invalid, or this process is one of several that another program started.
    """
    for rule in RULES:
        rule(cfg)


def _check_optimizer(cfg: DictConfig) -> None:
    for name in ("_target_", "lr", "weight_decay", "fused"):
        if name not in cfg.optim or OmegaConf.is_missing(cfg.optim, name):
            raise InputError(
                f"optim.{name} has no value. Every optimizer has _target_, lr, weight_decay and fused, which is false "
                "if its class has no fused step."
            )


def _check_dry_run(cfg: DictConfig) -> None:
    if cfg.dry_run and (cfg.search is not None or cfg.find_lr is not None):
        raise InputError(
            f"dry_run={str(cfg.dry_run).lower()} lists trainings whose settings are known beforehand, which those of a "
            "search and of find_lr are not. Remove dry_run."
        )


def _check_name(cfg: DictConfig) -> None:
    names = {"name": cfg.name} | ({"search.name": cfg.search.name} if cfg.search is not None else {})
    for key, name in names.items():
        if not name or name.startswith(".") or {*"/\\\n\r"} & {*name} or len(name.encode()) > 200:
            raise InputError(
                f"{key}={name[:60]!r} is not a valid folder name: it must have 1 to 200 bytes, no slashes or line "
                "breaks, and no leading dot."
            )


def _check_cuda_graph(cfg: DictConfig) -> None:
    trainer = cfg.trainer
    if trainer.cuda_graph is not True:
        return
    obstacles = {
        f"trainer.devices={trainer.devices}": count_processes(cfg) > 1,
        f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}": trainer.accumulate_grad_batches > 1,
        f"trainer.precision={trainer.precision}": trainer.precision == "16-mixed",
        "data.on_device=false": cfg.data.on_device is False,
        "optim.fused=false without optim.capturable=true": not (cfg.optim.fused or cfg.optim.get("capturable")),
    }
    if found := [option for option, is_obstacle in obstacles.items() if is_obstacle]:
        raise InputError(
            f"trainer.cuda_graph=true excludes {', '.join(found)}: a graph replays one step of one device that never "
            "waits for the processor. Set trainer.cuda_graph=auto, which trains without one."
        )


def _check_clipping(cfg: DictConfig) -> None:
    trainer = cfg.trainer
    if cfg.optim.fused and trainer.gradient_clip_val and trainer.precision == "16-mixed":
        raise InputError(
            f"trainer.gradient_clip_val={trainer.gradient_clip_val:g} with trainer.precision=16-mixed "
            "requires optim.fused=false: Lightning cannot clip gradients that a fused optimizer unscales."
        )


def _check_end(cfg: DictConfig) -> None:
    ends = {key: cfg.trainer[key] for key in ("max_epochs", "max_steps")}
    for key, end in ends.items():
        if end < 1 and end != -1:
            raise InputError(
                f"trainer.{key}={end} must be at least 1, or -1 if the other of trainer.max_epochs and "
                "trainer.max_steps ends the run."
            )
    if set(ends.values()) == {-1}:
        raise InputError("A run needs an end. Set trainer.max_epochs or trainer.max_steps above 0.")


def _check_leakage(cfg: DictConfig) -> None:
    if cfg.split.protocol != "random_clips":
        return
    if not cfg.allow_leakage:
        raise InputError(
            "split=random_clips leaks: clips of one source are on both sides, so its score is too high. It exists to "
            "measure by how much: set allow_leakage=true to run it, with a mark on every figure. split=benchmark gives "
            "a score to publish."
        )
    if cfg.fold == "none":
        raise InputError("fold=none trains on every clip, without a split. Remove split=random_clips.")


def _check_copies(cfg: DictConfig) -> None:
    copies, split = cfg.augment.copies, cfg.split
    if copies is None:
        for key, used in {"image_val": split.image_val is not None, "test_in_training": split.test_in_training}.items():
            if used:
                raise InputError(f"split.{key} requires augment.copies. Set augment.copies, or remove split.{key}.")
        return
    if cfg.crops.seconds is not None:
        raise InputError(
            f"augment.copies with crops.seconds={cfg.crops.seconds:g}: copies are augmented once, as entire clips, and "
            "crops are drawn in every epoch. Remove one of the two (crops.seconds=null or augment.copies=null)."
        )
    if copies.after > 0 and cfg.average.kind != "none" and cfg.average.start > 0:
        raise InputError(
            f"augment.copies.after={copies.after} lengthens later epochs, so average.start={cfg.average.start:g} of "
            "the steps is not known beforehand. Set average.start=0, or augment.copies.after=0."
        )
    if copies.after > 0 and (cfg.schedule.decay != "constant" or cfg.schedule.warmup > 0):
        raise InputError(
            f"augment.copies.after={copies.after} lengthens later epochs, so the number of steps is not known "
            "beforehand. Set schedule=constant schedule.warmup=0, or augment.copies.after=0."
        )


def _check_crops(cfg: DictConfig) -> None:
    crops, window = cfg.crops, cfg.features.window
    if crops.seconds is None:
        for key, used in {"trim": crops.trim, "test": crops.test is not None}.items():
            if used:
                raise InputError(f"crops.{key} requires crops.seconds. Set crops.seconds, such as 2.5.")
    elif not window <= crops.seconds <= cfg.data.seconds:
        raise InputError(
            f"crops.seconds={crops.seconds:g} must be between features.window={window:g} and "
            f"data.seconds={cfg.data.seconds:g}."
        )


def _check_kept_weights(cfg: DictConfig) -> None:
    if cfg.fold == "none" and cfg.checkpoints.keep == "none":
        raise InputError("fold=none trains a model to use, which checkpoints.keep=none deletes. Set keep=weights.")


def _check_sections(cfg: DictConfig) -> None:
    """Check that each section is one, because a reference such as ``${seed}`` may stand for any value."""
    sections = {key.rpartition(".")[0] for key in known_keys()} - {""} | {"augment.extra", "data.reader"}
    for section in sorted(sections):
        if section.partition(".")[0] == "logger":
            continue  # see `check_loggers`
        value = OmegaConf.select(cfg, section)
        if value is not None and not isinstance(value, DictConfig):
            raise InputError(f"{section}={value} must be a section with keys such as {section}.{_first_key(section)}.")


def _first_key(section: str) -> str:
    keys = (key.removeprefix(f"{section}.") for key in sorted(known_keys()) if key.startswith(f"{section}."))
    return next(keys, "NAME")  # users name the keys of some sections


# first sections and keys; `validate_data` then checks every value against the schema
RULES: tuple[Callable[[DictConfig], None], ...] = (
    _check_sections,
    check_trainer_keys,
    _check_optimizer,
    check_metrics,
    check_monitor,
    _check_dry_run,
    validate_data,
    validate_features,
    _check_name,
    _check_cuda_graph,
    _check_clipping,
    check_batch_size,
    check_ranks,
    check_strategy,
    check_class_entries,
    check_validation_interval,
    check_determinism,
    check_find_lr,
    _check_end,
    _check_leakage,
    _check_copies,
    _check_crops,
    _check_kept_weights,
    check_loggers,
    check_wandb,
    check_logger_packages,
    check_wandb_trial,
    validate_search,
)
