"""``soundfold init`` writes a project whose network, augmentation and experiment work, and replaces no files."""

import os
import subprocess
import sys

import pytest
from helpers.command import run_here

from soundfold.cli.init import TEMPLATE


def test_a_project_is_written_and_its_tests_pass(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("birds", "empty"):
        assert run_here(monkeypatch, "init", name) == 0
    assert "cd birds\n    soundfold train --config-dir conf experiment=first" in capsys.readouterr().out
    files = {path.relative_to(TEMPLATE) for path in TEMPLATE.rglob("*") if "__pycache__" not in path.parts}
    for name in ("birds", "empty"):
        assert {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*")} == files
    assert run_here(monkeypatch, "train", "--config-dir", "birds/conf", "experiment=first", "--cfg", "job") == 0
    assert "_target_: networks.SmallCNN" in capsys.readouterr().out


@pytest.mark.slow
def test_the_tests_of_a_project_pass(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "init", "birds") == 0
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path / "birds", capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


@pytest.mark.parametrize("name", ["full", "file", "file/below"])
def test_existing_files_are_not_replaced(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "networks.py").write_text("mine")
    (tmp_path / "file").write_text("mine")
    assert run_here(monkeypatch, "init", name) == 2
    assert f"error: {name} " in capsys.readouterr().err
    assert [path.read_text() for path in sorted(tmp_path.rglob("*")) if path.is_file()] == ["mine", "mine"]
