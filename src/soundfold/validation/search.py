"""Rules of a hyperparameter search."""

from __future__ import annotations

import math
import re
from importlib.util import find_spec

from omegaconf import DictConfig

from soundfold.config import NOT_IDENTITY, install_command, refuse_unknown_keys
from soundfold.config.frozen import frozen_values
from soundfold.errors import InputError

# keys that decide what is scored, which random draw it is, where it is stored or how it is shown
NOT_SEARCHED = ("fold", "seed", "split", "data", "search", "selection", "label", *NOT_IDENTITY)
SEARCHED_DATA = ("data.batch_size", "data.sampler")
# a password in a URL, before the host or as a parameter
URL_PASSWORD = re.compile(r"://(?:[^/:@\s]*:.*@|.*[?&]\w*password=)")
PASSWORD_REMEDY = (
    "Logs and stored configurations would show it. Leave it out of the URL, and set the environment variable "
    "PGPASSWORD or add a line to ~/.pgpass; change the password if it was a real one."
)


def validate_search(cfg: DictConfig) -> None:
    """Check the rules of ``search``, if there is one.

    Raises:
        InputError: a value is invalid.
    """
    search = cfg.search
    if search is None:
        return
    if cfg.split.protocol != "nested":
        raise InputError(
            f"search={search.name} with split={cfg.split.protocol}: settings are chosen on validation folds, never on "
            "the folds that are scored. Set split=nested, then score the best settings with split=benchmark."
        )
    if search.nested and (search.sampler != "random" or search.prune_after is not None):
        raise InputError(
            "search.nested=true chooses the settings of each fold without that fold's clips: a sampler that learns "
            "from all folds, or pruned trials, would use them. Set search.sampler=random and search.prune_after=null."
        )
    if cfg.fold != "all":
        raise InputError(f"fold={cfg.fold}: a search trains every fold of each setting; leave fold at all.")
    if not search.space:
        raise InputError(f"search={search.name} has an empty search.space. Add a key of the configuration to it.")
    _check_storage(search.storage)
    is_resnet = cfg.model._target_ == frozen_values()["model._target_"]
    refuse_unknown_keys(list(search.space), open_sections=("optim",) if is_resnet else ("model", "optim"))
    names = [str(name) for name in cfg.optim if not str(name).startswith("_")]
    for key in search.space:
        if key.startswith("optim.") and key.removeprefix("optim.") not in cfg.optim:
            raise InputError(
                f"search.space has {key}, which is not a key of this optimizer: {', '.join(names)}. "
                f"Remove it; or give it a first value, +{key}=VALUE, if it is an argument of {cfg.optim._target_}."
            )
    for key, parameter in search.space.items():
        _check_parameter(key, parameter)


def _check_storage(storage: str) -> None:
    if storage in ("sqlite", "journal"):
        return
    # the message must not show a password
    scheme, separator, _ = storage.partition("://")
    if scheme != "postgresql" or not separator:
        raise InputError(
            f"search.storage={scheme}{separator and '://...'} must be sqlite, journal or "
            "postgresql://USER@HOST/DATABASE."
        )
    if URL_PASSWORD.search(storage):
        raise InputError(f"search.storage has a password. {PASSWORD_REMEDY}")
    if find_spec("psycopg") is None:
        install = install_command("postgresql")
        raise InputError(f"search.storage=postgresql://... requires psycopg, which is not installed: {install}.")


def _check_parameter(key: str, parameter: DictConfig) -> None:
    section = key.split(".")[0]
    if key not in SEARCHED_DATA and (section in NOT_SEARCHED or key in NOT_SEARCHED):
        raise InputError(
            f"search.space names {key}, which is not a setting of the recipe: it decides what is scored, or where and "
            "how a run is shown. Search over settings such as optim.lr, augment, features.n_mels."
        )
    low, high, choices = parameter.low, parameter.high, parameter.choices
    given = [bound is not None for bound in (low, high)]
    if any(given) if choices is not None else not all(given):
        raise InputError(f"search.space, {key}: set either low and high, or choices.")
    if choices is not None and len(choices) < 2:
        raise InputError(f"search.space, {key}: {list(choices)} leaves nothing to choose.")
    if choices is None and not -math.inf < low < high < math.inf:
        raise InputError(f"search.space, {key}: low={low:g} must be below high={high:g}, both finite.")
    if parameter.log and (choices is not None or low <= 0):
        raise InputError(f"search.space, {key}: log=true requires low above 0, and no choices.")
