"""A project outside of the package: its configuration, its modules in every process, and what is stored about them."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torchmetrics
from helpers.command import run_here, soundfold
from helpers.tiny import only, overrides, render
from omegaconf import OmegaConf

from soundfold.config import compose_config
from soundfold.errors import InputError
from soundfold.evaluation.results import FoldResult
from soundfold.experiment import environment, search_summary
from soundfold.experiment import run as runs
from soundfold.experiment.sweep import read_jobs
from soundfold.experiment.user_modules import module_digests, package_versions
from soundfold.report.reporter import RunReporter

OPTIMIZER = """import sys
import torch
import torchmetrics  # must be the library

class Mine(torch.optim.SGD):
    where = (torchmetrics.__file__, sys.path.index({folder!r}), len(sys.path))
"""
EXPERIMENT = """# @package _global_
# my experiment
defaults:
  - override /optim: mine
seed: 5
"""


@pytest.fixture
def project(tmp_path) -> Path:
    """Return a folder with an experiment, an optimizer, and a file that has the name of a library."""
    folder = tmp_path / "project"
    for group in ("experiment", "optim"):
        (folder / "conf" / group).mkdir(parents=True)
    (folder / "conf" / "experiment" / "mine.yaml").write_text(EXPERIMENT)
    options = "defaults:\n  - sgd\n  - _self_\n_target_: my_optimizer.Mine\nlr: 0.5\nmomentum: 0.25\n"
    (folder / "conf" / "optim" / "mine.yaml").write_text(options)
    (folder / "my_optimizer.py").write_text(OPTIMIZER.format(folder=str(folder)))
    (folder / "torchmetrics.py").write_text("raise ImportError('hides the library')\n")
    return folder


@pytest.fixture
def composed(monkeypatch):
    """The configurations that `cross_validate` was called with; it imports the optimizer's module."""
    found = []

    def cross_validate(cfg, *_, **__) -> float:
        found.append((cfg, sys.path[-1], environment.command(), module_digests(OmegaConf.to_container(cfg))))
        return 0.5

    monkeypatch.setattr(runs, "cross_validate", cross_validate)
    yield found
    sys.modules.pop("my_optimizer", None)


@pytest.mark.parametrize("sweep", [False, True])
def test_options_and_modules_of_a_project_are_found(sweep, project, composed, monkeypatch, capsys):
    monkeypatch.chdir(project.parent)
    args = ["--config-dir", "project/conf", "optim.lr=0.1", "fold=1", *(["-m"] if sweep else [])]
    assert run_here(monkeypatch, "train", "experiment=mine", *args) == 0, capsys.readouterr().err
    ((cfg, last, command, modules),) = composed
    assert (cfg.seed, cfg.optim.lr, cfg.optim.momentum, cfg.optim._target_) == (5, 0.1, 0.25, "my_optimizer.Mine")
    assert last == str(project)
    assert command == "soundfold train --config-dir project/conf experiment=mine optim.lr=0.1 fold=1"
    assert list(modules) == ["my_optimizer"]
    assert sys.modules["my_optimizer"].Mine.where[0] == torchmetrics.__file__


def test_the_best_settings_of_a_search_are_found_beside_a_project(project, composed, monkeypatch, tmp_path):
    (tmp_path / "study" / "experiment").mkdir(parents=True)
    best = "# @package _global_\ndefaults: [mine]\noptim: {lr: 0.125}\n"
    (tmp_path / "study" / "experiment" / "best.yaml").write_text(best)
    monkeypatch.chdir(project)
    study: Any = SimpleNamespace(folder=tmp_path / "study")
    assert search_summary._search_path(study) == ["--config-dir", str(study.folder)]
    monkeypatch.setattr(search_summary, "config_dirs", lambda: ["conf"])
    assert run_here(monkeypatch, "train", *search_summary._search_path(study), "experiment=best", "fold=1") == 0
    assert (composed[0][0].optim.lr, composed[0][0].seed) == (0.125, 5)


def test_only_config_dir_extends_the_import_path(project, composed, monkeypatch):
    monkeypatch.chdir(project)
    assert run_here(monkeypatch, "train", "fold=1") == 0
    assert composed[0][1] != str(project)
    assert run_here(monkeypatch, "train", "fold=1", "optim._target_=my_optimizer.Mine") == 0
    assert composed[1][3] == {}  # not found
    assert "my_optimizer" not in sys.modules


def test_help_lists_the_options_of_a_project(project, monkeypatch, capsys):
    args = ("--help", "experiment=mine", f"--config-dir={project / 'conf'}")
    assert run_here(monkeypatch, "train", *args) == 0
    lines = [re.sub(" +# ", "  # ", line) for line in capsys.readouterr().out.splitlines()]
    assert "experiment=mine  # my experiment" in lines
    assert "seed: 5  # of weights, order, augmentation and random splits, 0 or more" in lines


@pytest.mark.parametrize(
    ("file", "args", "message"),
    [
        ("optim/sgd.yaml", [], "optim/sgd.yaml has the name of a file of soundfold"),
        ("train.yaml", [], "train.yaml has the name of a file of soundfold"),
        ("optim/other.yaml", ["optim.lrr=1"], "optim.lrr is not a key of the configuration"),
        ("optim/other.yaml", ["optim=others"], "optim/others"),
    ],
)
def test_mistakes_in_a_project_are_explained(file, args, message, project, monkeypatch, capsys):
    (project / "conf" / file).write_text("lr: 1\n")
    assert run_here(monkeypatch, "train", *args, f"--config-dir={project / 'conf'}") == 2
    assert message in capsys.readouterr().err


def test_a_missing_config_dir_is_named(tmp_path, monkeypatch, capsys):
    assert run_here(monkeypatch, "train", f"--config-dir={tmp_path / 'absent'}") == 2
    assert f"Additional config directory '{tmp_path / 'absent'}' not found" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "folds"),
    [
        (["-m", "hydra/launcher=processes", "fold=1,2"], 2),
        (["-m", "hydra/launcher=joblib", "fold=1,2"], 2),
        (["-m", "hydra/launcher=slurm_local", "fold=1,2"], 2),
        (["trainer.devices=2", "fold=1"], 1),
    ],
    ids=["processes", "joblib", "slurm_local", "devices"],
)
def test_other_processes_import_from_the_project(options, folds, project, tmp_path):
    (project / "random.py").write_text("raise ImportError('hides the standard library')\n")
    small = ("trainer.max_epochs=1", "optim.lr=0.01", "report.page=none")
    args = overrides(render(tmp_path / "tiny"), tmp_path / "out", *small, *options)
    done = soundfold(tmp_path / "bin", "train", "experiment=mine", *args, "--config-dir", "conf", cwd=project)
    assert done.returncode == 0, done.stderr
    for sweep in (tmp_path / "out").glob("multirun/*"):
        assert [job.status for job in read_jobs(sweep)] == ["finished"] * folds, done.stderr
    results = [json.loads(path.read_text()) for path in only(tmp_path / "out").glob("fold*/result.json")]
    assert [list(result["modules"]) for result in results] == [["my_optimizer"]] * folds


class Interrupted(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("state", ["finished", pytest.param("interrupted", marks=pytest.mark.slow)])
def test_a_fold_of_changed_code_is_not_reused(state, project, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "code")
    (tmp_path / "code").mkdir()
    module = tmp_path / "code" / "changing.py"
    module.write_text("from torch.optim import SGD\nclass Mine(SGD):\n    pass\n")
    root = tmp_path / "tiny"
    args = overrides(
        root, tmp_path / "out", "optim=sgd", "optim._target_=changing.Mine", "fold=1", "trainer.max_epochs=1"
    )

    def train(*more: str) -> None:
        runs.cross_validate(compose_config(*args, *more), RunReporter())

    render(root)
    monkeypatch.setattr(runs, "_report", lambda *_, **__: None)
    if state == "interrupted":
        with monkeypatch.context() as patch:
            patch.setattr("soundfold.experiment.fold._score", _interrupt)
            with pytest.raises(Interrupted):
                train()
    else:
        train()
    source = module.read_text()
    module.write_text(f"{source}# changed\n")
    message = rf"{module} has changed since fold 1 of tiny-\w+ .* rerun=true, .* label=TEXT"
    with pytest.raises(InputError, match=message):
        train()
    module.write_text(source)
    train()  # reused, or resumed
    assert FoldResult.load(only(tmp_path / "out") / "fold1" / "result.json").epochs == 1
    module.write_text(f"{source}# changed\n")
    monkeypatch.setattr(runs, "run_fold", lambda run, fold: pytest.fail(f"{run.group} trains"))
    for option in ("rerun=true", "label=changed"):
        with pytest.raises(pytest.fail.Exception, match="trains"):
            train(option)
    sys.modules.pop("changing")


def _interrupt(*_) -> None:
    raise Interrupted


def test_modules_of_packages_and_of_logging_do_not_count(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "__init__.py").write_text("from own.parts import Thing\n")
    (tmp_path / "own" / "parts.py").write_text("class Thing:\n    pass\n")
    values = {
        "model": {"_target_": "own.Thing", "parts": [{"_target_": "collections.OrderedDict"}]},
        "optim": {"_target_": "torch.optim.SGD"},
        "crops": {"_target_": "soundfold.features.crops.Crops"},
        "average": {"_target_": "absent.module.Class"},
        "logger": {"mine": {"_target_": "own.parts.Thing"}},
    }
    # the package that exports the class, and the module that defines it
    assert sorted(module_digests(values)) == ["own", "own.parts"]
    assert module_digests({"logger": values["logger"]}) == {}
    assert package_versions({**values, "callbacks": {"a": {"_target_": "omegaconf.OmegaConf"}}}) == {
        "omegaconf": version("omegaconf")
    }
    for name in ("own", "own.parts"):
        sys.modules.pop(name)


def test_commits_of_soundfold_and_of_the_project(tmp_path, monkeypatch):
    def commit(folder: Path) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        for command in (["init", "-q"], [*who, "commit", "-qm", "x", "--allow-empty"]):
            subprocess.run(["git", "-C", str(folder), *command], check=True)
        return environment._git(folder, "rev-parse", "--short=12", "HEAD")

    package, project = tmp_path / "checkout" / "package", tmp_path / "project"
    package.mkdir(parents=True)
    project.mkdir()
    own, users = commit(package.parent), commit(project)
    monkeypatch.setattr(environment, "PACKAGE", package)
    monkeypatch.chdir(project)
    assert environment._commits() == {"commit": own, "project": users}
    monkeypatch.chdir(package)
    assert environment._commits() == {"commit": own}
    # installed into an environment within the user's project
    monkeypatch.setattr(environment, "is_built", lambda: True)
    monkeypatch.chdir(package.parent)
    assert environment._commits() == {"commit": "installed package", "project": own}
    monkeypatch.chdir(tmp_path)
    assert environment._commits() == {"commit": "installed package"}
