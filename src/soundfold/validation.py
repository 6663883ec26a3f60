"""The rules of a configuration's values: each is refused by name, before any work, with the rule and the remedy.

Rules that one constructor can tell stand in that constructor; here are those across fields, and of values that no
constructor takes. Nothing heavy is imported, so that a bad value answers at once.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from soundfold.config import NOT_IDENTITY, Report, flatten, frame_sizes, known_keys, refuse_unknown_keys
from soundfold.errors import ArgumentError, InputError
from soundfold.io.audio import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu", "mps")
COMPILATIONS = ("none", "default", "graphs")
LAYOUTS = ("esc50", "urbansound8k", "folder")
KEEP = ("none", "weights", "all")
CHOICES = ("best", "last")
BENCHMARKS = ("folds", "frontend", "inference", "loop", "scaling", "train")
PAGES = ("none", "plain", "full")
SAMPLERS = ("tpe", "random")
MAX_N_FFT = 1 << 15
# of a stored clip: 6 minutes at 44.1 kHz
MOST_SAMPLES = 1 << 24
# of a clip's spectrogram: half a gigabyte
MOST_CELLS = 1 << 26


@contextmanager
def config_keys(*sections: str) -> Iterator[None]:
    """Name keys of the configuration in the errors of library classes: "`n_fft`" becomes "features.n_fft".

    Args:
        sections: where the arguments come from, such as ``features``; the first that has a key of the name counts.

    Raises:
        InputError: within, an `ArgumentError` was raised.
    """
    known = known_keys()

    def key(match: re.Match[str]) -> str:
        found = (f"{section}.{match[1]}" for section in sections if f"{section}.{match[1]}" in known)
        return next(found, match[1])

    try:
        yield
    except ArgumentError as error:
        raise InputError(re.sub(r"`([\w.]+)`", key, str(error))) from error


def _one_of(cfg: DictConfig, key: str, allowed: tuple[str, ...], section: str = "") -> None:
    value = OmegaConf.select(cfg, key)
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"{section}{key}={value} is unknown; give one of {', '.join(allowed)}.{hint}")


def _at_least(cfg: DictConfig, key: str, least: float, section: str = "") -> None:
    value = OmegaConf.select(cfg, key)
    if not value >= least:  # nan is neither
        raise InputError(f"{section}{key}={value} must be at least {least:g}.")


def _within(cfg: DictConfig, key: str, least: float, most: float) -> None:
    value = OmegaConf.select(cfg, key)
    if not least <= value <= most:
        raise InputError(f"{key}={value} must lie within {least:g} and {most:g}.")


def validate_values(cfg: DictConfig) -> None:
    """Rules of every value, whatever it means: present, a number where it is one, text that a file can hold.

    Raises:
        InputError: a value breaks its rule.
        OmegaConfBaseException: a value is missing, or is made of others that are.
    """
    values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    for key, value in flatten(values).items():
        for one in value if isinstance(value, list) else [value]:
            _check_value(key, one)


def _check_value(key: str, value: Any) -> None:
    if isinstance(value, float) and math.isnan(value):
        raise InputError(f"{key}={value} must be a number.")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        # its digits may be thousands
        raise InputError(f"{key} must be a whole number of 64 bits; this one has {value.bit_length()}.")
    if isinstance(value, str):
        try:
            fits = b"\0" not in value.encode()
        except UnicodeEncodeError:
            fits = False
        if not fits:
            raise InputError(f"{key}={value!r} must be text in UTF-8, without NUL.")


def validate_data(cfg: DictConfig) -> None:
    """Rules of the collection's values.

    Raises:
        InputError: a value breaks its rule.
    """
    _one_of(cfg, "data.layout", LAYOUTS)
    if cfg.data.layout == "folder":
        _at_least(cfg, "data.folds", 2)
        if OmegaConf.is_missing(cfg.data, "root"):
            raise InputError("data=folder needs data.root=DIRECTORY, with one folder of audio files per class.")
    if cfg.data.subset is not None and cfg.data.layout != "esc50":
        raise InputError(f"data.subset={cfg.data.subset} names a column of ESC-50's table; give data.classes instead.")
    if cfg.data.download is not None:
        _one_of(cfg, "data.download", ("esc50", "synthetic"))
    _within(cfg, "data.sample_rate", MIN_SAMPLE_RATE, MAX_SAMPLE_RATE)
    if not 1 <= cfg.data.seconds * cfg.data.sample_rate <= MOST_SAMPLES:
        raise InputError(
            f"data.seconds={cfg.data.seconds} must be above 0, and a clip has at most {MOST_SAMPLES:,} samples, "
            f"{MOST_SAMPLES / cfg.data.sample_rate:.0f} s at data.sample_rate={cfg.data.sample_rate}. Cut longer "
            "recordings into clips."
        )


def validate_features(cfg: DictConfig) -> None:
    """Rules of the spectrogram's values, beside the data's; those of its own stand in `LogMel`.

    Raises:
        InputError: a value breaks its rule.
    """
    features, samples = cfg.features, round(cfg.data.seconds * cfg.data.sample_rate)
    for key in ("window", "hop"):
        if not 0.5 < features[key] * cfg.data.sample_rate <= samples:
            raise InputError(
                f"features.{key}={features[key]} s must be at least one sample at data.sample_rate="
                f"{cfg.data.sample_rate}, and at most data.seconds={cfg.data.seconds}."
            )
    sizes = frame_sizes(cfg)
    if sizes.hop > sizes.window:
        raise InputError(
            f"features.hop={features.hop} must be at most features.window={features.window}: samples between two "
            "windows would not be used."
        )
    if features.n_fft is None and sizes.n_fft > MAX_N_FFT:
        raise InputError(
            f"features.window={features.window} s must be at most {MAX_N_FFT} samples, "
            f"{MAX_N_FFT / cfg.data.sample_rate:.3f} s at data.sample_rate={cfg.data.sample_rate}."
        )
    if not sizes.window <= sizes.n_fft <= MAX_N_FFT:
        raise InputError(
            f"features.n_fft={features.n_fft} must be between the {sizes.window} samples of features.window="
            f"{features.window} and {MAX_N_FFT}. Set features.n_fft=null for the next power of two."
        )
    cells = (sizes.n_fft // 2 + 1) * (samples // sizes.hop + 1)
    if cells > MOST_CELLS:
        raise InputError(
            f"features.hop={features.hop} and features.window={features.window} produce a spectrogram of {cells:,} "
            f"cells per clip; at most {MOST_CELLS:,} are supported. Set a longer hop or shorter data.seconds."
        )


def validate(cfg: DictConfig) -> None:
    """Rules across fields, and of values that no constructor takes. Raises before any work is done.

    Raises:
        InputError: a value breaks its rule.
    """

    # Hydra lets a key added by + into a typed node: an option's own type tells whose key it is
    if foreign := sorted(set(cfg.optim) - set(get_type_hints(OmegaConf.get_type(cfg.optim)))):
        raise InputError(f"optim.{foreign[0]} is not an option of {cfg.optim._target_}; leave it out.")
    parse_fold(cfg.fold)
    validate_data(cfg)
    validate_values(cfg)
    validate_features(cfg)
    if not cfg.name or cfg.name.startswith(".") or {*"/\\\n\r"} & {*cfg.name} or len(cfg.name.encode()) > 200:
        raise InputError(
            f"name={cfg.name[:60]!r} names the run's folder: 1 to 200 bytes without slashes or line breaks, and no dot "
            "first."
        )
    if cfg.trainer.precision in ("16-true", "bf16-true", "16", "bf16"):
        raise InputError(
            f"trainer.precision={cfg.trainer.precision}: power spectra overflow half precision. "
            f"Give one of {', '.join(PRECISIONS)}; the mixed ones keep the front end in float32."
        )
    _one_of(cfg, "trainer.precision", PRECISIONS)
    _one_of(cfg, "trainer.accelerator", ACCELERATORS)
    _one_of(cfg, "model.compile", COMPILATIONS)
    if cfg.model.compile == "graphs" and cfg.trainer.micro_batches > 1:
        raise InputError(
            f"model.compile=graphs requires trainer.micro_batches=1 (not {cfg.trainer.micro_batches}): each replay of "
            "a CUDA graph overwrites the gradients of the micro-batch before. Set model.compile=default."
        )
    _one_of(cfg, "checkpoints.keep", KEEP)
    validate_report(cfg.report)
    if cfg.search is not None:
        validate_search(cfg)
    if cfg.optim.fused and cfg.trainer.gradient_clip_val and cfg.trainer.precision != "32-true":
        raise InputError(
            f"trainer.gradient_clip_val={cfg.trainer.gradient_clip_val:g} with trainer.precision="
            f"{cfg.trainer.precision}: Lightning clips no gradients that a fused optimiser unscales by itself. Give "
            "optim.fused=false, or leave out one of the two."
        )
    if not 0 < cfg.optim.lr < math.inf:
        raise InputError(f"optim.lr={cfg.optim.lr} must be above 0, and finite.")
    if not 0 <= cfg.optim.weight_decay < math.inf:
        raise InputError(f"optim.weight_decay={cfg.optim.weight_decay} must be at least 0, and finite.")
    if "momentum" in cfg.optim:
        _within(cfg, "optim.momentum", 0, 1)
    _at_least(cfg, "seed", 0)
    _at_least(cfg, "data.batch_size", 1)
    validate_devices(cfg)
    _at_least(cfg, "selection.patience", 1)
    _one_of(cfg, "selection.choose", CHOICES)
    _at_least(cfg, "trainer.check_val_every_n_epoch", 1)
    _at_least(cfg, "checkpoints.every_n_epochs", 1)
    _at_least(cfg, "checkpoints.every_seconds", 0)
    if cfg.trainer.gradient_clip_val is not None:
        _at_least(cfg, "trainer.gradient_clip_val", 0)
    _at_least(cfg, "trainer.log_every_n_steps", 0)
    endless = {key: cfg.trainer[key] == -1 for key in ("max_epochs", "max_steps")}
    for key in endless:
        if cfg.trainer[key] < 1 and not endless[key]:
            raise InputError(
                f"trainer.{key}={cfg.trainer[key]} must be at least 1, or -1 where the other of trainer.max_epochs and "
                "trainer.max_steps ends the run."
            )
    if all(endless.values()):
        raise InputError("A run needs an end: give trainer.max_epochs or trainer.max_steps above 0.")
    if cfg.trainer.limit_train_batches is not None:
        _at_least(cfg, "trainer.limit_train_batches", 1)
    if not cfg.selection.monitor.startswith("val/"):
        raise InputError(
            f"selection.monitor={cfg.selection.monitor}: a run may be chosen on its validation fold only, never on the "
            "fold that it is scored on. Give val/loss or val/accuracy."
        )
    _one_of(cfg, "selection.monitor", ("val/loss", "val/accuracy", "val/f1"))
    validate_logger(cfg)
    if cfg.split.protocol == "random_clips":
        if not cfg.allow_leakage:
            raise InputError(
                "split=random_clips leaks: clips of one source stand on both sides, so its score is too high. It is "
                "here to measure by how much: allow_leakage=true runs it, with the mark on every figure. "
                "split=benchmark gives a score to publish."
            )
        if cfg.fold == "none":
            raise InputError("fold=none trains on every clip, with nothing to split; leave out split=random_clips.")
    copies = cfg.augment.copies
    if copies is None and (cfg.split.image_val is not None or cfg.split.test_in_training):
        raise InputError("split.image_val and split.test_in_training speak of copies; give augment.copies too.")
    if copies is not None and cfg.crops.seconds is not None:
        raise InputError(
            f"augment.copies with crops.seconds={cfg.crops.seconds:g}: a copy is varied once, as a whole, and crops "
            "are drawn anew in every epoch. Leave out one of the two (crops.seconds=null or augment.copies=null)."
        )
    if cfg.crops.seconds is not None and not (cfg.features.window <= cfg.crops.seconds <= cfg.data.seconds):
        raise InputError(
            f"crops.seconds={cfg.crops.seconds:g} must be at most data.seconds={cfg.data.seconds:g} and at least "
            f"features.window={cfg.features.window:g}."
        )
    if cfg.average.kind != "none" and cfg.average.start > 0 and copies is not None and copies.after > 0:
        raise InputError(
            f"augment.copies.after={copies.after} makes later epochs longer, so average.start={cfg.average.start:g} of "
            "the steps is not known beforehand. Give average.start=0, or augment.copies.after=0."
        )
    if cfg.crops.seconds is None and (cfg.crops.trim or cfg.crops.test is not None):
        raise InputError("crops.trim and crops.test speak of crops; give crops.seconds=SECONDS too, such as 2.5.")
    if copies is not None and copies.after > 0 and (cfg.schedule.decay != "constant" or cfg.schedule.warmup > 0):
        raise InputError(
            f"augment.copies.after={copies.after} makes later epochs longer, which a decay does not foresee. "
            "Give schedule=constant schedule.warmup=0, or augment.copies.after=0."
        )
    if cfg.fold == "none" and cfg.checkpoints.keep == "none":
        raise InputError("fold=none trains a model to use, and checkpoints.keep=none throws it away; keep weights.")


def validate_devices(cfg: DictConfig) -> None:
    """Rules of how batches are divided, among devices and for the memory of one.

    Raises:
        InputError: a value breaks its rule, or this process is one of several that something else has started.
    """
    trainer = cfg.trainer
    _at_least(cfg, "trainer.devices", 1)
    _at_least(cfg, "trainer.micro_batches", 1)
    parts = trainer.devices * trainer.micro_batches
    if parts > 1 and cfg.data.batch_size < 4 * parts:
        raise InputError(
            f"data.batch_size={cfg.data.batch_size} is divided among trainer.devices={trainer.devices} times "
            f"trainer.micro_batches={trainer.micro_batches}, and each part needs four clips of it: give at least "
            f"{4 * parts}, or fewer parts."
        )
    if trainer.devices > 1 and trainer.accelerator == "mps":
        raise InputError(
            f"trainer.devices={trainer.devices} with trainer.accelerator=mps: there is only one such device."
        )
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError(
            "WORLD_SIZE is set, so that this is one of several processes, as torchrun starts them. Start one process: "
            "trainer=ddp trainer.devices=N has it start the others, and the jobs of a launcher are one process each."
        )


# sections of which no value is a setting of the recipe: what is scored and how, which draw of luck, where, how shown
NOT_SEARCHED = ("fold", "seed", "split", "data", "search", "selection", "label", *NOT_IDENTITY)
SEARCHED_DATA = ("data.batch_size",)


def validate_search(cfg: DictConfig) -> None:
    """Rules of a search's values.

    Raises:
        InputError: a value breaks its rule.
    """
    search = cfg.search
    _one_of(cfg, "search.sampler", SAMPLERS)
    _at_least(cfg, "search.trials", 1)
    if search.prune_after is not None:
        _at_least(cfg, "search.prune_after", 1)
    if cfg.split.protocol != "nested":
        raise InputError(
            f"search={search.name} with split={cfg.split.protocol}: settings are chosen on validation folds, never on "
            "the folds that are scored. Give split=nested; the settings found are then scored with split=benchmark."
        )
    if search.nested and (search.sampler != "random" or search.prune_after is not None):
        raise InputError(
            "search.nested=true chooses, for each fold, without that fold's clips: a sampler that learns from all "
            "folds, or trials given up after some, would let them in. Give search.sampler=random and "
            "search.prune_after=null."
        )
    if cfg.fold != "all":
        raise InputError(f"fold={cfg.fold}: a search tries each setting on every fold; leave fold at all.")
    if not search.space:
        raise InputError(f"search={search.name} has an empty search.space; name a key of the configuration in it.")
    refuse_unknown_keys(list(search.space))
    for key, parameter in search.space.items():
        section = key.split(".")[0]
        if key not in SEARCHED_DATA and (section in NOT_SEARCHED or key in NOT_SEARCHED):
            raise InputError(
                f"search.space names {key}, which is no setting of the recipe: it decides what is scored, or where and "
                "how a run is shown. Search over settings such as optim.lr, augment, features.n_mels."
            )
        ends = (parameter.low, parameter.high)
        if (parameter.choices is None) == (None in ends):
            raise InputError(f"search.space, {key}: give either low and high, or choices.")
        if parameter.choices is not None and len(parameter.choices) < 2:
            raise InputError(f"search.space, {key}: {list(parameter.choices)} leaves nothing to choose.")
        if parameter.choices is None and not -math.inf < parameter.low < parameter.high < math.inf:
            raise InputError(f"search.space, {key}: low={ends[0]:g} must be below high={ends[1]:g}, both finite.")
        if parameter.log and (parameter.choices is not None or parameter.low <= 0):
            raise InputError(f"search.space, {key}: a logarithmic range needs low above 0.")


def is_wandb_trial() -> bool:
    """Whether W&B's agent has started this process, as a trial of a sweep."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def validate_logger(cfg: DictConfig) -> None:
    """Rules of what a run is shown on, and of a trial that W&B's agent has started.

    Raises:
        InputError: a value breaks its rule, or TensorBoard is asked for and not installed.
    """
    options = cfg.logger.wandb
    if options is not None:
        _one_of(cfg, "logger.wandb.mode", ("offline", "online", "disabled"))
        if wrong := [tag for tag in options.tags if not 1 <= len(tag) <= 64]:
            raise InputError(f"logger.wandb.tags has {wrong[0]!r}; W&B takes tags of 1 to 64 characters.")
        if options.artifact and cfg.checkpoints.keep == "none":
            raise InputError(
                "logger.wandb.artifact=true uploads each fold's weights, and checkpoints.keep=none throws them away; "
                "keep weights."
            )
    if cfg.logger.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "logger.tensorboard=true needs TensorBoard, which is not installed: pip install -e '.[tensorboard]'. "
            "Or leave it out: metrics.csv has the same figures."
        )
    if not is_wandb_trial():
        return
    if options is None or cfg.fold != "all" or cfg.debug:
        raise InputError(
            "WANDB_SWEEP_ID is set, so this is a trial of a W&B sweep, whose figure is the mean over all folds: leave "
            "out debug and fold, and give a logger with wandb. Outside a sweep, unset WANDB_SWEEP_ID."
        )
    if cfg.split.protocol != "nested":
        raise InputError(
            f"WANDB_SWEEP_ID is set, so this is a trial of a W&B sweep, which would choose by the scored clips under "
            f"split={cfg.split.protocol}. Give split=nested, which has clips to choose by. A plain grid needs no "
            "sweep: scripts/train.py -m KEY=VALUE,VALUE."
        )


def validate_report(report: DictConfig) -> None:
    """Rules of a report's values.

    Raises:
        InputError: a value breaks its rule.
    """
    _one_of(report, "page", PAGES, "report.")
    _at_least(report, "mistakes", 0, "report.")


def validate_explore(cfg: DictConfig) -> None:
    """Rules of an exploration's values.

    Raises:
        InputError: a value breaks its rule.
    """
    validate_data(cfg)
    validate_values(cfg)
    validate_features(cfg)
    _one_of(cfg, "device", ("auto", "cpu", "cuda"))
    _at_least(cfg, "examples", 0)
    _at_least(cfg, "seed", 0)


def report_options(settings: list[str]) -> DictConfig:
    """What a report of its own has: everything, but for what is set as in ``report.audio=false``.

    Raises:
        InputError: a key is unknown, or a value breaks its rule.
    """
    refuse_unknown_keys([setting.split("=")[0] for setting in settings])
    try:
        given = OmegaConf.from_dotlist(settings).get("report", {})
        options: Any = OmegaConf.merge(OmegaConf.structured(Report(page="full")), given)
    except OmegaConfBaseException as error:
        raise InputError(f"{' '.join(settings)}: {str(error).splitlines()[0]}") from error
    validate_report(options)
    return options


def validate_benchmark(cfg: DictConfig) -> None:
    """Rules of a benchmark's values.

    Raises:
        InputError: a value breaks its rule.
    """
    for key, allowed in {"what": BENCHMARKS, "device": ("cpu", "cuda")}.items():
        if cfg[key] not in allowed:
            raise InputError(f"{key}={cfg[key]} is unknown; give one of {', '.join(allowed)}.")
    for key in ("clips", "batch", "steps", "repeats"):
        if cfg[key] < 1:
            raise InputError(f"{key}={cfg[key]} must be at least 1.")


def parse_fold(value: Any) -> int | str:
    """``all``, ``none`` or a fold's number.

    Raises:
        InputError: anything else.
    """
    if value in ("all", "none"):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InputError(f"fold={value} is neither a number, nor all, nor none. For several folds give -m fold=1,2.")
