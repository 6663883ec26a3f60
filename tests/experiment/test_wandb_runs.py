"""What W&B and TensorBoard are given, read back from the files that they keep."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from helpers.tiny import LEAKY, ROOT, cross_validate, only, overrides, render
from helpers.wandb_log import wandb_records
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from matplotlib.image import imread
from omegaconf import OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from soundfold.config import register
from soundfold.errors import InputError
from soundfold.evaluation.results import FoldResult, load_folds
from soundfold.experiment import run as runs
from soundfold.experiment.wandb_runs import sweep_columns
from soundfold.models.classifier import Classifier
from soundfold.report.reporter import RunReporter
from soundfold.validation import report_options, validate

TRIAL = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """W&B's variables as on a machine that knows nothing of it."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("tiny") / "root")


class Kept:
    """A run of W&B, read from its folder."""

    def __init__(self, folder: Path) -> None:
        (path,) = folder.glob("run-*.wandb")
        records = wandb_records(path)
        self.files = folder / "files"
        (self.run,) = [record.run for record in records if record.HasField("run")]
        configs = [self.run.config, *(record.config for record in records if record.HasField("config"))]
        self.config = {item.key: json.loads(item.value_json) for c in configs for item in c.update if item.key}
        self.exits = [record.exit.exit_code for record in records if record.HasField("exit")]
        self.artifacts = [record.artifact.name for record in records if record.HasField("artifact")]
        self.summary = {
            item.key or item.nested_key[0]: item.value_json
            for record in records
            for item in record.summary.update
            if len(item.nested_key) < 2
        }
        self.history = [
            {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            for record in records
            if record.HasField("history")
        ]

    def points(self) -> dict[tuple[int, int], dict[str, float]]:
        """Every metric by (epoch, step); a point that is there twice is an error."""
        found: dict[tuple[int, int], dict[str, float]] = {}
        for row in self.history:
            point = found.setdefault((int(row["epoch"]), int(row["trainer/global_step"])), {})
            for name, value in row.items():
                if name.startswith(("train/", "val/", "test/")):
                    assert name not in point
                    point[name] = float(value)
        return found


def kept(folder: Path) -> dict[str, Kept]:
    """All runs under a folder, by id; an id twice is an error."""
    found = [Kept(path) for path in sorted(folder.rglob("*run-2*")) if path.is_dir()]
    assert len({one.run.run_id for one in found}) == len(found)
    return {one.run.run_id: one for one in found}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard's files of a fold hold: (step, value) by metric."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


@pytest.fixture(scope="module")
def logged(root, tmp_path_factory) -> Path:
    """The folder of a run that was logged to W&B and to TensorBoard."""
    outputs = tmp_path_factory.mktemp("logged")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        options = ("logger.wandb.tags=[tiny,first]", "logger.wandb.notes=a note", "logger.wandb.artifact=true")
        cross_validate(root, outputs, "logger=[wandb,tensorboard]", *options, "report.mistakes=2")
        assert not [name for name in os.environ if name.startswith("WANDB_")]
    return only(outputs)


def services(process: int) -> list[str]:
    """W&B's processes that serve one of ours."""
    shown = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if "wandb" in line and f"--pid {process} " in f"{line} "]


def test_a_run_per_fold_says_what_it_is(logged):
    found = kept(logged)
    folds = {one.run.display_name: one for one in found.values() if one.run.job_type == "fold"}
    assert sorted(folds) == ["fold1", "fold2", "fold3"]
    for name, one in folds.items():
        result = json.loads((logged / name / "result.json").read_text())
        assert (one.run.run_group, one.run.notes, list(one.run.tags)) == (logged.name, "a note", ["tiny", "first"])
        assert one.run.run_id.startswith(f"{name}-{result['cv_id']}-")
        assert one.exits == [0]
        assert one.config["optim"]["lr"] == 0.001
        assert (one.config["fold"], one.config["protocol"], one.config["cv_id"]) == (
            result["fold"],
            "benchmark",
            result["cv_id"],
        )
        assert one.config["commit"] == result["environment"]["commit"]
        assert one.config["audit"] == result["audit"]
        last = one.points()[2, 6]
        assert last["test/accuracy"] == pytest.approx(result["accuracy"])
        assert one.artifacts == [f"{result['cv_id']}-{name}"]
    assert services(os.getpid()) == []


def test_the_run_of_the_cross_validation_shows_all_of_it(logged, root):
    total = json.loads((logged / "cv.json").read_text())
    one = kept(logged)[f"cv-{total['cv_id']}"]
    assert (one.run.job_type, one.run.run_group, one.exits) == ("cv", logged.name, [0])
    for name in ("accuracy", "accuracy_sd", "f1", "loss", "objective", "n"):
        assert json.loads(one.summary[f"cv/{name}"]) == pytest.approx(total[name])
    low, high = (json.loads(one.summary[f"cv/accuracy_{end}"]) for end in ("low", "high"))
    assert [low, high] == pytest.approx(total["interval"])
    assert one.config["audit"]["fold2"]["test"] == 10
    assert float(one.history[0]["cv/objective"]) == pytest.approx(total["objective"])

    def table(name: str) -> list[list]:
        (path,) = (one.files / "media/table/cv").glob(f"{name}_0_*.table.json")
        return json.loads(path.read_text())["data"]

    assert [row[2] for row in table("confusion_table")] == np.ravel(total["confusion"]).tolist()
    assert [(row[0], row[4]) for row in table("classes")] == [("noise", 15), ("tone", 15)]
    curve = table("curves/train/loss_table")
    with (logged / "fold3" / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row[2] for row in curve if row[1] == "fold 3"] == [float(row["train/loss"]) for row in rows]
    assert [row[0] for row in curve] == [1, 2] * 3

    mistakes = table("mistakes")
    assert len(mistakes) == 2
    assert mistakes[0][4] >= mistakes[1][4] > 0.5
    assert all(row[2] != row[3] for row in mistakes)
    pictures = list((one.files / "media/images/cv/mistakes").glob("pictures_0_*.png"))
    # a log-mel on white: neither black nor blank
    assert all(0.2 < imread(path)[..., :3].mean() < 0.95 for path in pictures)
    sounds = [soundfile.read(path)[0] for path in (one.files / "media/audio/cv/mistakes").glob("sounds_0_*.wav")]
    assert len(pictures) == len(sounds) == 2
    clips = [soundfile.read(root / "audio" / row[0])[0] for row in mistakes]
    assert {len(sound) for sound in sounds} == {len(clip) for clip in clips}
    assert sorted(np.abs(sound).sum() for sound in sounds) == pytest.approx(sorted(np.abs(c).sum() for c in clips))


def test_tensorboard_holds_what_metrics_csv_holds(logged):
    for fold in (1, 2, 3):
        with (logged / f"fold{fold}" / "metrics.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        expected = [(int(row["step"]) - 1, pytest.approx(float(row["train/loss"]), rel=1e-5)) for row in rows]
        assert scalars(logged / f"fold{fold}")["train/loss"] == expected


def test_the_same_figures_are_logged_once(root, logged, tmp_path):
    folder = tmp_path / logged.name
    shutil.copytree(logged, folder, ignore=shutil.ignore_patterns("tensorboard", ".wandb-cache"))
    options = report_options(["report.page=none", "report.mistakes=0"])
    (first,) = folder.glob("wandb/offline-run-*")
    cross_validate(root, tmp_path, "logger=wandb")
    RunReporter().report_run(folder, load_folds(folder), options)
    assert list(folder.glob("wandb/offline-run-*")) == [first]
    path = folder / "fold2" / "result.json"
    replace(FoldResult.load(path), loss=0.125).save(path)
    RunReporter().report_run(folder, load_folds(folder), options)
    # what is logged anew takes the place of the old, which an upload would bring back
    (second,) = folder.glob("wandb/offline-run-*")
    assert second != first


@pytest.mark.parametrize("silent", [True, False])
def test_sounds_and_pictures_are_left_out_where_asked_or_absent(logged, tmp_path, silent, capsys):
    folder = tmp_path / logged.name
    shutil.copytree(logged, folder, ignore=shutil.ignore_patterns("tensorboard", ".wandb-cache"))
    (folder / "wandb" / "cv.json").unlink()
    if not silent:
        for path in folder.glob("fold*/config.yaml"):
            cfg = OmegaConf.load(path)
            cfg.data.root = str(tmp_path / "nowhere")
            path.write_text(OmegaConf.to_yaml(cfg))
    RunReporter().report_run(
        folder, load_folds(folder), report_options(["report.page=none", "report.mistakes=2", "report.audio=false"])
    )
    one = kept(folder)[f"cv-{folder.name[5:]}"]  # in one folder: what was kept before is replaced
    assert len(list(one.files.glob("media/table/cv/mistakes_*.json"))) == 1
    assert not list(one.files.glob("media/audio"))
    assert len(list(one.files.glob("media/images/cv/mistakes/*.png"))) == (2 if silent else 0)
    assert ("no sound of the mistakes" in capsys.readouterr().err) is not silent


def test_a_failed_fold_closes_its_run_as_failed(root, tmp_path, monkeypatch):
    def fail(*_args):
        assert services(os.getpid())
        raise RuntimeError("a fault")

    monkeypatch.setattr(Classifier, "test_step", fail)
    words = ("logger=[wandb,tensorboard]", "fold=1", "trainer.max_epochs=4", *LEAKY)
    with pytest.raises(RuntimeError, match="a fault"):
        cross_validate(root, tmp_path, *words)
    assert services(os.getpid()) == []
    ((_, one),) = kept(tmp_path).items()
    assert one.exits == [1]
    assert list(one.run.tags) == ["leaky"]
    assert one.summary["leaky"] == "true"
    assert not list(tmp_path.rglob("result.json"))


def test_a_run_that_w_and_b_does_not_open_is_told_in_a_paragraph(root, tmp_path, monkeypatch):
    # online, without an account
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(InputError, match=r"W&B: .*logger\.wandb\.mode=offline needs neither network nor account"):
        cross_validate(root, tmp_path, "logger=wandb", "fold=1")
    assert os.environ["WANDB_MODE"] == "online"


def test_a_rerun_is_another_run(root, tmp_path):
    words = ("logger=wandb", "fold=1", "trainer.max_epochs=1")
    cross_validate(root, tmp_path, *words)
    (first,) = kept(tmp_path)
    cross_validate(root, tmp_path, *words, "rerun=true")
    found = kept(tmp_path)
    assert len(found) == 2
    assert found[first].history
    assert all(len(one.points()) == 2 for one in found.values())


def test_a_fold_that_was_killed_and_resumed_is_one_whole_run(root, tmp_path):
    words = ("logger=[wandb,tensorboard]", "fold=2", "trainer.max_epochs=6", "split=nested")
    cross_validate(root, tmp_path / "whole", *words)
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *overrides(root, tmp_path / "killed", *words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            rows = [p.read_text().count("\n") for p in (tmp_path / "killed").glob("tiny-*/fold2/metrics.csv")]
            if rows and rows[0] > 2:
                break
            time.sleep(0.01)
        assert process.poll() is None, process.stderr.read().decode()
        os.kill(process.pid, signal.SIGKILL)
    while services(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    folder = only(tmp_path / "killed")
    (half,) = folder.glob("fold2/wandb/offline-run-*")
    cross_validate(root, tmp_path / "killed", *words)
    ((name, resumed),) = kept(folder).items()
    assert half.name.endswith(name)
    assert not half.exists()
    (whole,) = kept(tmp_path / "whole").values()
    assert resumed.exits == [0]
    assert resumed.points().keys() == whole.points().keys()
    for at, point in whole.points().items():
        assert resumed.points()[at] == pytest.approx(point, rel=1e-5)
    ours, theirs = scalars(folder / "fold2"), scalars(only(tmp_path / "whole") / "fold2")
    assert ours.keys() == theirs.keys()
    for tag, points in theirs.items():
        if tag == "epoch":  # Lightning logs it with the training figures, and again with those of validation
            continue
        assert [step for step, _ in ours[tag]] == [step for step, _ in points]
        assert [value for _, value in ours[tag]] == pytest.approx([value for _, value in points], rel=1e-5)


def test_under_an_agent_the_cross_validation_is_the_trial(root, tmp_path, monkeypatch):
    words = ("logger=wandb", "split=nested", "trainer.max_epochs=1", "report.page=none")
    drawn = tmp_path / "drawn.yaml"
    drawn.write_text("wandb_version: 1\noptim.lr:\n  value: 0.001\naugment:\n  value: noise_stretch_pitch\n")

    def trial(name: str) -> None:
        for variable, value in zip(TRIAL, ("asweep", name, str(drawn)), strict=True):
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("WANDB_PROJECT", "ofthesweep")
        monkeypatch.setenv("WANDB_MODE", "offline")

    trial("first")
    objective = cross_validate(root, tmp_path / "out", *words)
    assert os.environ["WANDB_RUN_ID"] == "first"
    found = kept(tmp_path / "out")
    assert len(found) == 4
    assert {one.run.project for one in found.values()} == {"ofthesweep"}
    of_trial = found.pop("first")
    assert (of_trial.run.job_type, of_trial.run.sweep_id) == ("cv", "asweep")
    assert float(of_trial.history[0]["cv/objective"]) == pytest.approx(objective)
    assert (of_trial.config["optim.lr"], of_trial.config["optim"]["lr"]) == (0.001, 0.001)
    for one in found.values():
        assert (one.run.job_type, one.run.sweep_id) == ("fold", "")
        assert one.points()

    # another trial of the same settings is told too, of folds that are finished
    trial("second")
    cross_validate(root, tmp_path / "out", *words)
    assert float(kept(tmp_path / "out")["second"].history[0]["cv/objective"]) == pytest.approx(objective)

    def fail(*_args):
        raise RuntimeError("a fault")

    trial("third")
    monkeypatch.setattr(runs, "run_fold", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        cross_validate(root, tmp_path / "out", *words, "label=other")
    assert kept(tmp_path / "out")["third"].exits == [1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["logger=wandb"], "split=nested"),
        (["split=nested", "logger=csv"], "set logger=wandb"),
        (["split=nested", "fold=1"], "Remove debug and fold"),
    ],
)
def test_a_trial_that_would_mislead_its_sweep_is_refused(words, told, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "asweep")
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"), pytest.raises(InputError, match=told):
        validate(compose("train", words))


def test_the_sweep_of_the_checkout_draws_what_train_takes(monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "asweep")
    register()
    sweep = yaml.safe_load((ROOT / "scripts" / "wandb_sweep.yaml").read_text())
    assert (ROOT / sweep["program"]).is_file()
    assert sweep["metric"] == {"name": "cv/objective", "goal": "maximize"}
    assert sweep["command"][-1] == "${args_no_hyphens}"
    fixed = [word for word in sweep["command"] if "=" in word]
    for end in (0, -1):
        ends = {
            key: (range_.get("values") or [range_["min"], range_["max"]])[end]
            for key, range_ in sweep["parameters"].items()
        }
        drawn = create_sweep_command_args({"args": {key: {"value": value} for key, value in ends.items()}})
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("train", [*fixed, *drawn["args_no_hyphens"]])
        validate(cfg)
        assert cfg.optim.lr == ends["optim.lr"]


def test_the_settings_of_a_job_are_columns(monkeypatch):
    register()
    words = ["optim.lr=0.01", "augment=strong", "fold=2", "paths.outputs=elsewhere", "features.n_mels=64"]
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    assert sweep_columns() == {}
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for mode in ("RUN", "MULTIRUN"):
            cfg = compose("train", [*words, f"hydra.mode={mode}"], return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            many = {"sweep/optim.lr": 0.01, "sweep/augment": "strong", "sweep/features.n_mels": 64}
            assert sweep_columns() == (many if mode == "MULTIRUN" else {})


def test_tensorboard_that_is_not_installed_is_named(monkeypatch):
    register()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        with pytest.raises(InputError, match=r"pip install -e '.\[tensorboard\]'"):
            validate(compose("train", ["logger=tensorboard"]))
        validate(compose("train", ["logger=csv"]))
