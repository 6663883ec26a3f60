"""The schema of a run's configuration, its keys, and the identity of a run.

Types only: what a value means stands in the docstring of the constructor that takes it, and what it is in conf/.
Nothing heavy is imported here, so that `--help` and a misspelt key answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


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
    window: float = MISSING
    hop: float = MISSING
    n_fft: int | None = None
    n_mels: int = MISSING
    f_min: float = 0.0
    f_max: float | None = None
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


OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "sgd": Sgd}
