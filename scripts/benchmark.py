"""Measure speed: python scripts/benchmark.py what=train device=cpu; or folds, frontend, inference, loop, scaling."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from soundfold.cli import run
from soundfold.config import CONF, Benchmark
from soundfold.errors import InputError
from soundfold.validation import validate_benchmark


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="benchmark")
def main(cfg: DictConfig) -> None:
    validate_benchmark(cfg)
    # imported here, so that --help and a misspelt key answer at once
    outputs = Path(cfg.outputs)
    try:
        outputs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"outputs={outputs} cannot be written: {error}. Give another folder.") from error
    if cfg.what == "frontend":
        from benchmarks import frontend

        root = None if cfg.root is None else Path(cfg.root)
        print(frontend.run(cfg.device, cfg.clips, cfg.repeats, root, outputs))
    elif cfg.what == "inference":
        from benchmarks import inference

        inference.run(cfg.device, cfg.clips, cfg.repeats, outputs)
    elif cfg.what == "folds":
        from benchmarks import folds

        print(folds.run(cfg.device, outputs))
    elif cfg.what == "loop":
        from benchmarks import loop

        print(loop.run(cfg.device, cfg.batch, cfg.repeats, outputs))
    elif cfg.what == "train":
        from benchmarks import train

        print(train.run(cfg.device, cfg.batch, cfg.steps, cfg.repeats, outputs))
    else:
        from benchmarks import scaling

        print(scaling.run(cfg.device, cfg.repeats, outputs))


if __name__ == "__main__":
    run(main, CONF, Benchmark)
