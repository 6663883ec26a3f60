"""Measure speed: python scripts/benchmark.py what=train device=cpu; or folds, frontend, inference, launchers,
loop, peers, scale, scaling, speedrun."""

from importlib import import_module
from inspect import signature
from pathlib import Path

import hydra
from omegaconf import DictConfig

from soundfold.cli.hydra_app import hydra_task, run
from soundfold.config import CONF, Benchmark
from soundfold.errors import InputError
from soundfold.validation import check_values


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="benchmark")
@hydra_task
def main(cfg: DictConfig) -> None:
    check_values(cfg)
    outputs = Path(cfg.outputs)
    try:
        outputs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"outputs={outputs} cannot be written: {error}. Choose another folder.") from error
    # imported here, so that --help and a misspelled key answer at once
    measure = import_module(f"benchmarks.{cfg.what}").run
    options = {name: cfg[name] for name in signature(measure).parameters if name in cfg}
    print(measure(**options | {"outputs": outputs}))


if __name__ == "__main__":
    run(main, Benchmark, __doc__)
