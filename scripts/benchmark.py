"""Measure speed: python scripts/benchmark.py what=train device=cpu; or folds, frontend, inference, launchers,
loop, peers, scale, scaling, speedrun."""

from importlib import import_module
from pathlib import Path

import hydra
from omegaconf import DictConfig

from soundfold.cli.hydra_app import hydra_task, run
from soundfold.config import CONF, Benchmark
from soundfold.errors import InputError
from soundfold.validation import validate_benchmark

# the options that each benchmarks.<what>.run takes
OPTIONS = {
    "folds": ("device",),
    "frontend": ("device", "clips", "repeats", "root"),
    "inference": ("device", "clips", "repeats"),
    "launchers": (),
    "loop": ("device", "batch", "repeats"),
    "peers": ("device", "batch", "clips", "root", "peers_python"),
    "scale": ("clips",),
    "scaling": ("device", "repeats"),
    "speedrun": ("device", "root", "collection", "steps", "repeats"),
    "train": ("device", "batch", "steps", "repeats"),
}


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="benchmark")
@hydra_task
def main(cfg: DictConfig) -> None:
    validate_benchmark(cfg)
    outputs = Path(cfg.outputs)
    try:
        outputs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"outputs={outputs} cannot be written: {error}. Choose another folder.") from error
    options = {key: cfg[key] for key in OPTIONS[cfg.what]}
    # imported here, so that --help and a misspelled key answer at once
    print(import_module(f"benchmarks.{cfg.what}").run(**options, outputs=outputs))


if __name__ == "__main__":
    run(main, Benchmark, __doc__)
