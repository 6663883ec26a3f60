"""Rules of Lightning's trainer, and of the entries that name a class."""

from __future__ import annotations

from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf

from soundfold.config import refuse_unknown_keys
from soundfold.config.trainer_arguments import Trainer
from soundfold.errors import InputError
from soundfold.validation.ranks import count_processes

PROFILERS = ("simple", "advanced", "pytorch")
# with the others no process has all the weights that are saved, or they start processes for each stage of a fold
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true")


def check_trainer_keys(cfg: DictConfig) -> None:
    # a file of a user may have other keys, and so may Hydra's + on the command line
    refuse_unknown_keys([f"trainer.{name}" for name in cfg.trainer if name not in get_type_hints(Trainer)])


def check_class_entries(cfg: DictConfig) -> None:
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    callbacks, profiler = values["callbacks"], values["trainer"]["profiler"]
    if not isinstance(callbacks, dict):
        raise InputError(f"callbacks={callbacks} must be a mapping of names to entries.")
    for name, entry in callbacks.items():
        if entry is not None and not (isinstance(entry, dict) and isinstance(entry.get("_target_"), str)):
            raise InputError(
                f"callbacks.{name} requires _target_, the class of a Lightning callback; null disables it."
            )
    if isinstance(profiler, dict):
        if not isinstance(profiler.get("_target_"), str):
            raise InputError("trainer.profiler requires _target_, the class of a Lightning profiler.")
    elif profiler not in (None, *PROFILERS):
        raise InputError(
            f"trainer.profiler={profiler} must be one of {', '.join(PROFILERS)}, an entry with _target_, or null."
        )


def check_strategy(cfg: DictConfig) -> None:
    strategy = cfg.trainer.strategy
    if isinstance(strategy, DictConfig):
        if not isinstance(strategy.get("_target_"), str):
            raise InputError("trainer.strategy requires _target_, a class derived from Lightning's DDPStrategy.")
    elif strategy not in STRATEGIES:
        raise InputError(
            f"trainer.strategy={strategy} must be one of {', '.join(STRATEGIES)}, or an entry with the _target_ of a "
            "DDPStrategy: a run saves the weights of its first process, which has all of them with these only."
        )


def check_validation_interval(cfg: DictConfig) -> None:
    for key in ("limit_val_batches", "val_check_interval"):
        value = cfg.trainer[key]
        if isinstance(value, float) and value > 1:
            raise InputError(
                f"trainer.{key}={value} must be at most 1.0, a share; write a number of batches as {value:.0f}."
            )
    if cfg.trainer.val_check_interval is not None and cfg.average.kind != "none":
        raise InputError(
            f"trainer.val_check_interval={cfg.trainer.val_check_interval} requires average=none: validating averaged "
            "weights within an epoch would repeat its random numbers. Set trainer.check_val_every_n_epoch instead."
        )


def check_find_lr(cfg: DictConfig) -> None:
    find_lr = cfg.find_lr
    if find_lr is None:
        return
    if find_lr.low >= find_lr.high:
        raise InputError(f"find_lr.low={find_lr.low:g} must be below find_lr.high={find_lr.high:g}.")
    if cfg.fold == "each":
        raise InputError("find_lr with fold=each: the learning rate is tried on one fold. Set its number, or fold=all.")
    if cfg.search is not None or count_processes(cfg) > 1:
        raise InputError("find_lr requires trainer.devices=1 and no search: it is a single short training.")


def check_determinism(cfg: DictConfig) -> None:
    if cfg.trainer.deterministic and cfg.trainer.benchmark:
        raise InputError(
            "trainer.benchmark=true with trainer.deterministic=true: cuDNN measures which kernel is fastest, so a "
            "resumed run could use another one. Remove one of the two."
        )
