"""The types, choices and ranges of a training's configuration.

Defaults and meanings are in ``conf/``, where every key has a comment. Most ranges that the constructor of a library
class checks are not repeated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from soundfold.config.augment_schema import Augment
from soundfold.config.declaration import key
from soundfold.config.model_schema import Model
from soundfold.config.trainer_arguments import Trainer
from soundfold.io.audio_limits import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE


@dataclass
class Data:
    name: str = key()
    root: str = key()
    download: str | None = key(choices=("esc50", "synthetic"))
    layout: str = key(choices=("esc50", "urbansound8k", "folder", "csv"))
    folds: int = key()
    source_pattern: str | None = key()
    table: str | None = key()
    audio: str | None = key()
    file_column: str = key()
    class_column: str = key()
    fold_column: str | None = key()
    source_column: str | None = key()
    reader: dict[str, Any] = key()
    subset: str | None = key()
    classes: list[str] | None = key()
    leave_out: list[str] | None = key()
    seconds: float = key(above=0)
    sample_rate: int = key(low=MIN_SAMPLE_RATE, high=MAX_SAMPLE_RATE)
    batch_size: int = key(low=1)
    sampler: str = key(choices=("shuffle", "balanced"))
    on_device: bool | None = key()
    license: str | None = key()
    read_ahead: bool | None = key()


@dataclass
class Split:
    protocol: str = key()
    test: float | None = key()
    val: float | None = key()
    image_val: float | None = key()
    test_in_training: bool = key()


@dataclass
class Image:
    frames: int = key()
    size: int = key()


@dataclass
class Features:
    window: float = key(above=0)
    hop: float = key(above=0)
    n_fft: int | None = key()
    n_mels: int = key(low=1)
    f_min: float = key()
    f_max: float | None = key()
    top_db: float = key()
    relative: bool = key()
    per_band: bool = key()
    image: Image | None = key()


@dataclass
class Parameter:
    # conf/ cannot hold keys of the entries of a section that is empty by default, so their defaults are here
    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False
    choices: list[Any] | None = None


@dataclass
class Crops:
    seconds: float | None = key(above=0)
    trim: bool = key()
    test: int | None = key()


@dataclass
class Optim:
    """Options of every optimizer; the other keys of the section are arguments of the class that ``_target_`` names."""

    _target_: str = key()
    _partial_: bool = key()
    lr: float = key(above=0, finite=True)
    weight_decay: float = key(low=0, finite=True)
    fused: bool = key()


@dataclass
class Adam(Optim):
    betas: tuple[float, float] = key()


@dataclass
class AdamW(Adam):
    pass


@dataclass
class Sgd(Optim):
    momentum: float = key(low=0, high=1)
    nesterov: bool = key()


@dataclass
class Muon(Adam):
    momentum: float = key(low=0, high=1)
    nesterov: bool = key()
    dtype: str = key(choices=("float32", "bfloat16"))


@dataclass
class Schedule:
    decay: str = key()
    warmup: float = key()


@dataclass
class Average:
    kind: str = key()
    decay: float = key()
    start: float = key()


@dataclass
class Selection:
    monitor: str = key()
    choose: str = key(choices=("best", "last"))
    patience: int = key(low=1)


@dataclass
class Checkpoints:
    keep: str = key(choices=("none", "weights", "all"))
    every_n_epochs: int = key(low=1)
    every_seconds: float = key(low=0)


@dataclass
class Wandb:
    project: str = key()
    entity: str | None = key()
    mode: str = key(choices=("offline", "online", "disabled"))
    tags: list[str] = key()
    notes: str | None = key()
    artifact: bool = key()


@dataclass
class TensorBoard:
    pass


@dataclass
class Paths:
    outputs: str = key()
    cache: str = key()


@dataclass
class Search:
    name: str = key()
    space: dict[str, Parameter] = key()
    trials: int = key(low=1)
    sampler: str = key(choices=("tpe", "random"))
    prune_after: int | None = key(low=1)
    nested: bool = key()
    storage: str = key()
    worker: int = key()


@dataclass
class FindLr:
    low: float = key(above=0)
    high: float = key(above=0, finite=True)
    steps: int = key(low=20)


@dataclass
class Report:
    page: str = key(choices=("none", "plain", "full"))
    audio: bool = key()
    mistakes: int = key(low=0)


@dataclass
class Config:
    data: Data = key()
    split: Split = key()
    features: Features = key()
    augment: Augment = key()
    crops: Crops = key()
    model: Model = key()
    optim: Optim = key()
    schedule: Schedule = key()
    average: Average = key()
    trainer: Trainer = key()
    selection: Selection = key()
    metrics: dict[str, Any] = key()
    logger: dict[str, Any] = key()
    callbacks: dict[str, Any] = key()
    checkpoints: Checkpoints = key()
    report: Report = key()
    search: Search | None = key()
    find_lr: FindLr | None = key()
    paths: Paths = key()
    fold: int | str = key(choices=("all", "each", "none"), integers=True, reason="for several folds use -m fold=1,2")
    seed: int = key(low=0)
    name: str = key()
    label: str | None = key()
    rerun: bool = key()
    allow_leakage: bool = key()
    debug: bool = key()
    dry_run: Any = key(choices=(False, True, "json"))


OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "sgd": Sgd, "muon": Muon}
# entries of `logger` with keys of their own; any other entry names its class
LOGGERS = {"wandb": Wandb, "tensorboard": TensorBoard}
