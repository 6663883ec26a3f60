"""Damaged files of runs: one sentence each, and the other runs are listed."""

import csv
import json
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.runs import rebind, write_run

from soundfold.errors import InputError
from soundfold.evaluation import predictions, results
from soundfold.evaluation.compare import load_run
from soundfold.evaluation.results import FoldResult, load_config, load_curves
from soundfold.io.atomic import dumps_with_checksum
from soundfold.io.csv_text import csv_text
from soundfold.report.leaderboard import list_runs, sort_runs
from soundfold.report.leaderboard_table import as_csv, as_markdown
from soundfold.report.reporter import RunReporter
from soundfold.validation import report_options

DEEP = "[" * 100_000 + "]" * 100_000
WRONG = (None, True, 5, -1, 1.5, float("nan"), 1e400, "text", [], {}, [[]], [None], [5], ["text"], {"a": 5}, {"a": []})


@pytest.fixture
def outputs(tmp_path) -> Path:
    for name in ("toy-a", "toy-b", "toy-c"):
        write_run(tmp_path / name, np.arange(12) % 6 < 4)
    return tmp_path


def list_all(outputs: Path) -> tuple[list[str], list[str]]:
    """List the runs in every format; return the names of the finished ones and the descriptions of the others."""
    runs, unfinished = list_runs([outputs])
    for key in ("finished", "accuracy", "time", "optim.lr"):
        assert len(sort_runs(runs, key)) == len(runs)
    assert all(run.name in as_csv(runs) and run.name in as_markdown(runs) for run in runs)
    return [run.name for run in runs], unfinished


def damage_json(path: Path, **changes) -> None:
    values = json.loads(path.read_text())
    del values["checksum"]
    path.write_text(dumps_with_checksum({**values, **changes}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *product(
            ("result.json", "config.yaml"),
            # opening a pipe would block, and reading /dev/zero would exhaust memory
            ("deep", "list", "truncated", "binary", "empty", "large", "directory", "unknown", "pipe", "endless"),
        ),
    ],
)
def test_a_damaged_file_is_explained_and_the_other_runs_are_listed(name, damage, outputs, monkeypatch):
    path = outputs / "toy-b" / "fold1" / name
    content = path.read_bytes()
    if damage == "directory":
        path.unlink()
        path.mkdir()
    elif damage in ("pipe", "endless"):
        path.unlink()
        os.mkfifo(path) if damage == "pipe" else path.symlink_to("/dev/zero")
    elif damage == "unknown":
        path.write_bytes(content.replace(b"seed", b"seeds" if name == "result.json" else b"data"))
    else:
        monkeypatch.setattr(results, "MAX_JSON", 10_000)
        large = b"[" + b"1," * 50_000 + b"1]"
        by_damage = {"list": b"[1]", "truncated": content[:40], "binary": bytes(range(256)), "empty": b""}
        path.write_bytes({**by_damage, "deep": DEEP.encode(), "large": large}[damage])
    finished, (reason,) = list_all(outputs)
    assert finished == ["toy-a", "toy-c"]
    assert reason.startswith("toy-b (unreadable: ")
    assert name in reason
    with pytest.raises(InputError, match=name) as error:
        load_run(outputs / "toy-b")
    assert len(str(error.value)) < 700


# in files the metrics are beside the other fields
FIELDS = [*(name for name in FoldResult.__dataclass_fields__ if name != "metrics"), "f1", "top5"]


@pytest.mark.parametrize("field", FIELDS)
def test_a_result_with_a_value_of_another_type_is_refused_or_listed(field, outputs):
    path = outputs / "toy-b" / "fold1" / "result.json"
    values = json.loads(path.read_text())
    refused = 0
    for wrong in WRONG:
        damage_json(path, **{field: wrong})
        finished, unreadable = list_all(outputs)
        assert {"toy-a", "toy-c"} <= set(finished)
        assert len(finished) + len(unreadable) == 3
        refused += len(unreadable)
        if not unreadable:
            load_run(outputs / "toy-b").leaks()
    assert refused > 5
    damage_json(path, **{field: values[field]})
    assert len(list_all(outputs)[0]) == 3


@pytest.mark.parametrize(
    "key", ["data", "data.name", "logger", "augment", "optim", "trainer", "seed", "report", "name"]
)
def test_a_configuration_with_a_value_of_another_type_is_refused_or_listed(key, outputs):
    path = outputs / "toy-b" / "fold1" / "config.yaml"
    values = yaml.safe_load(path.read_text())
    section, _, name = key.partition(".")
    for wrong in WRONG:
        changed = {**values, section: {**values[section], name: wrong} if name else wrong}
        path.write_text(yaml.safe_dump({"schema_version": 2, **changed}))
        finished, unreadable = list_all(outputs)
        assert {"toy-a", "toy-c"} <= set(finished)
        assert len(finished) + len(unreadable) == 3
        if key == "data.name":
            assert bool(unreadable) != isinstance(wrong, str)


@pytest.mark.parametrize("environment", [{}, {"versions": {"torch": [5]}, "commit": {}}, {"a": None, "b": DEEP[:100]}])
def test_an_environment_may_have_values_of_any_type(environment, outputs):
    folder = outputs / "toy-b"
    damage_json(folder / "fold1" / "result.json", environment=environment, audit={"train": 4, "other": None})
    RunReporter().report_run(folder, load_run(folder), report_options(["report.page=plain"]), {})
    assert (folder / "report.html").is_file()


def test_files_larger_than_their_limit_are_refused(outputs, monkeypatch):
    folder = outputs / "toy-b"
    run = load_run(folder)
    (folder / "fold1" / "metrics.csv").write_text("epoch,val/loss\n" + "1,1\n" * 50)
    monkeypatch.setattr(results, "MAX_JSON", 100)
    with pytest.raises(InputError, match=r"metrics.csv is damaged \(it is larger than 0 MB, the limit"):
        load_curves(folder, [1])
    monkeypatch.undo()
    monkeypatch.setattr(predictions, "MAX_CSV", 100)
    with pytest.raises(InputError, match=r"predictions.csv cannot be read \(it is larger than"):
        load_run(folder)
    assert load_config(folder / "fold1" / "config.yaml") == run.config


@pytest.mark.parametrize("cached", ["5", DEEP, '{"folds": 5}', '{"folds": [], "interval": 5}'])
def test_a_damaged_summary_is_computed_again(cached, outputs):
    expected = list_runs([outputs])[0][0].interval
    (outputs / "toy-a" / "cv.json").write_text(cached)
    assert list_runs([outputs])[0][0].interval == expected


def test_a_logit_that_is_not_finite_is_refused(outputs):
    fold = outputs / "toy-b" / "fold1"
    header, first, *rest = csv.reader((fold / "predictions.csv").read_text().splitlines())
    (fold / "predictions.csv").write_text(csv_text([header, [*first[:-1], "nan"], *rest]))
    rebind(fold)
    with pytest.raises(InputError, match=r"predictions.csv cannot be read \(a logit is not a finite number\)"):
        load_run(outputs / "toy-b")


def test_learning_curves_that_cannot_be_read_are_named(outputs, monkeypatch):
    path = outputs / "toy-b" / "fold1" / "metrics.csv"
    path.touch()

    def refuse(*args):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(results, "read_text", refuse)
    with pytest.raises(InputError, match=r"metrics.csv is damaged \(.*Permission denied"):
        load_curves(outputs / "toy-b", [1])


@pytest.mark.parametrize(("name", "kind"), [("report.html", "folder"), ("figures", "file"), ("cv.lock", "folder")])
def test_a_folder_in_place_of_a_file_is_named(name, kind, outputs):
    folder = outputs / "toy-b"
    (folder / name).mkdir() if kind == "folder" else (folder / name).touch()
    options = report_options([f"report.page={'full' if name == 'figures' else 'plain'}"])
    with pytest.raises(InputError, match=rf"{name} cannot be written: .*remove or rename it"):
        RunReporter().report_run(folder, load_run(folder), options, {})
    assert not list(folder.glob("*.part"))
