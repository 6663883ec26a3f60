"""Composition of configurations from ``conf/`` by Hydra."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from soundfold.config.commands import Benchmark, Explore, Prepare
from soundfold.config.model_schema import MODELS, Model
from soundfold.config.null_sections import accept_null_sections
from soundfold.config.schema import OPTIMIZERS, Augment, Config, Data, Optim, Trainer

# every value and its default: in the package if it was built, else in the checkout. Hydra gets it as a path.
PACKAGE = Path(__file__).resolve().parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1] / "conf"


@cache
def register() -> None:
    """Register the schemas with Hydra, and two resolvers; let overrides set sections that are null.

    ``at_most_nyquist: HZ, SAMPLE_RATE`` is the smaller of HZ and half the rate. ``only_if_equal: VALUE, A, B`` is VALUE
    if A equals B, and null otherwise.
    """
    accept_null_sections()
    store = ConfigStore.instance()
    schema, prepare, explore = (OmegaConf.structured(node) for node in (Config, Prepare, Explore))
    schema.logger, schema.callbacks, schema.metrics = {}, {}, {}
    schema.trainer, schema.model, schema.optim = (OmegaConf.structured(node) for node in (Trainer, Model, Optim))
    # so that overrides need no plus sign to add an entry, and that a key of `trainer` that is refused in a file is
    # explained as on the command line; `soundfold.validation` and the class of the network or the optimizer check them
    for section in ("logger", "callbacks", "metrics", "trainer", "model", "optim"):
        OmegaConf.set_struct(schema[section], False)
    for node in (schema, explore):
        node.augment = Augment
        node.augment.extra = {}
        OmegaConf.set_struct(node.augment.extra, False)
    for node in (schema, prepare, explore):
        node.data = Data
        node.data.reader = {}
        OmegaConf.set_struct(node.data.reader, False)
    store.store(name="schema", node=schema)
    store.store(name="benchmark_schema", node=Benchmark)
    store.store(name="prepare_schema", node=prepare)
    store.store(name="explore_schema", node=explore)
    for name, node in MODELS.items():
        store.store(group="schema/model", name=name, node=open_section(node))
    for name, node in OPTIMIZERS.items():
        store.store(group="schema/optim", name=name, node=open_section(node))
    OmegaConf.register_new_resolver("at_most_nyquist", lambda hz, rate: min(float(hz), rate / 2), replace=True)
    OmegaConf.register_new_resolver("only_if_equal", lambda value, a, b: value if a == b else None, replace=True)


def search_path(folder: Path) -> str:
    """Return the override that adds a folder with configuration groups.

    Example:
        >>> search_path(Path("/home/jörg/conf"))
        "hydra.searchpath=['file:///home/jörg/conf']"
    """
    return f"hydra.searchpath=[{QuotedString(f'file://{folder.resolve()}', Quote.single).with_quotes()}]"


def open_section(schema: type) -> DictConfig:
    """Return a section of the schema's types that accepts further keys: arguments of a class, which checks them."""
    section = OmegaConf.structured(schema)
    OmegaConf.set_struct(section, False)
    return section


def compose_config(*overrides: str) -> DictConfig:
    """Return the configuration of a training with these overrides; within Hydra, with its search path."""
    if GlobalHydra.instance().is_initialized():
        return compose("train", list(overrides))
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))
