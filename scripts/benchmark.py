"""Measure speed: python scripts/benchmark.py what=frontend|inference device=cpu root=/path/to/ESC-50"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from soundfold.cli import run
from soundfold.config import CONF, Benchmark
from soundfold.rules import check_benchmark


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="benchmark")
def main(cfg: DictConfig) -> None:
    check_benchmark(cfg)
    # imported here, so that --help and a misspelt key answer at once
    if cfg.what == "inference":
        from soundfold.benchmark import inference

        inference.run(cfg.device, cfg.clips, cfg.repeats, Path(cfg.outputs))
        return
    from soundfold.benchmark import frontend

    root = None if cfg.root is None else Path(cfg.root)
    print(frontend.run(cfg.device, cfg.clips, cfg.repeats, root, Path(cfg.outputs)))


if __name__ == "__main__":
    run(main, CONF, Benchmark)
