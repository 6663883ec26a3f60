"""Hydra sweeper of ``soundfold train``; Hydra finds sweepers in the namespace package ``hydra_plugins``."""

from __future__ import annotations

from collections.abc import Sequence

# not public, but the base class of the only sweeper that Hydra has
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import DictConfig, OmegaConf


class JobSweeper(BasicSweeper):
    """Hydra's basic sweeper, for which ``fold=each`` makes a job of every fold of a setting.

    Args:
        max_batch_size: number of settings that are launched together; None launches all.
        params: see `BasicSweeper`.
    """

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
