"""The list of finished runs, on run folders written without training."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import ROOT, write_run

from soundfold.cli.report import main
from soundfold.config import compose_config, to_yaml
from soundfold.errors import InputError
from soundfold.evaluation.compare import load_run
from soundfold.evaluation.published import LeaderboardRow
from soundfold.io.atomic import dumps_with_checksum
from soundfold.report import terminal
from soundfold.report.config_diff import differing_keys, grouped_differences
from soundfold.report.leaderboard import ListedRun, holds_runs, list_runs, sort_runs
from soundfold.report.leaderboard_table import as_csv, as_markdown, print_leaderboard
from soundfold.report.reporter import RunReporter
from soundfold.validation import report_options

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


def finish(outputs: Path, name: str, config: str, correct: int, mtime: int, leaky: bool = False) -> Path:
    folder = write_run(outputs / name, np.arange(12) % 6 < correct, leaky=leaky)
    for k in (1, 2, 3):
        (folder / f"fold{k}" / "config.yaml").write_text(config)
        os.utime(folder / f"fold{k}" / "result.json", (mtime, mtime))
    return folder


@pytest.fixture
def outputs(tmp_path) -> Path:
    finish(tmp_path, "toy-c", PLAIN % ("/a", "0.001"), correct=2, mtime=1000)
    finish(tmp_path, "toy-a", PLAIN % ("/b", "0.0003"), correct=4, mtime=2000)
    finish(tmp_path, "toy-leaky-b", STRONG % ("/a", "0.001"), correct=5, mtime=1500, leaky=True)
    half = finish(tmp_path, "toy-d", PLAIN % ("/a", "0.01"), correct=3, mtime=3000)
    for k in (2, 3):
        (half / f"fold{k}" / "result.json").unlink()
    (tmp_path / "multirun" / "2026").mkdir(parents=True)
    (tmp_path / "comparison-1234").mkdir()
    return tmp_path


def configs(runs: list[ListedRun]) -> list[dict]:
    return [run.config for run in runs]


def report(*args: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "report.py"), *args]
    return subprocess.run(command, capture_output=True, text=True)


def test_holds_runs_is_false_for_a_run(outputs):
    assert holds_runs(outputs)
    assert not holds_runs(outputs / "toy-a")
    assert not holds_runs(outputs / "multirun")
    assert not holds_runs(outputs / "nowhere")


def test_lists_runs_newest_last_and_missing_folds(outputs):
    (outputs / "toy-e" / "fold1").mkdir(parents=True)
    (outputs / "toy-e" / "fold1" / "config.yaml").write_text(PLAIN % ("/a", "0.01"))
    runs, unfinished = list_runs([outputs])
    assert [run.name for run in runs] == ["toy-c", "toy-leaky-b", "toy-a", "toy-d"]
    assert unfinished == ["toy-d (missing: 2, 3)", "toy-e (no fold is finished)"]


def test_an_incomplete_run_is_marked_and_never_ranks_best(outputs):
    folder = finish(outputs, "toy-f", PLAIN % ("/a", "0.03"), correct=6, mtime=100)
    (folder / "fold3" / "result.json").unlink()
    runs = sort_runs(list_runs([outputs])[0], "accuracy")
    assert [run.name for run in runs] == ["toy-d", "toy-f", "toy-c", "toy-a", "toy-leaky-b"]
    lines = as_markdown(runs).splitlines()[2:]
    assert "75.00 (1 of 3 folds)" in lines[0]
    assert "100.00 ± 0.00 (2 of 3 folds)" in lines[1]
    assert not any("of 3 folds" in line for line in lines[2:])
    rows = list(csv.DictReader(io.StringIO(as_csv(runs))))
    assert [(row["folds"], row["all_folds"]) for row in rows] == [("1", "3"), ("2", "3"), *[("3", "3")] * 3]
    assert rows[0]["accuracy_sd"] == ""
    assert not list(outputs.glob("*/cv.json"))


def test_columns_are_the_differing_keys_that_affect_results(outputs):
    runs, _ = list_runs([outputs])
    assert differing_keys(configs(runs)) == {
        "augment.polarity": ["0.0", "0.5", "0.0", "0.0"],
        "augment.time_stretch.low": ["", "0.8", "", ""],
        "augment.time_stretch.high": ["", "1.2", "", ""],
        # missing in the stored configuration: the values that it was computed with
        "augment.time_stretch.p": ["", "1.0", "", ""],
        "augment.time_stretch.integer": ["", "false", "", ""],
        "optim.lr": ["0.001", "0.001", "0.0003", "0.01"],
    }
    assert grouped_differences(configs(runs)) == {
        "augment.polarity and 4 more": ["0.0", "0.5", "0.0", "0.0"],
        "optim.lr": ["0.001", "0.001", "0.0003", "0.01"],
    }


def test_a_section_that_matches_an_option_shows_its_name(tmp_path):
    for name, overrides in {"toy-a": ["augment=strong"], "toy-b": ["augment=none"], "toy-c": ["optim.lr=0.1"]}.items():
        finish(tmp_path, name, to_yaml(compose_config(*overrides)), correct=2, mtime=1000)
    runs, _ = list_runs([tmp_path])
    columns = grouped_differences(configs(runs))
    assert columns["optim.lr"] == ["0.001", "0.001", "0.1"]
    assert columns["augment"] == ["strong", "none", "noise_stretch_pitch"]


def test_networks_show_the_name_of_their_option_or_their_class(tmp_path):
    chosen = {"toy-a": "resnet18", "toy-b": "resnet34", "toy-c": "timm"}
    for name, model in chosen.items():
        finish(tmp_path, name, to_yaml(compose_config(f"model={model}")), correct=2, mtime=1000)
    runs, _ = list_runs([tmp_path])
    assert grouped_differences(configs(runs)) == {"model": list(chosen.values())}
    # ResNet-18's own options, which the others do not have, are implied
    assert differing_keys(configs(runs)).keys() == {"model._target_", "model.name"}
    smoothed = to_yaml(compose_config("model=resnet34", "model.label_smoothing=0.1"))
    finish(tmp_path, "toy-d", smoothed, correct=2, mtime=1000)
    columns = grouped_differences(configs(list_runs([tmp_path])[0]))
    assert columns["model.name"] == ["ResNet18", "resnet34", "efficientnet_b0", "resnet34"]
    assert columns["model.label_smoothing"] == ["0.0", "0.0", "0.0", "0.1"]


def test_where_compares_values_as_yaml(outputs):
    assert [run.name for run in list_runs([outputs], ["optim.lr=1e-3"])[0]] == ["toy-c", "toy-leaky-b"]
    assert [run.name for run in list_runs([outputs], ["optim.lr=1e-3", "augment.time_stretch=null"])[0]] == ["toy-c"]
    # a run without the key does not match
    assert [run.name for run in list_runs([outputs], ["augment.time_stretch.low=0.8"])[0]] == ["toy-leaky-b"]
    (run,), unfinished = list_runs([outputs], ["optim.lr=0.01"])
    assert (run.name, unfinished) == ("toy-d", ["toy-d (missing: 2, 3)"])


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("optim.lrr=1", "Did you mean optim.lr"),
        ("optim.lr", "is not a condition"),
        ("optim.lr=[", "the value is not YAML: while parsing"),
        ("optim.lr=!!python/object:os.system", "the value is not YAML: could not determine a constructor"),
    ],
)
def test_bad_conditions_are_refused(outputs, condition, message):
    with pytest.raises(InputError, match=message):
        list_runs([outputs], [condition])


def test_sorting(outputs):
    runs, _ = list_runs([outputs])
    assert [run.name for run in sort_runs(runs, "accuracy")] == ["toy-d", "toy-c", "toy-a", "toy-leaky-b"]
    assert [run.name for run in sort_runs(runs, "name")] == ["toy-a", "toy-c", "toy-d", "toy-leaky-b"]
    assert [run.name for run in sort_runs(runs, "optim.lr")] == ["toy-a", "toy-c", "toy-leaky-b", "toy-d"]
    assert [run.name for run in sort_runs(runs, "augment.time_stretch.low")][-1] == "toy-leaky-b"
    with pytest.raises(InputError, match="Did you mean accuracy"):
        sort_runs(runs, "acuracy")


def test_the_interval_in_cv_json_is_used_while_its_folds_match(outputs):
    folder = outputs / "toy-a"
    total = asdict(load_run(folder).total) | {"interval": [0.25, 0.75]}
    (folder / "cv.json").write_text(dumps_with_checksum(total))
    (run,) = (run for run in list_runs([outputs])[0] if run.name == "toy-a")
    assert run.interval == (0.25, 0.75)
    (folder / "cv.json").write_text(json.dumps(total))
    (run,) = (run for run in list_runs([outputs])[0] if run.name == "toy-a")
    assert run.interval != (0.25, 0.75), "a summary without a checksum is trusted"
    total["folds"][0]["loss"] = 2.0
    (folder / "cv.json").write_text(dumps_with_checksum(total))
    (run,) = (run for run in list_runs([outputs])[0] if run.name == "toy-a")
    assert run.interval == load_run(folder).interval


def test_csv_has_every_differing_key_and_full_precision(outputs):
    rows = list(csv.DictReader(io.StringIO(as_csv(list_runs([outputs])[0]))))
    assert [row["run"] for row in rows] == ["toy-c", "toy-leaky-b", "toy-a", "toy-d"]
    assert [row["leaky"] for row in rows] == ["false", "true", "false", "false"]
    assert [float(row["accuracy"]) for row in rows] == pytest.approx([2 / 6, 5 / 6, 4 / 6, 3 / 4])
    assert [row["augment.time_stretch.high"] for row in rows] == ["", "1.2", "", ""]
    assert float(rows[0]["seconds"]) == 3.0


def test_markdown_marks_leaky_runs(outputs):
    lines = as_markdown(list_runs([outputs])[0]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert [("LEAKY" in line) for line in lines[2:]] == [False, True, False, False]


def test_a_hostile_name_of_a_run_is_plain_text(outputs, capsys):
    runs, _ = list_runs([outputs])
    runs[0] = replace(runs[0], name="a|<img src=x>\n| b\x1b[2J")
    lines = as_markdown(runs).splitlines()
    assert len(lines) == 2 + len(runs)
    assert lines[2].startswith(r"| a\|&lt;img src=x&gt;\\n\| b\\x1b\[2J | ")
    print_leaderboard(runs)
    assert r"a|<img src=x>\n| b\x1b[2J" in capsys.readouterr().out


def test_report_lists_a_folder_of_runs(outputs):
    result = report(str(outputs), "--sort", "accuracy", "--where", "augment.polarity=0")
    assert result.returncode == 0, result.stderr
    assert result.stderr == "Not finished: toy-d (missing: 2, 3).\n"
    rows = [line for line in result.stdout.splitlines() if line.startswith("│")]
    assert [row.split()[1] for row in rows] == ["toy-d", "toy-c", "toy-a"]
    assert "1 of 3 folds" in rows[0]
    assert "33.33 ± " in rows[1]
    refused = report(str(outputs / "toy-a"), "--format", "csv")
    assert refused.returncode == 2
    assert "require a folder of runs" in refused.stderr


def test_a_damaged_result_is_reported_and_the_other_runs_are_listed(outputs):
    (outputs / "toy-c" / "fold1" / "result.json").write_text("{")
    runs, unfinished = list_runs([outputs])
    assert [run.name for run in runs] == ["toy-leaky-b", "toy-a", "toy-d"]
    assert "is not a fold's result" in unfinished[0]


@pytest.mark.parametrize("damage", ["{", "augment: [", None], ids=["not YAML", "unclosed list", "missing"])
def test_a_damaged_configuration_is_reported(outputs, damage):
    path = outputs / "toy-c" / "fold1" / "config.yaml"
    path.unlink() if damage is None else path.write_text(damage)
    with pytest.raises(InputError, match=r"fold1/config.yaml cannot be read .* rerun=true"):
        load_run(outputs / "toy-c")
    runs, unfinished = list_runs([outputs])
    assert [run.name for run in runs] == ["toy-leaky-b", "toy-a", "toy-d"]
    assert "config.yaml cannot be read" in unfinished[0]


def test_a_single_run_has_no_differing_keys(tmp_path):
    finish(tmp_path, "toy-c", PLAIN % ("/a", "0.001"), correct=2, mtime=1000)
    runs, _ = list_runs([tmp_path])
    assert differing_keys(configs(runs)) == {}
    assert len(as_markdown(runs).splitlines()) == 3


def test_published_results_are_shown_by_the_report_only(tiny_run, tmp_path, monkeypatch, capsys):
    """Not after every training: two epochs are no match for them."""
    folder = shutil.copytree(tiny_run, tmp_path / tiny_run.name)
    rows = [LeaderboardRow("a published system", 80.0, "five folds", "a paper")]
    monkeypatch.setattr(terminal, "published_leaderboard", lambda runs: rows)
    RunReporter().report_run(folder, load_run(folder), report_options(["report.page=none"]), {})
    out = capsys.readouterr().out
    assert "mean ± sd" in out
    assert "a published system" not in out
    monkeypatch.setattr(sys, "argv", ["report.py", str(folder), "report.page=none"])
    main()
    assert "a published system" in capsys.readouterr().out


@pytest.fixture
def machines(outputs, tmp_path_factory) -> tuple[Path, Path]:
    """The outputs of two machines: a copy of a run, a run that both trained, and one of the second machine."""
    second = tmp_path_factory.mktemp("second") / "outputs"
    shutil.copytree(outputs / "toy-c", second / "toy-c")
    shutil.rmtree(second / "toy-c" / "fold3")
    finish(second, "toy-a", PLAIN % ("/b", "0.0003"), correct=5, mtime=4000)
    finish(second, "toy-z", PLAIN % ("/b", "0.1"), correct=5, mtime=5000)
    return outputs, second


def main_with(monkeypatch, *args: object) -> None:
    monkeypatch.setattr(sys, "argv", ["report", *map(str, args)])
    main()


def test_the_runs_of_several_folders_are_one_list(machines, monkeypatch, capsys):
    first, second = machines
    runs, unfinished = list_runs([*machines, second])
    toy_c, toy_a = (f"{first.name}/{name}" for name in ("toy-c", "toy-a"))
    assert [run.name for run in runs] == [toy_c, "toy-leaky-b", toy_a, "toy-d", "outputs/toy-a", "toy-z"]
    # the copy with a missing fold is not listed, nor reported as unfinished
    assert [run.copies for run in runs] == [("outputs/toy-c",), (), (), (), (), ()]
    assert unfinished == ["toy-d (missing: 2, 3)"]
    main_with(monkeypatch, second.parent / "out*", first, "--sort", "name", "--format", "csv")
    out, err = capsys.readouterr()
    assert f"Listed once: {toy_c}; copies: outputs/toy-c." in err
    assert [row["run"] for row in csv.DictReader(io.StringIO(out))][:2] == ["outputs/toy-a", toy_a]


def test_runs_of_the_same_name_are_compared_by_their_folders(machines, monkeypatch, capsys):
    first, second = machines
    main_with(monkeypatch, first / "toy-a", second / "toy-a")
    out = capsys.readouterr().out
    assert f"{first.name}/toy-a" in out
    page = Path(out.strip().splitlines()[-1].removeprefix("Report: ")).read_text()
    assert f"{first.name}/toy-a" in page
    assert "outputs/toy-a" in page
    with pytest.raises(InputError, match="outputs/toy-c is a copy of .*/toy-c"):
        main_with(monkeypatch, second / "toy-c", first / "toy-c")
    with pytest.raises(InputError, match="is a folder of runs, and .*toy-c is not"):
        main_with(monkeypatch, first, second / "toy-c")
    with pytest.raises(InputError, match="matches no folder"):
        main_with(monkeypatch, first.parent / "*" / "absent")
