"""Sharing a model: the folder for the Hub, the zip archive, and loading both."""

import os
import zipfile

import huggingface_hub
import numpy as np
import pytest
from helpers.command import run_here, soundfold
from helpers.fake_hub import serve

from soundfold.errors import InputError
from soundfold.inference.predictor import Predictor
from soundfold.inference.share import write_hub_folder, write_zip

WAVE = np.random.default_rng(0).uniform(-0.5, 0.5, 4000)


def test_a_folder_and_an_archive_predict_as_their_run(tiny_run, tmp_path):
    write_hub_folder(tiny_run, tmp_path / "hub")
    write_zip(tiny_run, tmp_path / "model.zip")
    expected = Predictor.load(tiny_run)(WAVE, 8000)
    for path in (tmp_path / "hub", tmp_path / "model.zip"):
        shared = Predictor.load(path)
        assert shared.calibrated
        assert np.array_equal(shared(WAVE, 8000).probabilities, expected.probabilities)
    card = huggingface_hub.ModelCard.load(tmp_path / "hub" / "README.md")
    assert card.data.library_name == "soundfold"
    assert zipfile.ZipFile(tmp_path / "model.zip").read("README.md").decode().startswith("---\n")
    names = {path.name for path in (tmp_path / "hub").rglob("*") if path.is_file()}
    assert names == {"README.md", "cv.json", "config.yaml", "result.json", "predictions.csv", "weights.pt"}


def test_one_fold_is_shared_by_the_command(tiny_run, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "hub"
    assert run_here(monkeypatch, "export", str(tiny_run), "--format=hub", "--fold=2", f"--out={folder}") == 0
    assert "hf upload OWNER/NAME" in capsys.readouterr().out
    (model,) = Predictor.load(folder).models
    assert (model.fold, model.temperature) == ("2", Predictor.load(tiny_run, 2).models[0].temperature)
    assert run_here(monkeypatch, "export", str(tiny_run), "--format=hub", f"--out={folder}") == 2
    assert f"{folder} exists and is not empty" in capsys.readouterr().err


def archive(path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"README.md": b""}, "it has no fold of a run"),
        ({"../fold1/result.json": b"{}"}, "would be written outside the folder"),
        ({"/fold1/result.json": b"{}"}, "would be written outside the folder"),
        ({"fold1/result.json": b"{}", "fold1/checkpoints/weights.pt": b"x"}, "not a trained model"),
    ],
)
def test_an_archive_that_is_no_model_is_refused(tmp_path, members, reason):
    archive(tmp_path / "model.zip", members)
    with pytest.raises(InputError, match=reason):
        Predictor.load(tmp_path / "model.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]


def test_a_damaged_archive_is_refused(tmp_path, monkeypatch):
    (tmp_path / "model.zip").write_bytes(b"PK\3\4 no archive")
    with pytest.raises(InputError, match=r"model\.zip is not a model's archive"):
        Predictor.load(tmp_path / "model.zip")
    archive(tmp_path / "big.zip", {"fold1/checkpoints/weights.pt": bytes(2000)})
    monkeypatch.setattr("soundfold.inference.model_sources.MAX_BYTES", 1000)
    with pytest.raises(InputError, match="it would unpack to"):
        Predictor.load(tmp_path / "big.zip")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hf:me", "hf:me is not a model on the Hugging Face Hub. Write hf:owner/name"),
        ("hf:me/none", "There is no model me/none on the Hub, or it is private"),
        ("hf:me/model@v9", "me/model on the Hub has no revision v9"),
    ],
)
def test_a_name_that_the_hub_does_not_know_is_refused(tmp_path, monkeypatch, name, reason):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    with serve({"me/model": tmp_path / "model"}) as url:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        with pytest.raises(InputError, match=f"^{reason}"):
            Predictor.load(name)


def test_a_repository_without_a_model_and_a_failed_download_are_refused(tmp_path, monkeypatch):
    def download(*_args, **_options) -> str:
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(InputError, match="me/model on the Hub has no model of soundfold"):
        Predictor.load("hf:me/model")

    def fail(*_args, **_options) -> str:
        raise OSError("network is unreachable")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match=r"cannot be downloaded from the Hub \(network is unreachable\)"):
        Predictor.load("hf:me/model")


@pytest.mark.slow
def test_a_model_is_downloaded_once_and_predicts(tiny_run, tmp_path):
    write_hub_folder(tiny_run, tmp_path / "hub", fold="1")
    clip = sorted((tiny_run.parents[1] / "tiny" / "audio").iterdir())[0]
    with serve({"me/model": tmp_path / "hub"}) as url:
        environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home")}
        online = soundfold(tmp_path / "bin", "predict", "hf:me/model@v1", str(clip), "--format=csv", env=environment)
    assert online.returncode == 0, online.stderr
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    cached = soundfold(tmp_path / "bin", "predict", "hf:me/model@v1", str(clip), "--format=csv", env=offline)
    local = soundfold(tmp_path / "bin", "predict", str(tiny_run), str(clip), "--fold=1", "--format=csv")
    assert online.stdout == cached.stdout == local.stdout
