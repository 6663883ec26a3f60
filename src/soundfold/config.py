"""The schema of a run's configuration, the rules across its fields, and the identity of a run.

Types only: what a value means stands in the docstring of the constructor that takes it, and what it is in conf/.
Nothing heavy is imported here, so that `--help` and a misspelt key answer at once.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from soundfold.errors import InputError

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu", "mps")
COMPILATIONS = ("none", "default")
LAYOUTS = ("esc50", "urbansound8k", "folder")
KEEP = ("none", "weights", "all")
PAGES = ("none", "plain", "full")
SAMPLERS = ("tpe", "random")
# the values themselves; this package runs from its checkout
CONF = Path(__file__).resolve().parents[2] / "conf"


@dataclass
class Data:
    name: str = MISSING
    root: str = MISSING
    fetch: str | None = None
    layout: str = "esc50"
    folds: int = 5
    source_pattern: str | None = None
    subset: str | None = None
    classes: list[str] | None = None
    seconds: float = 5.0
    sample_rate: int = 44100
    batch_size: int = 64
    resident: bool | None = None


@dataclass
class Split:
    protocol: str = MISSING
    test: float | None = None
    val: float | None = None
    image_val: float | None = None
    test_in_training: bool = False


@dataclass
class Image:
    frames: int = MISSING
    size: int = MISSING


@dataclass
class Features:
    n_fft: int = MISSING
    hop_length: int = MISSING
    n_mels: int = MISSING
    f_min: float = 0.0
    f_max: float = MISSING
    top_db: float = 80.0
    relative: bool = False
    image: Image | None = None


@dataclass
class Uniform:
    low: float = MISSING
    high: float = MISSING
    probability: float = 1.0
    whole: bool = False


@dataclass
class Stripes:
    count: int = MISSING
    width: float = MISSING
    probability: float = 1.0


@dataclass
class Mixing:
    alpha: float = 0.2
    mixup: float = 0.0
    time_cutmix: float = 0.0
    frequency_cutmix: float = 0.0
    between_class: float = 0.0


@dataclass
class Copies:
    low: int = MISSING
    high: int = MISSING
    after: int = 0


@dataclass
class Augment:
    crop_seconds: float | None = None
    stretch: Uniform | None = None
    semitones: Uniform | None = None
    noise_std: Uniform | None = None
    noise_snr_db: Uniform | None = None
    noise_colours: list[float] = field(default_factory=lambda: [0.0])
    gain_db: Uniform | None = None
    polarity: float = 0.0
    roll: Uniform | None = None
    time_masks: Stripes | None = None
    frequency_masks: Stripes | None = None
    one_of: bool = False
    copies: Copies | None = None
    mixing: Mixing = field(default_factory=Mixing)


@dataclass
class Model:
    weights: str = "none"
    stem: str = "sum"
    label_smoothing: float = 0.0
    channels_last: bool = False
    compile: str = "none"


@dataclass
class Optim:
    _target_: str = MISSING
    _partial_: bool = True
    lr: float = MISSING
    weight_decay: float = 0.0


@dataclass
class Adam(Optim):
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass
class AdamW(Adam):
    pass


@dataclass
class Sgd(Optim):
    momentum: float = 0.0
    nesterov: bool = False


@dataclass
class Schedule:
    decay: str = MISSING
    warmup: float = 0.0


@dataclass
class Trainer:
    accelerator: str = MISSING
    devices: int = 1
    precision: str = "32-true"
    max_epochs: int = 50
    max_steps: int = -1
    gradient_clip_val: float | None = None
    deterministic: bool = False
    log_every_n_steps: int = 1
    enable_progress_bar: bool = True
    limit_train_batches: int | None = None


@dataclass
class Callbacks:
    monitor: str = "val/loss"
    mode: str = "min"
    patience: int = 10


@dataclass
class Checkpoints:
    keep: str = "weights"
    every_n_epochs: int = 1


@dataclass
class Wandb:
    project: str = "soundfold"
    entity: str | None = None
    mode: str = "offline"
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    artifact: bool = False


@dataclass
class Logger:
    wandb: Wandb | None = None
    tensorboard: bool = False


@dataclass
class Paths:
    outputs: str = "outputs"
    cache: str = "data/cache"


@dataclass
class Parameter:
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False
    choices: list[Any] | None = None


@dataclass
class Search:
    name: str = MISSING
    space: dict[str, Parameter] = MISSING
    trials: int = 20
    sampler: str = "tpe"
    prune_after: int | None = 2
    worker: int = 0


@dataclass
class Report:
    page: str = "plain"
    audio: bool = True
    mistakes: int = 12


@dataclass
class Config:
    data: Data = MISSING
    split: Split = MISSING
    features: Features = MISSING
    augment: Augment = MISSING
    model: Model = MISSING
    optim: Optim = MISSING
    schedule: Schedule = MISSING
    trainer: Trainer = MISSING
    callbacks: Callbacks = MISSING
    logger: Logger = MISSING
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    report: Report = field(default_factory=Report)
    search: Search | None = None
    paths: Paths = field(default_factory=Paths)
    fold: Any = "all"
    seed: int = 0
    name: str = MISSING
    label: str | None = None
    rerun: bool = False
    allow_leakage: bool = False
    debug: bool = False


@dataclass
class Benchmark:
    what: str = "frontend"
    device: str = "cpu"
    clips: int = 32
    repeats: int = 5
    root: str | None = None
    outputs: str = "outputs/benchmark"


@dataclass
class Prepare:
    data: Data = MISSING
    audit: bool = False
    paths: Paths = field(default_factory=Paths)


@dataclass
class Explore:
    data: Data = MISSING
    features: Features = MISSING
    augment: Augment = MISSING
    examples: int = 3
    audio: bool = True
    clip: str | None = None
    device: str = "auto"
    seed: int = 0
    paths: Paths = field(default_factory=Paths)


OPTIMISERS = {"adam": Adam, "adamw": AdamW, "sgd": Sgd}
# what a run is called, where it is kept and what it is shown on, but not what it computes
NOT_IDENTITY = (
    "fold",
    "name",
    "rerun",
    "allow_leakage",
    "paths",
    "logger",
    "checkpoints",
    "report",
    "search",
    "data.root",
    "data.name",
    "data.fetch",
    "data.resident",
    "trainer.accelerator",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
)


def without(values: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A configuration's plain values less some keys, dotted; what it lacks is left out."""
    kept = dict(values)
    for key in keys:
        first, _, rest = key.partition(".")
        if not rest:
            kept.pop(first, None)
        elif isinstance(kept.get(first), dict):
            kept[first] = without(kept[first], (rest,))
    return kept


def register() -> None:
    """Give Hydra the types of the root and of each optimiser."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(name="benchmark_schema", node=Benchmark)
    store.store(name="prepare_schema", node=Prepare)
    store.store(name="explore_schema", node=Explore)
    for name, node in OPTIMISERS.items():
        store.store(group="optim", name=f"{name}_schema", node=node)


def known_keys(schema: type = Config) -> set[str]:
    """Every key that a configuration may set, dotted, sections included."""
    keys: set[str] = set()

    def walk(node: type, prefix: str) -> None:
        hints = get_type_hints(node)
        for name in (f.name for f in fields(node)):
            keys.add(prefix + name)
            for kind in (hints[name], *getattr(hints[name], "__args__", ())):
                if hasattr(kind, "__dataclass_fields__"):
                    walk(kind, f"{prefix}{name}.")

    walk(schema, "")
    for node in OPTIMISERS.values() if schema is Config else ():
        walk(node, "optim.")
    return keys


def refuse_unknown_keys(keys: list[str], schema: type = Config) -> None:
    """Raise for the first key that no configuration has, with the nearest that one has.

    Raises:
        InputError: a key is unknown.
    """
    known = known_keys(schema)
    for key in keys:
        if key in known:
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        section, _, _ = key.rpartition(".")
        siblings = sorted(k for k in known if k.rpartition(".")[0] == section and "._" not in k)
        choice = f" Keys of {section}: {', '.join(s.rpartition('.')[2] for s in siblings)}." if section in known else ""
        raise InputError(f"{key} is not a key of the configuration. Did you mean {near[0]}?{choice}")


def _one_of(cfg: DictConfig, key: str, allowed: tuple[str, ...], section: str = "") -> None:
    value = OmegaConf.select(cfg, key)
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"{section}{key}={value} is unknown; give one of {', '.join(allowed)}.{hint}")


def _at_least(cfg: DictConfig, key: str, least: float, section: str = "") -> None:
    value = OmegaConf.select(cfg, key)
    if value < least:
        raise InputError(f"{section}{key}={value} must be at least {least:g}.")


def check_data(cfg: DictConfig) -> None:
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
    if cfg.data.fetch is not None:
        _one_of(cfg, "data.fetch", ("esc50", "synthetic"))
    if cfg.data.seconds <= 0 or cfg.data.sample_rate <= 0:
        raise InputError(
            f"data.seconds={cfg.data.seconds} and data.sample_rate={cfg.data.sample_rate} must be above 0."
        )


def check(cfg: DictConfig) -> None:
    """Rules across fields, and of values that no constructor takes. Raises before any work is done.

    Raises:
        InputError: a value breaks its rule.
    """

    # Hydra lets a key added by + into a typed node: an option's own type tells whose key it is
    if foreign := sorted(set(cfg.optim) - set(get_type_hints(OmegaConf.get_type(cfg.optim)))):
        raise InputError(f"optim.{foreign[0]} is not an option of {cfg.optim._target_}; leave it out.")
    parse_fold(cfg.fold)
    check_data(cfg)
    if cfg.trainer.precision in ("16-true", "bf16-true", "16", "bf16"):
        raise InputError(
            f"trainer.precision={cfg.trainer.precision}: power spectra overflow half precision. "
            f"Give one of {', '.join(PRECISIONS)}; the mixed ones keep the front end in float32."
        )
    _one_of(cfg, "trainer.precision", PRECISIONS)
    _one_of(cfg, "trainer.accelerator", ACCELERATORS)
    _one_of(cfg, "model.compile", COMPILATIONS)
    _one_of(cfg, "checkpoints.keep", KEEP)
    _one_of(cfg, "callbacks.mode", ("min", "max"))
    check_report(cfg.report)
    if cfg.search is not None:
        check_search(cfg)
    if cfg.optim.lr <= 0:
        raise InputError(f"optim.lr={cfg.optim.lr} must be above 0.")
    _at_least(cfg, "optim.weight_decay", 0)
    _at_least(cfg, "seed", 0)
    _at_least(cfg, "data.batch_size", 1)
    _at_least(cfg, "trainer.devices", 1)
    if cfg.trainer.devices > 1:
        raise InputError(
            f"trainer.devices={cfg.trainer.devices}: a fold trains on one device; more are not supported yet. Leave it "
            "at 1, and give each device a fold of its own: -m fold=1,2,3,4,5 with a launcher."
        )
    _at_least(cfg, "callbacks.patience", 1)
    _at_least(cfg, "checkpoints.every_n_epochs", 1)
    _at_least(cfg, "features.hop_length", 1)
    _at_least(cfg, "features.n_mels", 1)
    if not 0 <= cfg.model.label_smoothing < 1:
        raise InputError(f"model.label_smoothing={cfg.model.label_smoothing} must be at least 0 and below 1.")
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
    if not cfg.callbacks.monitor.startswith("val/"):
        raise InputError(
            f"callbacks.monitor={cfg.callbacks.monitor}: a run may be chosen on its validation fold only, never on the "
            "fold that it is scored on. Give val/loss or val/accuracy."
        )
    _one_of(cfg, "callbacks.monitor", ("val/loss", "val/accuracy", "val/f1"))
    check_logger(cfg)
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
    if copies is not None and cfg.augment.crop_seconds is not None:
        raise InputError(
            f"augment.copies with augment.crop_seconds={cfg.augment.crop_seconds:g}: a copy is varied once, and would "
            "be scored as the crop that was drawn for it. Leave out one of the two (augment.crop_seconds=null or "
            "augment.copies=null)."
        )
    if copies is not None and copies.after > 0 and (cfg.schedule.decay != "constant" or cfg.schedule.warmup > 0):
        raise InputError(
            f"augment.copies.after={copies.after} makes later epochs longer, which a decay does not foresee. "
            "Give schedule=constant schedule.warmup=0, or augment.copies.after=0."
        )
    if cfg.fold == "none" and cfg.checkpoints.keep == "none":
        raise InputError("fold=none trains a model to use, and checkpoints.keep=none throws it away; keep weights.")


# sections of which no value is a setting of the recipe: what is scored and how, which draw of luck, where, how shown
NOT_SEARCHED = ("fold", "seed", "split", "data", "search", "callbacks", "label", *NOT_IDENTITY)
SEARCHED_DATA = ("data.batch_size",)


def check_search(cfg: DictConfig) -> None:
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
        if parameter.choices is None and not parameter.low < parameter.high:
            raise InputError(f"search.space, {key}: low={ends[0]:g} must be below high={ends[1]:g}.")
        if parameter.log and (parameter.choices is not None or parameter.low <= 0):
            raise InputError(f"search.space, {key}: a logarithmic range needs low above 0.")


def is_trial() -> bool:
    """Whether W&B's agent has started this process, as a trial of a sweep."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def check_logger(cfg: DictConfig) -> None:
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
            "logger.tensorboard=true needs TensorBoard, which is not installed: pip install soundfold[tensorboard]. "
            "Or leave it out: metrics.csv has the same figures."
        )
    if not is_trial():
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


def check_report(report: DictConfig) -> None:
    """Rules of a report's values.

    Raises:
        InputError: a value breaks its rule.
    """
    _one_of(report, "page", PAGES, "report.")
    _at_least(report, "mistakes", 0, "report.")


def check_explore(cfg: DictConfig) -> None:
    """Rules of an exploration's values.

    Raises:
        InputError: a value breaks its rule.
    """
    check_data(cfg)
    _one_of(cfg, "device", ("auto", "cpu", "cuda"))
    for key, least in {"examples": 0, "seed": 0, "features.hop_length": 1, "features.n_mels": 1}.items():
        _at_least(cfg, key, least)


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
    check_report(options)
    return options


def check_benchmark(cfg: DictConfig) -> None:
    """Rules of a benchmark's values.

    Raises:
        InputError: a value breaks its rule.
    """
    for key, allowed in {"what": ("frontend",), "device": ("cpu", "cuda")}.items():
        if cfg[key] not in allowed:
            raise InputError(f"{key}={cfg[key]} is unknown; give one of {', '.join(allowed)}.")
    for key in ("clips", "repeats"):
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


def composed(*overrides: str) -> DictConfig:
    """What ``scripts/train.py`` with these words would run; with those of its own search path where Hydra runs."""
    if GlobalHydra.instance().is_initialized():
        return compose("train", list(overrides))
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys; an empty section is a value."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        out |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return out


def cv_id(cfg: DictConfig, digests: dict[str, str]) -> str:
    """Identity of a cross-validation: 8 hex digits over everything that changes its numbers.

    The same configuration on the same audio has the same identity wherever, whenever and on whatever device it runs;
    `label` forks a deliberate repeat.

    Args:
        cfg: the composed configuration.
        digests: of what the configuration only points at: the table, the audio, a weights file.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    values = without(plain, NOT_IDENTITY)
    values["model"]["weights"] = digests["weights"]
    text = json.dumps([values, digests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
