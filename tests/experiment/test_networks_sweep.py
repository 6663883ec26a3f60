"""Runs of other networks: trained, scored, compared, exported, and read again only where their code is trusted."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import torch
from helpers import tiny
from hydra import compose, initialize_config_dir

from soundfold.config import CONF, register
from soundfold.config.trust import _trusted
from soundfold.errors import InputError
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.experiment.run import cross_validate
from soundfold.inference.export import export, max_difference
from soundfold.inference.predictor import Predictor
from soundfold.models.networks import build_network
from soundfold.report.reporter import RunReporter

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 5, 2, padding=2), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, classes)

    def forward(self, image):
        return self.head(self.stem(image).mean(dim=(2, 3)))

    def stages(self):
        return [self.stem, self.head]
"""
SMALL = ("trainer.max_epochs=1", "features.n_mels=32", "report.page=none")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return the folder of configurations of a project with its own network, ``model=mine``."""
    (tmp_path / "usernets.py").write_text(NET)
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("_target_: usernets.Net\nwidth: 6\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = set(_trusted)
    yield tmp_path / "conf"
    _trusted.intersection_update(before)
    sys.modules.pop("usernets", None)


def train(conf: Path, folder: Path, *options: str) -> Path:
    register()
    root = folder / "tiny"
    if not root.is_dir():
        tiny.render(root)
    outputs = folder / "outputs"
    before = set(outputs.glob("tiny-*"))
    with initialize_config_dir(str(conf), version_base="1.3"):
        cross_validate(compose("train", tiny.overrides(root, outputs, *SMALL, *options)), RunReporter())
    (run,) = set(outputs.glob("tiny-*")) - before
    return run


def test_a_user_s_network_is_trained_and_read_again_if_trusted(project, tmp_path):
    options = ("model=mine", "model.width=8", "model.layer_decay=0.5", "model.frozen_stages=1", "fold=1")
    run = train(project, tmp_path, *options)
    weights = run / "fold1" / "checkpoints" / "weights.pt"
    bundle = ModelBundle.load(weights)
    assert bundle.network["stem.0.weight"].shape == (8, 1, 5, 5)
    # the process that trained it may read it, as for the pictures of its report
    predictor = Predictor.load(run)
    assert len(predictor.file(tmp_path / "tiny" / "audio" / "0.wav").top()) == 2
    log_mel = predictor.logmel(torch.rand(1, predictor.samples) - 0.5)
    assert predictor.scorer.activation(log_mel, 0).shape == log_mel.shape[-2:]
    _trusted.clear()
    with pytest.raises(InputError, match=r"model\._target_=usernets\.Net .* add --trust usernets"):
        Predictor.load(run)
    # its weights start another run
    section = {"_target_": "usernets.Net", "width": 8, "stem": "sum"}
    assert torch.equal(build_network(section, 2, str(weights)).head.weight, bundle.network["head.weight"])
    with pytest.raises(InputError, match=r"model\.widht is not an option of usernets\.Net\. Did you mean model\.width"):
        train(project, tmp_path, "model=mine", "model.widht=8")


@pytest.mark.slow
def test_a_sweep_over_networks_is_one_report(project, tmp_path, monkeypatch, capsys):
    networks = ["resnet18", "resnet34", "mobilenet_v3_small", "mine"]
    networks += ["timm"] if importlib.util.find_spec("timm") else []
    runs = {name: train(project, tmp_path, f"model={name}") for name in networks}
    for name, run in runs.items():
        predictor = Predictor.load(run, fold=1)
        assert predictor.models[0].temperature is not None, name
        export(predictor, tmp_path / f"{name}.onnx", "onnx")
        assert max_difference(predictor, tmp_path / f"{name}.onnx", "onnx") < 1e-4
        log_mel = predictor.logmel(torch.rand(1, predictor.samples) - 0.5)
        assert predictor.scorer.activation(log_mel, 1).shape == log_mel.shape[-2:], name
    from soundfold.cli.report import main

    monkeypatch.setattr(sys, "argv", ["soundfold report", str(tmp_path / "outputs"), "--format=csv"])
    main()
    table = capsys.readouterr().out
    assert all(run.name in table for run in runs.values())
    assert all(name in table for name in ("resnet34", "mobilenet_v3_small", "usernets.Net"))
    monkeypatch.setattr(sys, "argv", ["soundfold report", *map(str, runs.values())])
    main()
    (page,) = (tmp_path / "outputs").glob("comparison-*/report.html")
    assert all(text in page.read_text() for text in ("model.name", "mobilenet_v3_small", "usernets.Net"))
