"""Weights & Biases: one run per fold and one per cross-validation, in a group, offline by default.

Only this package uses W&B, and only runs that log to it import the package: importing W&B takes a second.
"""

from soundfold.experiment.wandb_runs.cross_validation import log_cv, needs_logging
from soundfold.experiment.wandb_runs.cv_tables import LoggedMistake
from soundfold.experiment.wandb_runs.fold import fold_logger
from soundfold.experiment.wandb_runs.search import LoggedTrial, log_search
from soundfold.experiment.wandb_runs.session import describe_upload
from soundfold.experiment.wandb_runs.trial import open_trial

__all__ = [
    "LoggedMistake",
    "LoggedTrial",
    "describe_upload",
    "fold_logger",
    "log_cv",
    "log_search",
    "needs_logging",
    "open_trial",
]
