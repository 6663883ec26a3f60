"""The loggers of a configuration: W&B, TensorBoard and any Lightning logger by its class."""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys

import pytest
import yaml
from helpers.recording_logger import RecordingLogger
from helpers.tiny import ROOT, cross_validate, only, overrides, render
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from soundfold.config import Explore, compose_config, cv_id, refuse_unknown_keys
from soundfold.errors import InputError
from soundfold.evaluation.results import load_folds
from soundfold.evaluation.summary import write_summary
from soundfold.experiment.lightning_objects import check_entries, make_loggers
from soundfold.experiment.loggers import fold_loggers, log_cv
from soundfold.experiment.setup import open_run
from soundfold.validation import validate, wandb_options

MINE = "+logger.mine._target_=helpers.recording_logger.RecordingLogger"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["logger=csv", "logger.wandb.project=mine"],
            "logger.wandb lacks artifact, entity, mode, notes, tags: set logger=wandb too, which has a default for "
            "every key.",
        ),
        (["logger.wandb.projct=x"], "logger.wandb.projct is not a key of the configuration. Did you mean "),
        (["logger.mlfow={}"], "logger.mlfow requires _target_, the class of a Lightning logger."),
        (["logger.mine._target_=no.Such"], "logger.mine._target_=no.Such cannot be imported: No module named 'no'."),
    ],
)
def test_the_command_line_refuses_a_logger_in_one_paragraph(overrides, message):
    command = [sys.executable, "scripts/train.py", *overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    # Hydra's line on the job may precede it
    assert done.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+logger.wandb.projct=x"], r"^logger\.wandb\.projct is not .* Did you mean logger\.wandb\.project\? Keys of"),
        (["logger=tensorboard", "logger.tensorboard.x=1"], r"\.tensorboard\.x .* Did you mean logger\.tensorboard\?$"),
        (["logger.wandb.mode=onlin"], r"^logger\.wandb\.mode=onlin must be one of .* Did you mean online\?$"),
        (["logger.wandb.artifact=maybe"], r"^logger\.wandb\.artifact=maybe must be true or false\.$"),
        (["logger.wandb.project=null"], r"^logger\.wandb\.project=None requires a value\.$"),
        (["logger.wandb.tags=3"], r"^logger\.wandb\.tags=3 must be a list, such as \[a,b\]\.$"),
        (["logger.wandb.tags=['']"], "tags of 1 to 64 characters"),
        (["logger.tensorboard=true"], r"^logger\.tensorboard=True must be a mapping of options, or null to disable it"),
        (["logger.mlfow.tracking_uri=x"], r"^logger\.mlfow requires _target_, the class of a Lightning logger\.$"),
        (["logger.mine._target_=3"], r"^logger\.mine requires _target_, the class of a Lightning logger\.$"),
    ],
)
def test_an_invalid_logger_is_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        validate(compose_config(*overrides))


def test_a_logger_whose_package_is_missing_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("mlflow", "comet", "tensorboard"):
        with pytest.raises(InputError, match=rf"^logger={name} requires .*, which is not installed: pip install "):
            validate(compose_config(f"logger={name}"))


@pytest.mark.parametrize("name", ["mlflow", "comet"])
def test_options_of_a_logger_in_conf_are_arguments_of_its_class(name):
    cfg = compose_config(f"logger={name}", "name=x")
    check_entries(cfg)
    cfg.logger[name].prefx = "x"
    if name == "mlflow":  # Comet's class takes any argument
        with pytest.raises(InputError, match="'prefx'"):
            check_entries(cfg)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), "http://10.0.0.1:5000"),
        (("logger.mlflow.tracking_uri=http://10.0.0.2:5000",), "http://10.0.0.2:5000"),
    ],
    ids=["variable", "key"],
)
def test_the_server_of_mlflow_is_a_key_or_a_variable(overrides, expected, tmp_path, monkeypatch):
    """Each fold is a run of one experiment, whichever machine trains it, and the server is no part of the run's id."""

    class Client(RecordingLogger):
        def __init__(self, **options):
            super().__init__(options["save_dir"])
            self.options = options

    monkeypatch.setattr("lightning.pytorch.loggers.MLFlowLogger", Client)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://10.0.0.1:5000")
    cfg = compose_config("logger=mlflow", "name=x", *overrides)
    (logger,) = make_loggers(cfg, tmp_path / "x-1a2b3c4d" / "fold3")
    assert logger.options["tracking_uri"] == expected
    assert logger.options["experiment_name"] == "x"
    assert logger.options["run_name"] == "x-1a2b3c4d fold 3"
    digests = {"table": "t", "audio": "a", "weights": "none"}
    assert cv_id(cfg, digests) == cv_id(compose_config("logger=csv", "name=x"), digests)


@pytest.mark.parametrize("store", ["sqlite", "files"])
def test_mlflow_has_configuration_and_metrics_of_each_fold(store, tiny_run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    options = ("logger=mlflow", "fold=1", "optim.lr=0.01", *(["logger.mlflow.tracking_uri=null"] * (store == "files")))
    cross_validate(tiny_run.parents[1] / "tiny", tmp_path, *options)
    uri = f"sqlite:///{tmp_path}/mlflow.db" if store == "sqlite" else f"file:{tmp_path}/mlruns"
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    (run,) = client.search_runs([experiment.experiment_id])
    folder = only(tmp_path)
    assert (run.info.run_name, run.info.status) == (f"{folder.name} fold 1", "FINISHED")
    assert run.data.tags["cross_validation"] == folder.name
    assert run.data.params["optim/lr"] == "0.01"
    (result,) = load_folds(folder)
    assert run.data.metrics["test/accuracy"] == pytest.approx(result.accuracy)
    with (folder / "fold1" / "metrics.csv").open() as stream:
        losses = [float(row["train/loss"]) for row in csv.DictReader(stream)]
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [metric.value for metric in history] == pytest.approx(losses, rel=1e-5)


def test_loggers_get_a_run_of_the_cross_validation_once(tiny_run, tmp_path):
    folder = tmp_path / tiny_run.name
    shutil.copytree(tiny_run, folder)
    root, name = tiny_run.parents[1] / "tiny", "+logger.mine.tags.name='{run} fold {fold}'"
    RecordingLogger.opened.clear()
    run = open_run(compose_config(*overrides(root, tmp_path, MINE, name)))
    assert run.folder == folder
    for _ in range(2):
        log_cv(run, write_summary(folder))
    (logger,) = RecordingLogger.opened
    assert logger.tags == {"name": f"{folder.name} cv"}
    assert logger.statuses == ["success"]
    assert logger.hparams["optim"]["lr"] == 0.001
    total = json.loads((folder / "cv.json").read_text())
    losses = []
    for fold in (1, 2, 3):
        with (folder / f"fold{fold}" / "metrics.csv").open() as stream:
            losses.append([float(row["train/loss"]) for row in csv.DictReader(stream)])
    rows = [row for step, row in logger.rows if "cv/epoch" in row and step == row["cv/epoch"]]
    for epoch, values in enumerate(zip(*losses, strict=True)):
        expected = [sum(values) / 3, min(values), max(values)]
        assert [rows[epoch][f"cv/{band}/train/loss"] for band in ("mean", "low", "high")] == pytest.approx(expected)
    assert (len(rows), logger.rows[-1][0]) == (2, 2)
    for score in ("accuracy", "accuracy_sd", "f1", "f1_sd", "loss"):
        assert logger.metrics[f"cv/{score}"] == pytest.approx(total[score])
    assert [logger.metrics[f"cv/accuracy_{end}"] for end in ("low", "high")] == pytest.approx(total["interval"])


def test_a_section_that_is_not_a_mapping_is_refused():
    cfg = compose_config("logger=csv")
    cfg.logger = "${seed}"
    with pytest.raises(InputError, match=r"^logger=0 must be a mapping of names to options\.$"):
        validate(cfg)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["+logger.mine._target_=torch.nn.Linear"], r"^logger\.mine\._target_=torch\.nn\.Linear is not a lightning"),
        (["+logger.mine._target_=lightning.pytorch"], r"^logger\.mine\._target_=lightning\.pytorch is not a lightning"),
        ([MINE, "logger.mine.ulr=x"], r"^logger\.mine: .*RecordingLogger rejects its options: .*'ulr'\.$"),
    ],
)
def test_a_class_that_cannot_be_used_is_refused_before_any_work(args, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_run(compose_config(*overrides(tmp_path / "none", tmp_path, *args)))


def test_loggers_are_combined_and_their_options_have_types():
    cfg = compose_config("logger=[wandb,tensorboard]", "logger.wandb.mode=online", "logger.wandb.tags=[a,2]")
    validate(cfg)
    assert cfg.logger.tensorboard == {}
    options = wandb_options(cfg.logger)
    assert (options.mode, options.tags, options.project) == ("online", ["a", "2"], "soundfold")


@pytest.mark.parametrize("overrides", [["logger=csv"], ["logger=wandb", "logger.wandb=null"], ["~logger.wandb"]])
def test_w_and_b_is_disabled(overrides):
    cfg = compose_config(*overrides)
    validate(cfg)
    assert wandb_options(cfg.logger) is None


@pytest.mark.parametrize("plus", ["", "+"])
def test_any_other_logger_is_added_by_its_class_and_is_no_part_of_the_identity(plus):
    refuse_unknown_keys(["logger.mine._target_", "logger.mine.url"])
    cfg = compose_config(f"{plus}logger.mine._target_=package.Mine", f"{plus}logger.mine.url=x")
    validate(cfg)
    assert cfg.logger.mine == {"_target_": "package.Mine", "url": "x"}
    digests = {"table": "t", "audio": "a", "weights": "none"}
    assert cv_id(cfg, digests) == cv_id(compose_config(), digests)


def test_a_logger_of_a_users_file_is_added(tmp_path):
    (tmp_path / "experiment").mkdir()
    entry = {"_target_": "package.Mine", "url": "x"}
    text = yaml.safe_dump({"logger": {"mine": entry, "wandb": {"mode": "disabled"}}})
    (tmp_path / "experiment" / "users.yaml").write_text(f"# @package _global_\n{text}")
    cfg = compose_config(f"hydra.searchpath=[{tmp_path}]", "experiment=users")
    validate(cfg)
    assert cfg.logger.mine == entry
    assert (cfg.logger.wandb.mode, cfg.logger.wandb.project) == ("disabled", "soundfold")


def test_other_commands_have_no_loggers():
    with pytest.raises(InputError, match=r"logger\.mine\.url is not a key"):
        refuse_unknown_keys(["logger.mine.url"], Explore)


def test_a_logger_of_a_user_has_the_metrics_of_its_fold(tmp_path, monkeypatch):
    """Its option from the environment, which may be a secret, is in no file.

    The rank of another job, such as SLURM_PROCID, does not silence it.
    """
    monkeypatch.setattr(rank_zero_only, "rank", 3)
    secret = "5ec2e7fedcba98"
    monkeypatch.setenv("SOUNDFOLD_SECRET", secret)
    root, outputs = render(tmp_path / "root"), tmp_path / "outputs"
    word = "+logger.mine.tags.b='${oc.env:SOUNDFOLD_SECRET}'"
    RecordingLogger.opened.clear()
    cross_validate(root, outputs, "fold=1", "trainer.max_epochs=2", MINE, "+logger.mine.tags={a: [1, 2]}", word)
    folder = only(outputs) / "fold1"
    (logger,) = RecordingLogger.opened
    assert logger.save_dir == str(folder)
    # plain containers, not OmegaConf's
    assert (type(logger.tags), type(logger.tags["a"])) == (dict, list)
    assert {"train/loss", "test/accuracy"} <= set(logger.metrics)
    assert logger.statuses[-1] == "success"
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    tags = {"a": [1, 2], "b": "<interpolated>"}
    assert stored["logger"] == {"mine": {"_target_": MINE.split("=")[1], "tags": tags}}
    assert logger.tags["b"] == secret
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert folder / "checkpoints" / "weights.pt" in files
    assert [path for path in files if secret.encode() in path.read_bytes()] == []


def test_a_logger_of_a_failed_fold_is_finalized_as_failed(tmp_path):
    RecordingLogger.opened.clear()
    run = open_run(compose_config(*overrides(render(tmp_path / "root"), tmp_path / "out", MINE)))
    with pytest.raises(RuntimeError, match="a fault"), fold_loggers(run, tmp_path, 1):
        raise RuntimeError("a fault")
    assert [logger.statuses for logger in RecordingLogger.opened] == [["failed"]]


def test_the_folder_of_a_logger_can_be_set_and_is_passed_only_to_classes_that_take_it(tmp_path):
    cfg = compose_config("logger=csv", MINE, "logger.mine.save_dir=elsewhere")
    assert make_loggers(cfg, tmp_path)[0].save_dir == "elsewhere"
    cfg = compose_config("logger=csv", "logger.mine._target_=helpers.recording_logger.LoggerWithoutFolder")
    assert make_loggers(cfg, tmp_path)[0].metrics == {}
