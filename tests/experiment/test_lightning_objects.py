"""The arguments of Lightning's trainer, and callbacks and profilers by their class."""

import inspect
from typing import get_type_hints

import lightning.pytorch as pl
import pytest
import torch
import yaml
from helpers.tiny import cross_validate, only, overrides
from omegaconf import OmegaConf

from soundfold.config import compose_config, cv_id, refuse_unknown_keys
from soundfold.config.trainer_arguments import REFUSED_ARGUMENTS, Trainer
from soundfold.errors import InputError
from soundfold.evaluation.results import load_folds
from soundfold.experiment.setup import open_run
from soundfold.validation import validate

EPOCH_LOG = "callbacks.mine._target_=helpers.user_callbacks.EpochLog"
# arguments of Lightning's that change no number
WITHOUT_EFFECT = (
    "trainer.profiler=simple",
    "trainer.inference_mode=false",
    "trainer.detect_anomaly=true",
    "trainer.num_sanity_val_steps=2",
    "trainer.enable_model_summary=true",
    "trainer.enable_autolog_hparams=false",
    "trainer.benchmark=false",
)


def test_every_argument_of_the_installed_trainer_is_a_key_or_is_refused():
    keys = set(get_type_hints(Trainer)) - {"tf32", "cuda_graph"}
    assert keys.isdisjoint(REFUSED_ARGUMENTS)
    assert keys | set(REFUSED_ARGUMENTS) == set(inspect.signature(pl.Trainer).parameters)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        *[(f"trainer.{name}", rf"^trainer\.{name} cannot be set: .*\.$") for name in REFUSED_ARGUMENTS],
        ("trainer.max_epoch", r"^trainer\.max_epoch is not a key .*Did you mean trainer\.max_epochs\?"),
    ],
)
def test_a_refused_or_misspelled_argument_is_explained_on_the_command_line_and_in_a_file(key, message, tmp_path):
    with pytest.raises(InputError, match=message):
        refuse_unknown_keys([key])
    (tmp_path / "trainer").mkdir()
    (tmp_path / "trainer" / "mine.yaml").write_text(f"accelerator: cpu\n{key.split('.')[1]}: 1\n")
    with pytest.raises(InputError, match=message):
        validate(compose_config(f"hydra.searchpath=[{tmp_path}]", "trainer=mine"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["trainer.deterministic=1"], r"^trainer\.deterministic=1 must be one of true, false, warn\.$"),
        (["trainer.deterministic=2"], r"^trainer\.deterministic=2 must be one of true, false, warn\.$"),
        (["trainer.min_epochs=0"], r"^trainer\.min_epochs=0 must be at least 1\.$"),
        (["trainer.limit_val_batches=0"], r"^trainer\.limit_val_batches=0 must be above 0\.$"),
        (["trainer.val_check_interval=2.5"], r"must be at most 1\.0, a share"),
        (["trainer.val_check_interval=0.5", "average=ema"], r"^trainer\.val_check_interval=0\.5 requires average=none"),
        (["trainer.gradient_clip_algorithm=nrom"], r"must be one of norm, value\. Did you mean norm\?$"),
        (["trainer.benchmark=true", "trainer.deterministic=true"], "a resumed run could use another one"),
        (["trainer.profiler=simpel"], r"^trainer\.profiler=simpel must be one of simple, advanced, pytorch, an entry"),
        (["trainer.profiler={filename: x}"], r"^trainer\.profiler requires _target_"),
        (["callbacks.mine.option=3"], r"^callbacks\.mine requires _target_, the class of a Lightning callback"),
        (["callbacks.mine=true"], r"^callbacks\.mine requires _target_"),
    ],
)
def test_an_invalid_value_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        validate(compose_config(*options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["callbacks.mine._target_=no.Such"], r"^callbacks\.mine\._target_=no\.Such cannot be imported: No module"),
        (
            ["callbacks.mine._target_=torch.nn.Linear"],
            r"^callbacks\.mine\._target_=torch\.nn\.Linear is not a lightning",
        ),
        ([EPOCH_LOG, "callbacks.mine.colour=1"], r"^callbacks\.mine: helpers\..* rejects its options: .*'colour'\.$"),
        (["trainer.profiler={_target_: torch.nn.Linear}"], r"^trainer\.profiler\._target_=torch\.nn\.Linear is not a"),
    ],
)
def test_a_class_that_cannot_be_used_is_refused_before_any_work(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_run(compose_config(*overrides(tmp_path / "none", tmp_path, *options)))


def test_only_arguments_that_change_numbers_and_callbacks_change_the_id():
    default = compose_config()

    def identity(*options: str) -> str:
        changes = OmegaConf.from_dotlist(list(options))
        return cv_id(OmegaConf.merge(default, changes), {"table": "t", "audio": "a", "weights": "none"})

    assert identity(*WITHOUT_EFFECT) == identity("callbacks.mine=null") == identity()
    changes = ["limit_val_batches=3", "val_check_interval=0.5", "min_epochs=1", "min_steps=1"]
    changes = [f"trainer.{change}" for change in [*changes, "gradient_clip_algorithm=value"]]
    ids = {identity(change) for change in [*changes, EPOCH_LOG]} | {identity(EPOCH_LOG, "callbacks.mine.text=x")}
    assert len(ids | {identity()}) == 8


@pytest.mark.slow
def test_a_fold_with_callbacks_and_profiler_writes_into_its_folder(tiny_run, tmp_path, monkeypatch, capsys):
    """A callback's option from the environment, which may be a secret, is in no configuration."""
    monkeypatch.setenv("SOUNDFOLD_SECRET", "5ec2e7")
    text = "callbacks.mine.text='{run} {fold} ${oc.env:SOUNDFOLD_SECRET}'"
    options = ("fold=1", *WITHOUT_EFFECT, EPOCH_LOG, text)
    cross_validate(tiny_run.parents[1] / "tiny", tmp_path, *options)
    folder = only(tmp_path) / "fold1"
    assert (folder / "mine" / "epochs.txt").read_text() == f"{folder.parent.name} 1 5ec2e7 2\n"
    assert "run_training_epoch" in (folder / "fit-profile.txt").read_text()
    assert "test_step" in (folder / "test-profile.txt").read_text()
    assert "Trainable params" in capsys.readouterr().out
    stored = (folder / "config.yaml").read_text()
    assert yaml.safe_load(stored)["callbacks"]["mine"]["text"] == "<interpolated>"
    assert (folder / "predictions.csv").read_bytes() == (tiny_run / "fold1" / "predictions.csv").read_bytes()


def test_a_fold_does_not_keep_a_flag_of_an_earlier_job(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    cross_validate(tiny_run.parents[1] / "tiny", tmp_path, "fold=1", "trainer.max_epochs=1")
    assert not torch.backends.cudnn.benchmark


EARLY_STOPPING = "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss}"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("{_target_: helpers.user_callbacks.Refusing}", r"Refusing requires a GPU\.$"),
        (EARLY_STOPPING, "Early stopping conditioned on metric `val/loss` which is not available"),
    ],
)
def test_a_callback_that_refuses_the_run_is_reported_in_one_paragraph(entry, reason, tiny_run, tmp_path):
    with pytest.raises(InputError, match=f"^Lightning refuses trainer or callbacks: {reason}"):
        cross_validate(tiny_run.parents[1] / "tiny", tmp_path, "fold=1", f"callbacks.mine={entry}")


def test_arguments_of_the_trainer_are_passed_on(tiny_run, tmp_path):
    stop = ("callbacks.mine._target_=helpers.user_callbacks.StopAfter", "callbacks.mine.epochs=1")
    options = ("split=nested", "fold=1", "trainer.min_epochs=2", "trainer.max_epochs=4", *stop)
    saving = "callbacks.all={_target_: lightning.pytorch.callbacks.ModelCheckpoint, save_top_k: -1}"
    cross_validate(tiny_run.parents[1] / "tiny", tmp_path, *options, "trainer.limit_val_batches=1", saving)
    (result,) = load_folds(only(tmp_path))
    assert result.epochs == 2
    folder = only(tmp_path) / "fold1"
    assert [path.name for path in sorted((folder / "all").iterdir())] == ["epoch=0-step=2.ckpt", "epoch=1-step=4.ckpt"]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["weights.md", "weights.pt"]
    with pytest.raises(InputError, match=r"val_check_interval=9 must be between 1 and 2, the number of batches of an"):
        cross_validate(tiny_run.parents[1] / "tiny", tmp_path, *options, "trainer.val_check_interval=9")
