"""Configurations stored in a run and in a weights.pt, which may come from a stranger."""

import shutil
from pathlib import Path

import pytest

from soundfold.config import parse_stored, stored_values, to_yaml
from soundfold.config.composition import compose_config
from soundfold.errors import InputError
from soundfold.evaluation.results import load_config
from soundfold.experiment.build import refuse_foreign_keys, stored_sections
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.io.checkpoints import load_checkpoint, save_checkpoint
from soundfold.report.leaderboard import list_runs

GOLDEN = Path(__file__).parent / "golden" / "first_edition" / "first_edition-2bb17ae9"
SECRET = "5ec2e7fedcba98"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
HOSTILE = {
    "data: {root: '${oc.env:SOUNDFOLD_SECRET}'}": "data.root is an interpolation",
    "features: {n_fft: '${oc.env:SOUNDFOLD_SECRET}'}": "features.n_fft is an interpolation",
    "logger: {mine: {tags: [1, 'x${oc.env:SOUNDFOLD_SECRET}']}}": "logger.mine.tags.1 is an interpolation",
    "data: {'${oc.env:SOUNDFOLD_SECRET}': 1}": "is an interpolation",
    "data: {root: '???'}": "data.root has no value",
    BOMB: "it has a YAML alias",
    "seed: !!python/object/apply:os.getcwd []": "could not determine a constructor",
    "seed: !!binary aGVsbG8=": "seed is of type bytes",
    "seed: 2026-01-01": "seed is of type date",
    "seed: {": "it is not plain YAML",
    "seed: \x1b[2J": "it is not plain YAML",
    "seed: 0\nseed: 1": "it has the key 'seed' twice",
    "1: {}": "its key 1 is not text",
    "- seed": "it is not a mapping",
    "seed": "it is not a mapping",
    "": "it is empty",
    "a: " + "[" * 2_000: "it has more than 20 levels",
    "a: " + "[" * 30 + "]" * 30: "it has more than 20 levels",
    "a: " + "x" * 100_000: "longer than 100000 characters",
    "data: {sample_rate: 1, seconds: 1}\nfeatures: {hop_length: 1}": "'n_fft'",
}


@pytest.mark.parametrize(("text", "reason"), HOSTILE.items(), ids=range(len(HOSTILE)))
def test_a_hostile_configuration_is_refused_in_one_sentence(tmp_path, monkeypatch, text, reason):
    monkeypatch.setenv("SOUNDFOLD_SECRET", SECRET)
    fold = tmp_path / "run" / "fold1"
    fold.mkdir(parents=True)
    (fold / "config.yaml").write_text(text)
    weights = tmp_path / "weights.pt"
    content = load_checkpoint(GOLDEN / "fold1" / "checkpoints" / "weights.pt")
    save_checkpoint(weights, content | {"config": text})
    for path, load in ((fold / "config.yaml", load_config), (weights, ModelBundle.load)):
        with pytest.raises(InputError) as error_info:
            load(path)
        message = str(error_info.value)
        assert message.startswith(f"{path} ")
        assert reason in message
        assert SECRET not in message
        assert "\n" not in message
    # it does not hide the other runs of a folder
    shutil.copytree(GOLDEN, tmp_path / "other")
    finished, unfinished = list_runs([tmp_path])
    assert [run.name for run in finished] == ["other"]
    assert len(unfinished) == 1
    assert reason in unfinished[0]


def test_a_configuration_that_is_not_text_is_refused(tmp_path):
    content = load_checkpoint(GOLDEN / "fold1" / "checkpoints" / "weights.pt")
    save_checkpoint(tmp_path / "weights.pt", content | {"config": {"data": {"root": "${oc.env:HOME}"}}})
    with pytest.raises(InputError, match="its configuration is not text"):
        ModelBundle.load(tmp_path / "weights.pt")


def test_a_section_that_is_text_is_not_parsed():
    with pytest.raises(InputError, match=r"stored configuration has data='root: x', not a mapping"):
        stored_sections({"schema_version": 2, "data": "root: x"})


def test_a_stored_configuration_is_read_back():
    cfg = compose_config(
        "experiment=scratch", "data=esc10", "label='1e-3'", "optim.lr=1e-5", "+logger.mine.tags={1: a}"
    )
    stored = parse_stored(to_yaml(cfg))
    assert stored == {"schema_version": 2, **stored_values(cfg)}
    assert stored["label"] == "1e-3"


def test_interpolated_options_of_loggers_are_not_stored(monkeypatch):
    monkeypatch.setenv("SOUNDFOLD_SECRET", SECRET)
    cfg = compose_config(
        "+logger.mine.word='${oc.env:SOUNDFOLD_SECRET}'", "+logger.mine.tags=['${logger.mine.word}',b]"
    )
    assert cfg.logger.mine.tags[0] == SECRET
    assert stored_values(cfg)["logger"]["mine"] == {"word": "<interpolated>", "tags": ["<interpolated>", "b"]}
    assert SECRET not in to_yaml(cfg)


@pytest.mark.parametrize(
    ("section", "values", "reason"),
    [
        ("data", {"seconds": 1e9}, "data.seconds=1000000000.0 must be between 1 sample and"),
        ("data", {"seconds": float("nan")}, "data.seconds=nan must be a number"),
        ("data", {"seconds": "long"}, "could not be converted to Float"),
        ("data", {"layout": "other"}, "data.layout=other must be one of"),
        ("features", {"n_fft": 10**9}, "features.n_fft=1000000000 must be between"),
    ],
)
def test_a_stored_value_obeys_the_rules_of_a_configuration(section, values, reason):
    """Otherwise a stranger's file could exhaust memory, or end a report with a traceback."""
    stored = load_config(GOLDEN / "fold1" / "config.yaml")
    stored_sections(stored)
    with pytest.raises(InputError, match="run/config.yaml has an invalid value: ") as error:
        stored_sections({**stored, section: {**stored[section], **values}}, "run/config.yaml")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_foreign_key_is_refused_beside_another_network():
    stored = load_config(GOLDEN / "fold1" / "config.yaml")
    stored["model"] = {**stored["model"], "_target_": "mine.Network", "depth": 3}
    stored["features"] = {**stored["features"], "taper": "hann"}
    with pytest.raises(InputError, match="run has the key features.taper"):
        refuse_foreign_keys(stored, "run")
