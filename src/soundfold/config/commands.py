"""The types, choices and ranges of the configurations of benchmark, prepare and explore."""

from __future__ import annotations

from dataclasses import dataclass

from soundfold.config.declaration import key
from soundfold.config.schema import Augment, Data, Features, Paths


@dataclass
class Benchmark:
    what: str = key(
        choices=(
            "folds",
            "frontend",
            "inference",
            "launchers",
            "loop",
            "peers",
            "scale",
            "scaling",
            "speedrun",
            "train",
        )
    )
    device: str = key(choices=("cpu", "cuda"))
    clips: int = key(low=1)
    batch: int = key(low=1)
    steps: int = key(low=1)
    repeats: int = key(low=1)
    root: str | None = key()
    collection: str = key(choices=("esc50", "esc50_16k"))
    peers_python: list[str] = key()
    outputs: str = key()


@dataclass
class Prepare:
    data: Data = key()
    audit: bool = key()
    paths: Paths = key()


@dataclass
class Explore:
    data: Data = key()
    features: Features = key()
    augment: Augment = key()
    examples: int = key(low=0)
    audio: bool = key()
    clip: str | None = key()
    device: str = key(choices=("auto", "cpu", "cuda"))
    seed: int = key(low=0)
    paths: Paths = key()
