"""Configurations stored by the first edition, read in the keys of this one."""

import pytest
from omegaconf import OmegaConf

from soundfold.config import SCHEMA_VERSION, compose_config, known_keys, migrate, new_name, refuse_unknown_keys, to_yaml
from soundfold.config.frozen import fill_missing, frozen_values
from soundfold.config.migration import samples_to_seconds
from soundfold.errors import InputError

DATA = {"fetch": "esc50", "resident": None, "sample_rate": 44100}
FEATURES = {"n_fft": 2048, "hop_length": 441, "f_max": 20000.0}


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [
        ("data", DATA, {"download": "esc50", "on_device": None, "sample_rate": 44100}),
        ("model", {"rate_decay": 0.63}, {"layer_decay": 0.63}),
        ("trainer", {"devices": 2, "halve_on_oom": True}, {"devices": 2}),
        ("trainer", {"micro_batches": 4}, {"accumulate_grad_batches": 4}),
        ("augment", {"roll": None, "polarity": 0.5}, {"time_shift": None, "polarity": 0.5}),
        (
            "augment",
            {"stretch": {"low": 0.8, "high": 1.2, "probability": 0.5, "whole": False}},
            {"time_stretch": {"low": 0.8, "high": 1.2, "p": 0.5, "integer": False}},
        ),
        (
            "augment",
            {"semitones": {"low": -2.0, "high": 2.0, "probability": 1.0, "whole": True}},
            {"pitch_shift": {"low": -2.0, "high": 2.0, "p": 1.0, "integer": True}},
        ),
        ("augment", {"time_masks": {"count": 2, "probability": 0.9}}, {"time_masks": {"count": 2, "p": 0.9}}),
    ],
)
def test_keys_of_the_first_edition(section, old, new):
    assert migrate({section: old})[section] == fill_missing({section: new})[section]


def test_graphs_of_the_compiled_network_are_a_graph_of_the_step():
    migrated = migrate({"schema_version": 2, "model": {"compile": "graphs"}, "trainer": {}})
    assert (migrated["model"]["compile"], migrated["trainer"]["cuda_graph"]) == ("default", True)
    assert migrate({"schema_version": 2, "model": {"compile": "graphs"}})["model"]["compile"] == "default"


def test_accumulation_has_the_name_of_lightnings_argument():
    migrated = migrate({"schema_version": 2, "trainer": {"micro_batches": 4, "devices": 2}})
    assert migrated["trainer"] == fill_missing({"trainer": {"accumulate_grad_batches": 4, "devices": 2}})["trainer"]


def test_callbacks_are_the_selection():
    options = {"monitor": "val/loss", "choose": "best", "patience": 10}
    assert migrate({"callbacks": options})["selection"] == options


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"wandb": None, "tensorboard": False}, {}),
        ({"wandb": None, "tensorboard": True}, {"tensorboard": {}}),
        ({"wandb": {"project": "p", "tags": []}, "tensorboard": False}, {"wandb": {"project": "p", "tags": []}}),
        ({"wandb": {"notes": None}, "tensorboard": True}, {"wandb": {"notes": None}, "tensorboard": {}}),
    ],
)
def test_loggers_of_the_first_edition(old, new):
    assert migrate({"logger": old})["logger"] == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (FEATURES, {"window": 0.04644, "hop": 0.01, "n_fft": None, "f_max": None}),
        ({**FEATURES, "n_fft": 1500}, {"window": 0.03401, "hop": 0.01, "n_fft": 1500, "f_max": None}),
        ({**FEATURES, "hop_length": 512, "f_max": 22050.0}, {"window": 0.04644, "hop": 0.01161, "f_max": 22050.0}),
    ],
)
def test_samples_become_seconds(old, new):
    features = migrate({"data": DATA, "features": old})["features"]
    assert features == fill_missing({"features": {"n_fft": None, **new}})["features"]


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000, 192000, 768000])
def test_seconds_round_to_the_same_samples(rate):
    for samples in (*range(1, 3000, 7), 4096, 32768):
        assert round(samples_to_seconds(samples, rate) * rate) == samples


def test_a_configuration_of_this_edition_is_unchanged():
    cfg = compose_config("augment=strong", "search=lr_wd", "crops.seconds=2")
    stored = OmegaConf.to_container(OmegaConf.create(to_yaml(cfg)))
    assert stored["schema_version"] == SCHEMA_VERSION
    assert migrate(stored) == OmegaConf.to_container(cfg, resolve=True)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, "2", None])
def test_a_version_that_cannot_be_read_is_refused(version):
    with pytest.raises(InputError, match=f"schema_version={version} is not supported"):
        migrate({"schema_version": version})


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ("data.fetch", r"data\.fetch was renamed: set data\.download"),
        ("features.hop_length", r"features\.hop_length was renamed: set features\.hop"),
        ("callbacks.patience", r"callbacks\.patience was renamed: set selection\.patience"),
        ("augment.roll.whole", r"augment\.roll\.whole was renamed: set augment\.time_shift\.integer"),
        ("augment.noise_std.probability", r"was renamed: set augment\.noise_std\.p "),
        ("trainer.micro_batches", r"was renamed: set trainer\.accumulate_grad_batches"),
        ("trainer.halve_on_oom", r"trainer\.halve_on_oom was removed: set trainer\.accumulate_grad_batches"),
    ],
)
def test_an_old_key_names_its_successor(old, message):
    with pytest.raises(InputError, match=message):
        refuse_unknown_keys([old])


def test_no_key_of_this_edition_is_renamed():
    # the first edition's name of `selection` is the section of Lightning's callbacks now
    assert [key for key in sorted(known_keys()) if new_name(key) != key] == ["callbacks"]


def test_keys_that_a_stored_configuration_lacks_have_their_frozen_values():
    migrated = migrate({"crops": {}, "augment": {"gain_db": {"low": -6.0, "high": 6.0}, "time_masks": None}})
    assert migrated["crops"] == {"seconds": None, "trim": False, "test": None}
    assert migrated["augment"]["gain_db"] == {"low": -6.0, "high": 6.0, "p": 1.0, "integer": False}
    assert migrated["augment"]["time_masks"] is migrated["augment"]["copies"] is None
    assert migrated["augment"]["mixing"]["mixup"] == 0.0
    assert "model" not in migrated


def test_frozen_lists_are_not_shared():
    migrate({"augment": {}})["augment"]["noise_colours"].append(2.0)
    assert frozen_values()["augment.noise_colours"] == [0.0]
