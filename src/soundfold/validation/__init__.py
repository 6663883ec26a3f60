"""Validation of configurations before any work. Each error names key, value, rule and remedy.

Rules that a library class checks about its own arguments are in that class; `config_keys` names the keys in its errors.
Imports nothing heavy, so that a bad value answers at once.
"""

from soundfold.validation.argument_keys import config_keys
from soundfold.validation.collection import validate_data, validate_features
from soundfold.validation.loggers import is_wandb_trial, wandb_options, wandb_sweep
from soundfold.validation.metrics import metric_entries
from soundfold.validation.options import report_options, validate_explore
from soundfold.validation.ranks import count_processes, launched_rank
from soundfold.validation.rules import validate
from soundfold.validation.search import validate_search
from soundfold.validation.values import check_assigned, check_values

__all__ = [
    "check_assigned",
    "check_values",
    "config_keys",
    "count_processes",
    "is_wandb_trial",
    "launched_rank",
    "metric_entries",
    "report_options",
    "validate",
    "validate_data",
    "validate_explore",
    "validate_features",
    "validate_search",
    "wandb_options",
    "wandb_sweep",
]
