"""The schema of a run's configuration, its keys, and the identity of a run.

Types only: what a value means stands in the docstring of the constructor that takes it, and what it is in conf/.
Nothing heavy is imported here, so that `--help` and a misspelt key answer at once.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, DictConfig, OmegaConf

from soundfold.errors import InputError

# the values themselves; this package runs from its checkout
CONF = Path(__file__).resolve().parents[2] / "conf"


@dataclass
class Data:
    name: str = MISSING
    root: str = MISSING
    download: str | None = None
    layout: str = "esc50"
    folds: int = 5
    source_pattern: str | None = None
    subset: str | None = None
    classes: list[str] | None = None
    seconds: float = 5.0
    sample_rate: int = 44100
    batch_size: int = 64
    on_device: bool | None = None


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
    p: float = 1.0
    integer: bool = False


@dataclass
class MaskSpec:
    count: int = MISSING
    width: float = MISSING
    p: float = 1.0


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
    time_stretch: Uniform | None = None
    pitch_shift: Uniform | None = None
    noise_std: Uniform | None = None
    noise_snr_db: Uniform | None = None
    noise_colours: list[float] = field(default_factory=lambda: [0.0])
    gain_db: Uniform | None = None
    polarity: float = 0.0
    time_shift: Uniform | None = None
    time_masks: MaskSpec | None = None
    frequency_masks: MaskSpec | None = None
    one_of: bool = False
    copies: Copies | None = None
    mixing: Mixing = field(default_factory=Mixing)


@dataclass
class Crops:
    seconds: float | None = None
    trim: bool = False
    test: int | None = None


@dataclass
class Model:
    weights: str = "none"
    stem: str = "sum"
    width: int = 64
    stem_stride: int = 2
    max_pool: bool = True
    frequency_channel: bool = False
    squeeze_excitation: bool = False
    stochastic_depth: float = 0.0
    frozen_stages: int = 0
    layer_decay: float = 1.0
    label_smoothing: float = 0.0
    channels_last: bool = False
    compile: str = "none"


@dataclass
class Optim:
    _target_: str = MISSING
    _partial_: bool = True
    lr: float = MISSING
    weight_decay: float = 0.0
    fused: bool = True


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
class Average:
    kind: str = MISSING
    decay: float = 0.999
    start: float = 0.0


@dataclass
class Trainer:
    accelerator: str = MISSING
    devices: int = 1
    micro_batches: int = 1
    precision: str = "32-true"
    max_epochs: int = 50
    max_steps: int = -1
    gradient_clip_val: float | None = None
    deterministic: bool = False
    tf32: bool = True
    log_every_n_steps: int = 1
    check_val_every_n_epoch: int = 1
    enable_progress_bar: bool = True
    limit_train_batches: int | None = None


@dataclass
class Selection:
    monitor: str = "val/loss"
    choose: str = "best"
    patience: int = 10


@dataclass
class Checkpoints:
    keep: str = "weights"
    every_n_epochs: int = 1
    every_seconds: float = 30.0


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
    integer: bool = False
    choices: list[Any] | None = None


@dataclass
class Search:
    name: str = MISSING
    space: dict[str, Parameter] = MISSING
    trials: int = 20
    sampler: str = "tpe"
    prune_after: int | None = 2
    nested: bool = False
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
    average: Average = MISSING
    trainer: Trainer = MISSING
    selection: Selection = MISSING
    logger: Logger = MISSING
    crops: Crops = field(default_factory=Crops)
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
    batch: int = 64
    steps: int = 2
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
    "data.download",
    "data.on_device",
    "trainer.accelerator",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.tf32",
    "optim.fused",
)


def drop_keys(values: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A configuration's plain values less some keys, dotted; what it lacks is left out."""
    kept = dict(values)
    for key in keys:
        first, _, rest = key.partition(".")
        if not rest:
            kept.pop(first, None)
        elif isinstance(kept.get(first), dict):
            kept[first] = drop_keys(kept[first], (rest,))
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


def compose_config(*overrides: str) -> DictConfig:
    """What ``scripts/train.py`` with these words would run; with those of its own search path where Hydra runs."""
    if GlobalHydra.instance().is_initialized():
        return compose("train", list(overrides))
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted keys; an empty section is a value."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, dict) and value
        out |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
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
    values = drop_keys(plain, NOT_IDENTITY)
    values["model"]["weights"] = digests["weights"]
    text = json.dumps([values, digests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# keys of the first edition
RENAMED = {
    "augment.stretch": "augment.time_stretch",
    "augment.semitones": "augment.pitch_shift",
    "augment.roll": "augment.time_shift",
    "model.rate_decay": "model.layer_decay",
    "data.fetch": "data.download",
    "data.resident": "data.on_device",
    "callbacks": "selection",
}
RENAMED_OPTIONS = {"probability": "p", "whole": "integer"}


def migrate(values: dict[str, Any]) -> dict[str, Any]:
    """Translate the keys of a configuration that the first edition stored; keys of this edition stay as they are."""
    migrated: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            value = {RENAMED.get(f"{key}.{name}", f"{key}.{name}").split(".", 1)[1]: v for name, v in value.items()}
        migrated[RENAMED.get(key, key)] = value
    if isinstance(migrated.get("augment"), dict):
        migrated["augment"] = {key: _renamed_options(value) for key, value in migrated["augment"].items()}
    return migrated


def _renamed_options(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {RENAMED_OPTIONS.get(name, name): v for name, v in value.items()}
