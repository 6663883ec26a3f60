"""Train and cross-validate: soundfold train data=esc10 fold=all

Arguments are GROUP=OPTION and KEY=VALUE, as in Hydra; --hydra-help lists its flags, such as -m for sweeps.
"""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from soundfold.cli.hydra_app import hydra_task, run
from soundfold.config import CONF
from soundfold.errors import InputError
from soundfold.experiment.sweep import record_job
from soundfold.validation import validate


@hydra_task
def task(cfg: DictConfig) -> float | None:
    """Train the folds of one configuration; return the objective of Hydra's sweepers."""
    with record_job(cfg) as record_folder:
        validate(cfg)
        # imported here, so that --help, a misspelled key and an invalid value answer at once
        from soundfold.report.reporter import RunReporter

        if cfg.dry_run:
            _print_plan(cfg, is_job=record_folder is not None)
            return None
        if cfg.find_lr is not None:
            from soundfold.experiment.find_lr import find_lr
            from soundfold.report.lr_curve import report_lr_curve

            report_lr_curve(find_lr(cfg))
            return None
        if cfg.search is not None:
            from soundfold.experiment.search import search

            return search(cfg, list(HydraConfig.get().overrides.task), RunReporter())
        from soundfold.experiment.run import cross_validate

        objective = cross_validate(cfg, RunReporter(), record_folder=record_folder)
        # must not be the score of test clips
        return objective if cfg.split.protocol == "nested" else None


def _print_plan(cfg: DictConfig, *, is_job: bool) -> None:
    """Print what a single run would train.

    Raises:
        InputError: the run would be refused, or this is a job of a sweeper of another kind.
    """
    if is_job:
        raise InputError(
            "dry_run lists the jobs of hydra/sweeper=jobs; other sweepers start them. Remove one of the two."
        )
    from soundfold.experiment.plan import PlannedSetting, plan_run
    from soundfold.report.plan_table import print_plan

    print_plan(
        [PlannedSetting(list(HydraConfig.get().overrides.task), 1, plan_run(cfg))], as_json=cfg.dry_run == "json"
    )


def main() -> None:
    """Run the command on the arguments of this process."""
    run(hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(task), description=__doc__)
