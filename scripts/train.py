"""Train and cross-validate: python scripts/train.py data=esc10 fold=all; --help lists every group and key."""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from soundfold.cli import plain_errors, run
from soundfold.config import CONF
from soundfold.experiment.sweep import record_job
from soundfold.validation import validate


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
@plain_errors
def main(cfg: DictConfig) -> float | None:
    with record_job(cfg) as record_folder:
        validate(cfg)
        # imported here, so that --help, a misspelled key and an invalid value answer at once
        from soundfold.report.reporter import RunReporter

        if cfg.search is not None:
            from soundfold.experiment.search import search

            return search(cfg, list(HydraConfig.get().overrides.task), RunReporter())
        from soundfold.experiment.run import cross_validate

        objective = cross_validate(cfg, RunReporter(), record_folder=record_folder)
        # a sweeper of Hydra's may choose settings by it, so it must not be the score of test clips
        return objective if cfg.split.protocol == "nested" else None


if __name__ == "__main__":
    run(main, CONF)
