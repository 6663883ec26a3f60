"""W&B and TensorBoard logs, read back from their files."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from helpers.runs import rebind
from helpers.tiny import LEAKY, ROOT, cross_validate, only, overrides, render
from helpers.wandb_log import wandb_records
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from matplotlib.image import imread
from omegaconf import OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from soundfold.config import Wandb, register
from soundfold.errors import InputError
from soundfold.evaluation.compare import load_run
from soundfold.evaluation.results import FoldResult
from soundfold.evaluation.summary import write_summary
from soundfold.experiment import run as runs
from soundfold.experiment.wandb_runs import cv_tables, describe_upload
from soundfold.experiment.wandb_runs.session import AGENT_VARIABLES, sweep_columns
from soundfold.models.classifier import Classifier
from soundfold.report.reporter import RunReporter
from soundfold.validation import report_options, validate


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """Remove W&B's environment variables."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("tiny") / "root")


class StoredRun:
    """An offline W&B run, read from its folder."""

    def __init__(self, folder: Path) -> None:
        (path,) = folder.glob("run-*.wandb")
        records = wandb_records(path)
        self.files = folder / "files"
        (self.record,) = [record.run for record in records if record.HasField("run")]
        configs = [self.record.config, *(record.config for record in records if record.HasField("config"))]
        self.config = {item.key: json.loads(item.value_json) for c in configs for item in c.update if item.key}
        self.exits = [record.exit.exit_code for record in records if record.HasField("exit")]
        self.artifacts = [record.artifact for record in records if record.HasField("artifact")]
        metrics = [record.metric for record in records if record.HasField("metric")]
        self.axes = {metric.name or metric.glob_name: metric.step_metric for metric in metrics}
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

    def media(self, suffix: str) -> Iterator[Path]:
        """Yield the files of this type in the run's tables."""
        for artifact in self.artifacts:
            yield from (Path(entry.local_path) for entry in artifact.manifest.contents if entry.path.endswith(suffix))

    def points(self) -> dict[tuple[int, int], dict[str, float]]:
        """Return the metrics by (epoch, step). A duplicate point is an error."""
        points: dict[tuple[int, int], dict[str, float]] = {}
        for row in self.history:
            point = points.setdefault((int(row["epoch"]), int(row["trainer/global_step"])), {})
            for name, value in row.items():
                if name.startswith(("train/", "val/", "test/", "time/")):
                    assert name not in point
                    point[name] = float(value)
        return points


def wandb_runs_in(folder: Path) -> dict[str, StoredRun]:
    """Return all W&B runs below a folder by id. A duplicate id is an error."""
    stored = [StoredRun(path) for path in sorted(folder.rglob("*run-2*")) if path.is_dir()]
    assert len({run.record.run_id for run in stored}) == len(stored)
    return {run.record.run_id: run for run in stored}


def without_times(point: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in point.items() if not name.startswith("time/")}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the (step, value) pairs in a fold's TensorBoard files by metric."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    return {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


@pytest.fixture(scope="module")
def logged(root, tmp_path_factory) -> Path:
    """Folder of a run that was logged to W&B and TensorBoard."""
    outputs = tmp_path_factory.mktemp("logged")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        # as written by `soundfold explore`
        (outputs / "explore-esc50").mkdir()
        (outputs / "explore-esc50" / "shortcuts.csv").write_text("class,recall\ntone,0.5\nnoise,0.7\n")
        options = ("logger.wandb.tags=[tiny,first]", "logger.wandb.notes=a note", "logger.wandb.artifact=true")
        cross_validate(root, outputs, "logger=[wandb,tensorboard]", *options, "report.mistakes=2")
        assert not [name for name in os.environ if name.startswith("WANDB_")]
    return only(outputs)


def services(process: int) -> list[str]:
    """Return the command lines of the W&B services of a process."""
    listing = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if "wandb" in line and f"--pid {process} " in f"{line} "]


def test_every_fold_is_a_run_with_its_configuration_and_scores(logged):
    stored = wandb_runs_in(logged)
    folds = {run.record.display_name: run for run in stored.values() if run.record.job_type == "fold"}
    assert sorted(folds) == [f"{logged.name} fold {fold}" for fold in (1, 2, 3)]
    for title, run in folds.items():
        name = title.removeprefix(logged.name).replace(" ", "")
        result = json.loads((logged / name / "result.json").read_text())
        assert (run.record.run_group, run.record.notes, list(run.record.tags)) == (
            logged.name,
            "a note",
            ["tiny", "first", "esc50", "benchmark", "16 mels", "ResNet18"],
        )
        assert run.record.run_id.startswith(f"{name}-{result['cv_id']}-")
        assert run.exits == [0]
        assert run.config["optim"]["lr"] == 0.001
        assert (run.config["fold"], run.config["protocol"], run.config["cv_id"]) == (
            result["fold"],
            "benchmark",
            result["cv_id"],
        )
        assert run.config["commit"] == result["environment"]["commit"]
        assert run.config["audit"] == result["audit"]
        points = run.points()
        assert points[2, 6]["test/accuracy"] == pytest.approx(result["accuracy"])
        # every step of both epochs, and at the last of each the row of the epoch
        assert list(points) == [(step // 3, step) for step in range(6)] + [(2, 6)]
        steps = [points[step // 3, step] for step in range(6)]
        for metric in ("train/loss_step", "train/lr", "train/grad_norm"):
            assert all(step[metric] > 0 for step in steps), metric
        for epoch in (0, 1):
            row = steps[3 * epoch + 2]
            assert 0 < row["time/epoch_seconds"] < 60
            assert row["time/clips_per_second"] == pytest.approx(20 / row["time/epoch_seconds"])
            assert "device/memory_gib" not in row  # on a CPU
        assert run.artifacts[-1].name == f"{result['cv_id']}-{name}"
    assert services(os.getpid()) == []


def table(run: StoredRun, name: str) -> list[dict]:
    """Return the rows of a table of the cross-validation's run."""
    (path,) = (run.files / "media/table/cv").glob(f"{name}_*.table.json")
    content = json.loads(path.read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def logged_cv(folder: Path) -> tuple[dict, StoredRun]:
    """Return the content of ``cv.json`` and the run of the cross-validation."""
    total = json.loads((folder / "cv.json").read_text())
    return total, wandb_runs_in(folder)[f"cv-{total['cv_id']}"]


def test_the_run_of_the_cross_validation_has_its_scores(logged):
    total, run = logged_cv(logged)
    assert (run.record.job_type, run.record.run_group, run.exits) == ("cv", logged.name, [0])
    assert run.record.display_name == f"{logged.name} cv"
    for name in ("accuracy", "accuracy_sd", "f1", "top5", "top5_sd", "loss", "objective", "n"):
        assert json.loads(run.summary[f"cv/{name}"]) == pytest.approx(total[name])
    low, high = (json.loads(run.summary[f"cv/accuracy_{end}"]) for end in ("low", "high"))
    assert [low, high] == pytest.approx(total["interval"])
    assert 0 <= json.loads(run.summary["cv/calibration_error"]) <= 1
    assert run.config["audit"]["fold2"]["test"] == 10
    assert [float(row["cv/objective"]) for row in run.history if "cv/objective" in row] == [total["objective"]]


def test_curves_over_folds_are_history_that_a_workspace_overlays(logged):
    _, run = logged_cv(logged)
    losses = []
    for fold in (1, 2, 3):
        with (logged / f"fold{fold}" / "metrics.csv").open() as stream:
            losses.append([float(row["train/loss"]) for row in csv.DictReader(stream)])
    rows = [row for row in run.history if "cv/epoch" in row]
    assert [float(row["cv/epoch"]) for row in rows] == [1, 2]
    for band, function in {"mean": np.mean, "low": np.min, "high": np.max}.items():
        assert [float(row[f"cv/{band}/train/loss"]) for row in rows] == pytest.approx(function(losses, axis=0))
        assert run.axes[f"cv/{band}/*"] == "cv/epoch"
    lines = table(run, "curves/train/loss_table")
    assert [row["lineVal"] for row in lines if row["lineKey"] == "fold 3"] == losses[2]
    assert [row["step"] for row in lines] == [1, 2] * 3


def test_the_run_of_the_cross_validation_has_tables_and_media(logged, root):
    total, run = logged_cv(logged)
    assert [row["nPredictions"] for row in table(run, "confusion_table")] == np.ravel(total["confusion"]).tolist()
    assert [(row["class"], row["clips"]) for row in table(run, "classes")] == [("noise", 15), ("tone", 15)]
    assert [(row["class"], row["fold"]) for row in table(run, "recall_table")] == [
        (name, f"fold {fold}") for fold in (1, 2, 3) for name in ("noise", "tone")
    ]
    assert [(row["fold"], row["train"], row["same_source"]) for row in table(run, "audit")] == [
        (fold, 20, 0) for fold in (1, 2, 3)
    ]
    assert table(run, "calibration_table")[-1]["lineKey"] == "perfect calibration"
    shortcuts = table(run, "shortcuts")
    assert shortcuts == [{"class": "tone", "recall": "0.5"}, {"class": "noise", "recall": "0.7"}]

    predictions = table(run, "predictions")
    expected = {}
    for fold in (1, 2, 3):
        with (logged / f"fold{fold}" / "predictions.csv").open() as stream:
            expected |= {row["filename"]: (fold, row["target"], row["prediction"]) for row in csv.DictReader(stream)}
    assert {row["file"]: (row["fold"], row["class"], row["predicted"]) for row in predictions} == expected
    assert len(predictions) == 30
    correct = [row["correct"] for row in predictions]
    assert correct == sorted(correct)
    assert sum(correct) == total["correct"]
    assert predictions[0]["confidence"] >= predictions[1]["confidence"] > 0.5
    assert [row["sound"] is None for row in predictions] == [False] * 2 + [True] * 28


def test_mistakes_have_one_picture_and_one_sound(logged, root):
    _, run = logged_cv(logged)
    pictures, sounds = (list(run.media(kind)) for kind in (".png", ".wav"))
    assert len(pictures) == len(sounds) == 2
    # plots on white: neither black nor blank
    assert all(0.2 < imread(path)[..., :3].mean() < 0.95 for path in pictures)
    waves = [soundfile.read(path)[0] for path in sounds]
    clips = [soundfile.read(root / "audio" / row["file"])[0] for row in table(run, "predictions")[:2]]
    assert {len(sound) for sound in waves} == {len(clip) for clip in clips}
    assert sorted(np.abs(sound).sum() for sound in waves) == pytest.approx(sorted(np.abs(c).sum() for c in clips))
    # stored once
    content = sounds[0].read_bytes()
    assert [path for path in logged.rglob("*") if path.is_file() and path.read_bytes() == content] == [sounds[0]]


def test_the_table_of_predictions_is_bounded_and_has_mistakes_first(logged, monkeypatch):
    run = load_run(logged)
    monkeypatch.setattr(cv_tables, "MAX_PREDICTIONS", 20)
    rows = cv_tables.prediction_table(run, []).data
    assert len(rows) == 20
    assert [row[5] for row in rows] == [False] * int((~run.correct).sum()) + [True] * (20 - int((~run.correct).sum()))


def test_runs_use_the_collection_and_make_the_model(logged):
    described = json.loads((logged / "fold1" / "wandb" / "collection.json").read_text())
    assert described["clips"] == 30
    assert len(described["audio"]) == 64
    for run in wandb_runs_in(logged).values():
        used, *made = run.artifacts
        assert (used.name, used.type, used.use_after_commit) == ("collection-esc50", "dataset", True)
        assert json.loads(used.metadata)["audio"] == described["audio"]
        assert [Path(entry.local_path).name for entry in used.manifest.contents] == ["collection.json"]
        models = [artifact.use_after_commit for artifact in made if artifact.type == "model"]
        assert models == ([] if run.record.job_type == "cv" else [False])


def test_tensorboard_has_the_metrics_of_metrics_csv(logged):
    for fold in (1, 2, 3):
        with (logged / f"fold{fold}" / "metrics.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        expected = [(int(row["step"]) - 1, pytest.approx(float(row["train/loss"]), rel=1e-5)) for row in rows]
        values = scalars(logged / f"fold{fold}")
        assert values["train/loss"] == expected
        assert [step for step, _ in values["train/grad_norm"]] == list(range(6))
        # the metric of its table of hyperparameters
        assert values["hp_metric"] == [
            (6, pytest.approx(FoldResult.load(logged / f"fold{fold}" / "result.json").accuracy))
        ]
    total, values = json.loads((logged / "cv.json").read_text()), scalars(logged)
    assert values["cv/accuracy"] == [(2, pytest.approx(total["accuracy"]))]
    assert [step for step, _ in values["cv/low/train/loss"]] == [1, 2]


def test_the_command_that_uploads_the_runs_is_printed(logged, monkeypatch):
    options = Wandb(project="p", entity=None, mode="offline", tags=[], notes=None, artifact=False)
    assert describe_upload(options, logged).endswith(f": soundfold wandb sync {logged}")
    assert describe_upload(options, logged / "fold1" / "checkpoints") is None
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert describe_upload(options, logged) is None


def test_unchanged_results_are_logged_once(root, logged, tmp_path):
    folder = tmp_path / logged.name
    shutil.copytree(logged, folder, ignore=shutil.ignore_patterns("tensorboard", ".wandb-cache"))
    options = report_options(["report.page=none", "report.mistakes=0"])
    (first,) = folder.glob("wandb/offline-run-*")
    cross_validate(root, tmp_path, "logger=wandb")
    RunReporter().report_run(folder, write_summary(folder), options)
    assert list(folder.glob("wandb/offline-run-*")) == [first]
    path = folder / "fold2" / "result.json"
    replace(FoldResult.load(path), loss=0.125).save(path)
    RunReporter().report_run(folder, write_summary(folder), options)
    # the new run replaces the old one, which an upload would restore
    (second,) = folder.glob("wandb/offline-run-*")
    assert second != first


@pytest.mark.parametrize("has_audio", [True, False])
def test_sounds_and_pictures_are_omitted_if_disabled_or_unavailable(logged, tmp_path, has_audio, capsys):
    folder = tmp_path / logged.name
    shutil.copytree(logged, folder, ignore=shutil.ignore_patterns("tensorboard", ".wandb-cache"))
    (folder / "wandb" / "cv.json").unlink()
    if not has_audio:
        for path in folder.glob("fold*/config.yaml"):
            cfg = OmegaConf.load(path)
            cfg.data.root = str(tmp_path / "nowhere")
            path.write_text(OmegaConf.to_yaml(cfg))
            rebind(path.parent)
    RunReporter().report_run(
        folder, write_summary(folder), report_options(["report.page=none", "report.mistakes=2", "report.audio=false"])
    )
    run = wandb_runs_in(folder)[f"cv-{folder.name[5:]}"]  # a single folder: the earlier run is replaced
    assert len(table(run, "predictions")) == 30
    assert not list(run.media(".wav"))
    assert len(list(run.media(".png"))) == (2 if has_audio else 0)
    assert ("without pictures and sounds" in capsys.readouterr().err) is not has_audio


@pytest.mark.slow
def test_a_failed_fold_marks_its_run_as_failed(root, tmp_path, monkeypatch):
    def fail(*_args):
        assert services(os.getpid())
        raise RuntimeError("a fault")

    monkeypatch.setattr(Classifier, "test_step", fail)
    args = ("logger=[wandb,tensorboard]", "fold=1", "trainer.max_epochs=4", *LEAKY)
    with pytest.raises(RuntimeError, match="a fault"):
        cross_validate(root, tmp_path, *args)
    assert services(os.getpid()) == []
    (run,) = wandb_runs_in(tmp_path).values()
    assert run.exits == [1]
    assert list(run.record.tags)[-1] == "leaky"
    assert run.summary["leaky"] == "true"
    assert not list(tmp_path.rglob("result.json"))


def test_a_run_that_w_and_b_cannot_open_is_an_input_error(root, tmp_path, monkeypatch):
    # online, without an account
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(InputError, match=r"W&B: .*logger\.wandb\.mode=offline requires neither network nor account"):
        cross_validate(root, tmp_path, "logger=wandb", "fold=1")
    assert os.environ["WANDB_MODE"] == "online"


def test_an_invalid_variable_of_w_and_b_is_named(root, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    monkeypatch.setenv("WANDB_API_KEY", "5ec2e7")
    with pytest.raises(
        InputError, match=r"the setting mode: .*'offline'.* one of WANDB_API_KEY, .*WANDB_MODE"
    ) as error:
        cross_validate(root, tmp_path, "logger=wandb", "fold=1")
    assert "5ec2e7" not in str(error.value)


@pytest.mark.slow
def test_a_rerun_is_another_run(root, tmp_path):
    args = ("logger=wandb", "fold=1", "trainer.max_epochs=1")
    cross_validate(root, tmp_path, *args)
    (first,) = wandb_runs_in(tmp_path)
    cross_validate(root, tmp_path, *args, "rerun=true")
    stored = wandb_runs_in(tmp_path)
    assert len(stored) == 2
    assert stored[first].history
    # three steps, and the scores
    assert all(len(run.points()) == 4 for run in stored.values())


@pytest.mark.slow
def test_a_killed_and_resumed_fold_is_one_complete_run(root, tmp_path):
    args = ("logger=[wandb,tensorboard]", "fold=2", "trainer.max_epochs=6", "split=nested")
    cross_validate(root, tmp_path / "uninterrupted", *args)
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *overrides(root, tmp_path / "killed", *args)]
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
    (partial,) = folder.glob("fold2/wandb/offline-run-*")
    cross_validate(root, tmp_path / "killed", *args)
    ((run_id, resumed),) = wandb_runs_in(folder).items()
    assert partial.name.endswith(run_id)
    assert not partial.exists()
    (uninterrupted,) = wandb_runs_in(tmp_path / "uninterrupted").values()
    assert resumed.exits == [0]
    assert resumed.points().keys() == uninterrupted.points().keys()
    for epoch_and_step, point in uninterrupted.points().items():
        assert without_times(resumed.points()[epoch_and_step]) == pytest.approx(without_times(point), rel=1e-5)
    actual, expected = scalars(folder / "fold2"), scalars(only(tmp_path / "uninterrupted") / "fold2")
    assert actual.keys() == expected.keys()
    for tag, points in expected.items():
        if tag == "epoch":  # Lightning logs it with the training metrics, and again with those of validation
            continue
        assert [step for step, _ in actual[tag]] == [step for step, _ in points]
        if tag.startswith("time/"):
            continue
        assert [value for _, value in actual[tag]] == pytest.approx([value for _, value in points], rel=1e-5)


@pytest.mark.slow
def test_under_an_agent_the_cross_validation_is_the_trial(root, tmp_path, monkeypatch, capsys):
    args = ("logger=wandb", "split=nested", "trainer.max_epochs=1", "report.page=none")
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("wandb_version: 1\noptim.lr:\n  value: 0.001\naugment:\n  value: noise_stretch_pitch\n")

    def start_trial(name: str) -> None:
        for variable, value in zip(AGENT_VARIABLES, ("asweep", name, str(parameters)), strict=True):
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("WANDB_PROJECT", "ofthesweep")
        monkeypatch.setenv("WANDB_MODE", "offline")

    start_trial("first")
    objective = cross_validate(root, tmp_path / "out", *args)
    assert os.environ["WANDB_RUN_ID"] == "first"
    stored = wandb_runs_in(tmp_path / "out")
    assert len(stored) == 4
    assert {run.record.project for run in stored.values()} == {"ofthesweep"}
    trial = stored.pop("first")
    assert (trial.record.job_type, trial.record.sweep_id) == ("search", "asweep")
    # the mean over the folds so far
    assert [row["cv/folds"] for row in trial.history] == ["1", "2", "3"]
    assert float(trial.history[-1]["cv/objective"]) == pytest.approx(objective)
    assert (trial.config["optim.lr"], trial.config["optim"]["lr"]) == (0.001, 0.001)
    for run in stored.values():
        assert (run.record.job_type, run.record.sweep_id) == ("fold", "")
        assert run.points()
    # a trial is not scored, and is apart from scored runs of the same settings
    assert not [
        name for run in (trial, *stored.values()) for name in run.summary if name.startswith(("test/", "cv/acc"))
    ]
    folds = list((tmp_path / "out").glob("tiny-sweep-asweep/tiny-*/fold*"))
    assert [FoldResult.load(path / "result.json").accuracy for path in folds] == [None] * 3
    assert not list((tmp_path / "out").rglob("weights.pt"))
    out, err = capsys.readouterr()
    assert "accuracy" not in out + err
    assert re.search(rf"tiny-\w+: val/loss {-objective:.4g} on validation folds", err)

    # a second trial of the same settings reuses the folds, and is logged
    start_trial("second")
    cross_validate(root, tmp_path / "out", *args)
    assert float(wandb_runs_in(tmp_path / "out")["second"].history[-1]["cv/objective"]) == pytest.approx(objective)

    def fail(*_args):
        raise RuntimeError("a fault")

    start_trial("third")
    monkeypatch.setattr(runs, "run_fold", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        cross_validate(root, tmp_path / "out", *args, "label=other")
    assert wandb_runs_in(tmp_path / "out")["third"].exits == [1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["logger=wandb"], "split=nested"),
        (["split=nested", "logger=csv"], "set logger=wandb"),
        (["split=nested", "fold=1"], "Remove debug and fold"),
    ],
)
def test_a_trial_that_would_mislead_its_sweep_is_refused(args, message, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "asweep")
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"), pytest.raises(InputError, match=message):
        validate(compose("train", args))


def test_the_sweep_file_composes_valid_configurations(monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "asweep")
    register()
    sweep = yaml.safe_load((ROOT / "scripts" / "wandb_sweep.yaml").read_text())
    assert (ROOT / sweep["program"]).is_file()
    assert sweep["metric"] == {"name": "cv/objective", "goal": "maximize"}
    assert sweep["command"][-1] == "${args_no_hyphens}"
    fixed = [arg for arg in sweep["command"] if "=" in arg]
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


def test_the_swept_overrides_of_a_multirun_job_are_columns(monkeypatch, tmp_path):
    register()
    args = ["optim.lr=0.01", "augment=strong", "fold=2", "paths.outputs=elsewhere", "features.n_mels=64"]
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    assert sweep_columns() == {}
    job = f"hydra.runtime.output_dir={tmp_path / '0'}"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for mode in ("RUN", "MULTIRUN"):
            cfg = compose("train", [*args, f"hydra.mode={mode}", job], return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            columns = {"sweep/optim.lr": 0.01, "sweep/augment": "strong", "sweep/features.n_mels": 64}
            assert sweep_columns() == (columns if mode == "MULTIRUN" else {})
    # as Hydra writes it
    swept = ["optim.lr=0.01,0.1", "augment=strong", "fold=1,2", "paths.outputs=elsewhere", "features.n_mels=64"]
    hydra = {"overrides": {"task": swept}, "sweeper": {"params": {"augment": "choice(none,strong)"}}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    assert sweep_columns() == {"sweep/optim.lr": 0.01, "sweep/augment": "strong"}


def test_a_missing_tensorboard_is_named(monkeypatch):
    register()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        with pytest.raises(InputError, match=r"pip install -e '.\[tensorboard\]'"):
            validate(compose("train", ["logger=tensorboard"]))
        validate(compose("train", ["logger=csv"]))
