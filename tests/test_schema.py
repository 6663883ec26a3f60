"""Every key has a default and a comment in conf/; the schema has types, choices and ranges."""

import re
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields
from typing import get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import MISSING, OmegaConf

from soundfold.config import CONF, Benchmark, Config, Explore, Prepare, known_keys, model_schema, register
from soundfold.config import commands as command_schemas
from soundfold.config import schema as schemas
from soundfold.config.comments import key_comments
from soundfold.errors import InputError
from soundfold.validation import check_values

# entries of sections that are null in conf/
ENTRIES = {"Uniform": {"p", "integer"}, "MaskSpec": {"p"}, "Copies": {"after"}}
ENTRIES["Parameter"] = {"low", "high", "log", "integer", "choices"}
COMMANDS = {"train": Config, "prepare": Prepare, "explore": Explore, "benchmark": Benchmark}


def test_the_schema_has_no_defaults():
    for name, node in {**vars(schemas), **vars(model_schema), **vars(command_schemas)}.items():
        if hasattr(node, "__dataclass_fields__"):
            defaults = {f.name for f in fields(node) if f.default is not MISSING}
            assert defaults == ENTRIES.get(name, set()), name
            assert all(f.default_factory is NO_DEFAULT for f in fields(node))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_has_a_comment(command):
    comments = key_comments(command)
    for key in sorted(known_keys(COMMANDS[command])):
        section, _, name = key.rpartition(".")
        if is_entry(section, COMMANDS[command]):
            # conf/ cannot hold the keys of a null section: the section's comment names them
            assert re.search(rf"\b{name}\b", comments[section]), key
        elif not any(other.startswith(f"{key}.") for other in known_keys(COMMANDS[command])):
            assert comments.get(key), f"{key} has no comment in conf/"


def is_entry(section: str, schema: type) -> bool:
    node = schema
    for part in section.split(".") if section else ():
        hint = get_type_hints(node).get(part)
        kinds = [kind for kind in (hint, *getattr(hint, "__args__", ())) if hasattr(kind, "__dataclass_fields__")]
        if not kinds:
            return False
        node = kinds[0]
    return node.__name__ in (*ENTRIES, "FindLr", "Image")


@pytest.mark.parametrize("command", COMMANDS)
def test_conf_has_every_value(command):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def test_base_files_hold_every_key_of_the_schema():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["search=lr_wd"])
    assert {key for key in known_keys() if key.count(".") == 0} == set(cfg)
    assert {f"search.{key}" for key in cfg.search} == {
        key for key in known_keys() if key.startswith("search.") and key.count(".") == 1
    }


def section(values: dict) -> None:
    check_values(OmegaConf.merge(OmegaConf.structured(schemas.Trainer), BASE, values), "trainer.")


BASE = {f.name: None for f in fields(schemas.Trainer)} | {
    "accelerator": "cpu",
    "precision": "32-true",
    **dict.fromkeys(
        ("devices", "num_nodes", "accumulate_grad_batches", "max_epochs", "max_steps", "log_every_n_steps"), 1
    ),
    **dict.fromkeys(("deterministic", "tf32", "enable_progress_bar", "inference_mode", "detect_anomaly"), False),
    **dict.fromkeys(("enable_model_summary", "enable_autolog_hparams", "num_sanity_val_steps"), 0),
    "check_val_every_n_epoch": 1,
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"accelerator": "gpuu"},
            r"^trainer\.accelerator=gpuu must be one of auto, cpu, gpu, cuda, mps\. Did you mean gpu\?$",
        ),
        ({"devices": 0}, r"^trainer\.devices=0 must be at least 1\.$"),
        ({"gradient_clip_val": -0.5}, r"^trainer\.gradient_clip_val=-0\.5 must be at least 0\.$"),
        ({"gradient_clip_val": float("nan")}, r"^trainer\.gradient_clip_val=nan must be a number\.$"),
        ({"max_steps": 2**70}, r"^trainer\.max_steps must be an integer of 64 bits"),
    ],
)
def test_a_value_outside_its_range_is_refused(values, message):
    section({})
    with pytest.raises(InputError, match=message):
        section(values)
