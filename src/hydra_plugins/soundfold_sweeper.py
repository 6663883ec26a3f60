"""Hydra sweeper of ``soundfold train``; Hydra finds sweepers in the namespace package ``hydra_plugins``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# not public, but the base class of the only sweeper that Hydra has
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf


class JobSweeper(BasicSweeper):
    """Hydra's basic sweeper, with ``fold=each``, a job of every fold of a setting, and ``dry_run``, which starts none.

    Args:
        max_batch_size: number of settings that are launched together; None launches all.
        params: see `BasicSweeper`.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs, or list what they would do.

        Raises:
            JobError: a job failed, or would fail.
        """
        assert self.config is not None
        if not self.config.dry_run:
            return super().sweep(arguments)
        from soundfold.experiment.plan import plan_settings
        from soundfold.experiment.sweep import JobError
        from soundfold.report.plan_table import print_plan

        assert self.hydra_context is not None
        parser = OverridesParser.create(self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (settings,) = self.split_arguments(overrides, None)
        launcher = str(self.config.hydra.launcher._target_).lower()
        elsewhere = any(name in launcher for name in ("slurmlauncher", "raylauncher"))
        planned = plan_settings(settings, self._load, elsewhere=elsewhere)
        print_plan(planned, as_json=self.config.dry_run == "json")
        if any(setting.error for setting in planned):
            raise JobError("A job would fail.")
        return []

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        """Return the overrides of each job of the next batch."""
        # imported here: Hydra imports every plugin
        from soundfold.experiment.sweep import Sweep
        from soundfold.experiment.sweep_folds import FoldJobs

        assert self.config is not None
        folds, fold = FoldJobs(), self.config.fold
        return Sweep.add_settings([folds.of([*setting], fold, self._load) for setting in super().get_job_batch()])

    def _load(self, overrides: list[str]) -> DictConfig:
        """Return the configuration that a job gets."""
        assert self.hydra_context is not None
        assert self.config is not None
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        OmegaConf.set_readonly(cfg, False)
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]
        OmegaConf.set_struct(cfg, True)
        return cfg
