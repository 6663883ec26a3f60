"""The configuration: its schema, composition from ``conf/``, stored forms and identity.

Imports nothing heavy, so that ``--help`` and a misspelled key answer at once.
"""

from soundfold.config.commands import Benchmark, Explore, Prepare
from soundfold.config.composition import CONF, compose_config, open_section, register, search_path
from soundfold.config.derived import FrameSizes, frame_sizes
from soundfold.config.identity import NOT_IDENTITY, cv_id, identity_values
from soundfold.config.installation import install_command, is_built
from soundfold.config.keys import declared_rules, drop_keys, flatten, is_class_option, known_keys, refuse_unknown_keys
from soundfold.config.migration import SCHEMA_VERSION, migrate, new_name, to_yaml
from soundfold.config.model_schema import MODELS, Model
from soundfold.config.refusals import explain_refusal
from soundfold.config.schema import (
    LOGGERS,
    OPTIMIZERS,
    Augment,
    Config,
    Crops,
    Data,
    Features,
    Parameter,
    Report,
    Wandb,
)
from soundfold.config.stored import parse_stored, read_stored, stored_values
from soundfold.config.trust import trust

__all__ = [
    "CONF",
    "LOGGERS",
    "MODELS",
    "NOT_IDENTITY",
    "OPTIMIZERS",
    "SCHEMA_VERSION",
    "Augment",
    "Benchmark",
    "Config",
    "Crops",
    "Data",
    "Explore",
    "Features",
    "FrameSizes",
    "Model",
    "Parameter",
    "Prepare",
    "Report",
    "Wandb",
    "compose_config",
    "cv_id",
    "declared_rules",
    "drop_keys",
    "explain_refusal",
    "flatten",
    "frame_sizes",
    "identity_values",
    "install_command",
    "is_built",
    "is_class_option",
    "known_keys",
    "migrate",
    "new_name",
    "open_section",
    "parse_stored",
    "read_stored",
    "refuse_unknown_keys",
    "register",
    "search_path",
    "stored_values",
    "to_yaml",
    "trust",
]
