"""The wheel in a fresh environment: its configuration, and a project of the user's without a change in the package."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from helpers.tiny import ROOT, overrides, render
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from soundfold.config import CONF, register

COMPOSED = [
    ("train", []),
    ("train", ["data=esc50", "optim=sgd", "experiment=scratch"]),
    ("prepare", []),
    ("explore", []),
]
COMPOSE = """import json, sys
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
import soundfold
from soundfold.config import CONF, register
register()
with initialize_config_dir(str(CONF), version_base="1.3"):
    configs = [OmegaConf.to_container(compose(*args)) for args in json.loads(sys.argv[1])]
print(json.dumps([soundfold.__file__, str(CONF), configs]))
"""
pytestmark = pytest.mark.slow


def call(*command: object, **options) -> str:
    """Run a command and return its output."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """Return the folder of commands of a fresh environment with the wheel, which was built from the source archive."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    # the build writes to its source
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source)
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    build = "from setuptools import build_meta; build_meta.build_sdist('..')"
    call(sys.executable, "-c", build, cwd=source)
    (archive,) = work.glob("*.tar.gz")
    shutil.unpack_archive(archive, work / "unpacked", filter="data")
    (unpacked,) = (work / "unpacked").iterdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    call(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", work, unpacked)
    (wheel,) = work.glob("*.whl")
    venv.create(work / "env", with_pip=False)
    python = work / "env" / "bin" / "python"
    packages = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # a plain path: the .pth files in it, such as that of an editable install, are not read
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    call(*pip, "--python", python, "install", "-q", "--no-deps", wheel)
    return python.parent


def test_the_wheel_has_the_configuration_of_the_checkout(environment, tmp_path):
    printed = call(environment / "python", "-P", "-c", COMPOSE, json.dumps(COMPOSED), cwd=tmp_path)
    package, conf, configs = json.loads(printed.splitlines()[0])
    assert Path(package).is_relative_to(environment.parent)
    assert Path(conf) == Path(package).parent / "conf"
    files = {path.relative_to(CONF): path.read_bytes() for path in CONF.rglob("*.yaml")}
    assert {path.relative_to(conf): path.read_bytes() for path in Path(conf).rglob("*.yaml")} == files
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert configs == [OmegaConf.to_container(compose(*args)) for args in COMPOSED]


ADDITIONS = """import lightning.pytorch as pl
import torch
from torchmetrics import Metric


class Confidence(Metric):
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("clips", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, preds, target) -> None:
        self.total += preds.amax(dim=1).sum()
        self.clips += len(target)

    def compute(self):
        return self.total / self.clips


class Epochs(pl.Callback):
    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        with open(self.path, "a") as stream:
            print(trainer.current_epoch, file=stream)
"""


def test_a_project_in_an_empty_folder(environment, tmp_path):
    """A network, an augmentation, a metric, a callback and a table of the user's; nothing in the package changes."""
    project = tmp_path / "birds"

    def soundfold(*args: object) -> str:
        return call(environment / "soundfold", *args, cwd=project if project.exists() else tmp_path)

    soundfold("init", "birds")
    assert "usage" in soundfold("--help")
    call(environment / "python", "-P", "-m", "pytest", "-q", cwd=project)
    (project / "additions.py").write_text(ADDITIONS)
    clips = render(tmp_path / "tiny")
    rows = [f"{i}.wav,{'noise' if i // 3 % 2 == 0 else 'tone'},{i}" for i in range(30)]
    (project / "clips.csv").write_text("\n".join(["sound,species,site", *rows]) + "\n")
    columns = "file_column: sound\nclass_column: species\nsource_column: site\nfolds: 3\n"
    for group, text in {
        "data": f"defaults: [csv]\ntable: {project / 'clips.csv'}\naudio: audio\n{columns}",
        "metrics": "defaults: [default]\nconfidence: {_target_: additions.Confidence}\n",
        "callbacks": "epochs: {_target_: additions.Epochs, path: epochs.txt}\n",
    }.items():
        (project / "conf" / group).mkdir()
        (project / "conf" / group / "own.yaml").write_text(text)
    tiny = [*overrides(clips, project / "outputs", "report.page=plain"), "data=own", "--config-dir", "conf"]
    assert "30 clips scored once" in soundfold("train", *tiny, "experiment=debug")
    soundfold("train", *tiny, "experiment=first", "metrics=own", "callbacks=own")
    (run,) = (path.parent for path in (project / "outputs").glob("*/cv.json"))
    result = json.loads((run / "fold1" / "result.json").read_text())
    assert result["environment"]["commit"] == "installed package"
    assert sorted(result["modules"]) == ["additions", "augmentations", "networks"]
    assert 0.5 <= result["confidence"] <= 1
    assert result["classes"] == ["noise", "tone"]
    assert (project / "epochs.txt").read_text().split() == ["0", "1"] * 3
    with pytest.raises(AssertionError, match="add --trust networks"):
        soundfold("predict", run, clips / "audio" / "0.wav")
    assert "0.wav" in soundfold("predict", run, clips / "audio" / "0.wav", "--format=csv", "--trust", "networks")
    assert "mean ± sd" in soundfold("report", run, "--trust", "networks")
    assert (run / "report.html").is_file()
