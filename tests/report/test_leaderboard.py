"""A list of finished runs, on folders such as runs leave."""

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import ROOT, write_run
from omegaconf import OmegaConf

from soundfold.config import compose_config
from soundfold.errors import InputError
from soundfold.evaluation.compare import load_run
from soundfold.report import leaderboard
from soundfold.report.leaderboard import (
    as_csv,
    as_markdown,
    differing_keys,
    grouped_differences,
    holds_runs,
    list_runs,
    sort_runs,
)

PLAIN = """
data: {name: toy, root: %s}
augment: {polarity: 0.0, time_stretch: null}
optim: {lr: %s}
seed: 0
"""
STRONG = """
data: {name: toy, root: %s}
augment: {polarity: 0.5, time_stretch: {low: 0.8, high: 1.2}}
optim: {lr: %s}
seed: 0
"""


def finish(outputs: Path, name: str, config: str, right: int, at: int, leaky: bool = False) -> Path:
    folder = write_run(outputs / name, np.arange(12) % 6 < right, leaky=leaky)
    for k in (1, 2, 3):
        (folder / f"fold{k}" / "config.yaml").write_text(config)
        os.utime(folder / f"fold{k}" / "result.json", (at, at))
    return folder


@pytest.fixture
def outputs(tmp_path) -> Path:
    finish(tmp_path, "toy-c", PLAIN % ("/a", "0.001"), right=2, at=1000)
    finish(tmp_path, "toy-a", PLAIN % ("/b", "0.0003"), right=4, at=2000)
    finish(tmp_path, "toy-leaky-b", STRONG % ("/a", "0.001"), right=5, at=1500, leaky=True)
    half = finish(tmp_path, "toy-d", PLAIN % ("/a", "0.01"), right=3, at=3000)
    for k in (2, 3):
        (half / f"fold{k}" / "result.json").unlink()
    (tmp_path / "multirun" / "2026").mkdir(parents=True)
    (tmp_path / "comparison-1234").mkdir()
    return tmp_path


def report(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "report.py"), *words]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_holds_runs_is_no_run(outputs):
    assert holds_runs(outputs)
    assert not holds_runs(outputs / "toy-a")
    assert not holds_runs(outputs / "multirun")
    assert not holds_runs(outputs / "nowhere")


def test_finished_runs_newest_last_and_unfinished_with_what_they_miss(outputs):
    runs, unfinished = list_runs(outputs)
    assert [run.name for run in runs] == ["toy-c", "toy-leaky-b", "toy-a"]
    assert unfinished == ["toy-d (missing: 2, 3)"]


def test_columns_are_what_differs_and_changes_the_numbers(outputs):
    runs, _ = list_runs(outputs)
    assert differing_keys(runs) == {
        "augment.polarity": ["0.0", "0.5", "0.0"],
        "augment.time_stretch.low": ["", "0.8", ""],
        "augment.time_stretch.high": ["", "1.2", ""],
        "optim.lr": ["0.001", "0.001", "0.0003"],
    }
    assert grouped_differences(runs) == {
        "augment.polarity and 2 more": ["0.0", "0.5", "0.0"],
        "optim.lr": ["0.001", "0.001", "0.0003"],
    }


def test_a_section_that_is_an_option_goes_by_its_name(tmp_path):
    for name, words in {"toy-a": ["augment=strong"], "toy-b": ["augment=none"], "toy-c": ["optim.lr=0.1"]}.items():
        finish(tmp_path, name, OmegaConf.to_yaml(compose_config(*words)), right=2, at=1000)
    runs, _ = list_runs(tmp_path)
    columns = grouped_differences(runs)
    assert columns["optim.lr"] == ["0.001", "0.001", "0.1"]
    assert columns["augment"] == ["strong", "none", "noise_stretch_pitch"]


def test_values_are_compared_as_yaml(outputs):
    assert [run.name for run in list_runs(outputs, ["optim.lr=1e-3"])[0]] == ["toy-c", "toy-leaky-b"]
    assert [run.name for run in list_runs(outputs, ["optim.lr=1e-3", "augment.time_stretch=null"])[0]] == ["toy-c"]
    # a key that a run lacks holds for none
    assert [run.name for run in list_runs(outputs, ["augment.time_stretch.low=0.8"])[0]] == ["toy-leaky-b"]
    assert list_runs(outputs, ["optim.lr=0.01"]) == ([], ["toy-d (missing: 2, 3)"])


@pytest.mark.parametrize(
    ("condition", "told"), [("optim.lrr=1", "Did you mean optim.lr"), ("optim.lr", "is no condition")]
)
def test_a_condition_that_is_none_is_refused(outputs, condition, told):
    with pytest.raises(InputError, match=told):
        list_runs(outputs, [condition])


def test_sorting(outputs):
    runs, _ = list_runs(outputs)
    assert [run.name for run in sort_runs(runs, "accuracy")] == ["toy-c", "toy-a", "toy-leaky-b"]
    assert [run.name for run in sort_runs(runs, "name")] == ["toy-a", "toy-c", "toy-leaky-b"]
    assert [run.name for run in sort_runs(runs, "optim.lr")] == ["toy-a", "toy-c", "toy-leaky-b"]
    assert [run.name for run in sort_runs(runs, "augment.time_stretch.low")][-1] == "toy-leaky-b"
    with pytest.raises(InputError, match="Did you mean accuracy"):
        sort_runs(runs, "acuracy")


def test_the_interval_of_cv_json_is_taken_while_its_folds_are_those(outputs, monkeypatch):
    folder = outputs / "toy-a"
    total = asdict(load_run(folder).total) | {"interval": [0.25, 0.75]}
    (folder / "cv.json").write_text(json.dumps(total))
    (run,) = (run for run in list_runs(outputs)[0] if run.name == "toy-a")
    assert run.total.interval == (0.25, 0.75)
    total["folds"][0]["loss"] = 2.0
    (folder / "cv.json").write_text(json.dumps(total))
    (run,) = (run for run in list_runs(outputs)[0] if run.name == "toy-a")
    assert run.total.interval == load_run(folder).interval


def test_csv_has_every_key_and_numbers_in_full(outputs):
    rows = list(csv.DictReader(io.StringIO(as_csv(list_runs(outputs)[0]))))
    assert [row["run"] for row in rows] == ["toy-c", "toy-leaky-b", "toy-a"]
    assert [row["leaky"] for row in rows] == ["false", "true", "false"]
    assert [float(row["accuracy"]) for row in rows] == pytest.approx([2 / 6, 5 / 6, 4 / 6])
    assert [row["augment.time_stretch.high"] for row in rows] == ["", "1.2", ""]
    assert float(rows[0]["seconds"]) == 3.0


def test_markdown_marks_what_leaks(outputs):
    lines = as_markdown(list_runs(outputs)[0]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert [("LEAKY" in line) for line in lines[2:]] == [False, True, False]


def test_the_terminal_lists_a_folder_of_runs(outputs):
    done = report(str(outputs), "--sort", "accuracy", "--where", "augment.polarity=0")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "Not finished: toy-d (missing: 2, 3).\n"
    rows = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert [row.split()[1] for row in rows] == ["toy-c", "toy-a"]
    assert "33.33 ± " in rows[0]
    refused = report(str(outputs / "toy-a"), "--format", "csv")
    assert refused.returncode == 2
    assert "give the one folder that holds them" in refused.stderr


def test_a_damaged_run_is_named_and_the_others_are_listed(outputs):
    (outputs / "toy-c" / "fold1" / "result.json").write_text("{")
    runs, unfinished = list_runs(outputs)
    assert [run.name for run in runs] == ["toy-leaky-b", "toy-a"]
    assert "is not a fold's result" in unfinished[0]


def test_a_single_run_has_no_columns_and_can_be_listed(tmp_path):
    finish(tmp_path, "toy-c", PLAIN % ("/a", "0.001"), right=2, at=1000)
    runs, _ = list_runs(tmp_path)
    assert differing_keys(runs) == {}
    assert len(leaderboard.as_markdown(runs).splitlines()) == 3
