"""The command ``soundfold``: its help, Hydra's flags, tab completion, and that scripts/ are the same commands."""

import os
import resource
import runpy
import shutil
import subprocess
from importlib import import_module

import pytest
from helpers.command import install, run_here, soundfold
from helpers.tiny import ROOT

from soundfold import __version__
from soundfold.cli.main import COMMANDS, CONFIGURED


def test_help_takes_less_than_half_a_second(tmp_path):
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = soundfold(tmp_path, "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert min(seconds) < 0.5


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ((), 0, "usage: soundfold COMMAND"),
        (("--version",), 0, f"soundfold {__version__}\n"),
        (("trian",), 2, "error: trian is not a command of soundfold. Did you mean train?"),
        (("train", "--help"), 0, "Arguments are GROUP=OPTION and KEY=VALUE, as in Hydra"),
        (("predict", "--help"), 0, "usage: soundfold predict [-h]"),
        (("report", "--help"), 0, "Options are flags, --NAME VALUE"),
        *(
            ((name, "run", *more, "--trust", "a/b"), 2, "--trust a/b: this is not the import path of a module")
            for name, *more in (("report",), ("predict", "x.wav"), ("explain", "x.wav"), ("export",), ("demo",))
        ),
        (("report", "run", "--trust", "absent.module"), 2, "--trust absent.module: there is no such module"),
        # Hydra's flags, also after overrides
        (("train", "seed=3", "--cfg", "job", "--package", "trainer"), 0, "# @package trainer\naccelerator: auto\n"),
        (("train", "-c", "job", "-p", "model", "--resolve", "model.width=8"), 0, "width: 8\n"),
        (("prepare", "--info", "defaults"), 0, "base/collection"),
        (("train", "-cn", "explore", "-c", "job", "-p", "examples"), 0, "3"),
        (("train", "--hydra-help"), 0, "Hydra"),
        (("train", "-sc", "install=bash"), 0, "complete -o nospace -o default -F hydra_bash_completion soundfold"),
        (("train", "-sc", "uninstall=fish"), 0, "complete -e -c soundfold"),
        (
            ("train", "experiment=quik"),
            2,
            "error: experiment has no option quik. Did you mean quick? Options: debug, demo, find_lr, finetune, quick,",
        ),
        (("train", "fold=[1,2]"), 2, "or an integer: for several folds use -m fold=1,2.\n"),
        (("train", "fold={a:1}"), 2, "error: fold={a:1} must be a single whole number or word.\n"),
        (("train", "install=bash"), 2, "install is not a key of the configuration"),
    ],
)
def test_commands_and_flags(args, code, text, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, *args) == code
    captured = capsys.readouterr()
    assert text in captured.out + captured.err
    assert list(tmp_path.iterdir()) == []


# scripts/wandb.py would hide the package of that name
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("init", "wandb")])
def test_scripts_are_the_commands(name):
    script = runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))
    assert script["main"] is import_module(f"soundfold.cli.{name}").main


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("soundfold ", list(COMMANDS)),
        ("soundfold tr", list(COMMANDS)),  # the shell selects
        ("soundfold train schedule=", [f"schedule={name}" for name in ("constant", "cosine", "linear", "steps")]),
        (
            "soundfold train --config-dir mine seed=1 average=",
            [f"average={name}" for name in ("ema", "none", "swa", "of_mine")],
        ),
        ("soundfold train --config-dir=mine average=of", ["average=of_mine"]),
        ("soundfold train trainer.acce", ["trainer.accelerator="]),
        ("soundfold report outputs/", []),
    ],
)
def test_completion_of_a_line(line, completions, monkeypatch, capsys, tmp_path):
    (tmp_path / "mine" / "average").mkdir(parents=True)
    (tmp_path / "mine" / "average" / "of_mine.yaml").write_text("kind: none\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMP_LINE", line)
    assert run_here(monkeypatch, "-sc", "query=bash") == 0
    assert sorted(capsys.readouterr().out.split()) == sorted(completions)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_in_bash(tmp_path):
    install(tmp_path)
    script = """eval "$(soundfold train -sc install=bash)"
COMP_LINE="soundfold train schedule=co"; COMP_POINT=${#COMP_LINE}; COMP_CWORD=2
hydra_bash_completion; echo "${COMPREPLY[@]}"; complete -p soundfold"""
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.stdout.splitlines()[0].split() == ["schedule=constant", "schedule=cosine"], done.stderr
    assert done.stdout.splitlines()[1].endswith(" -F hydra_bash_completion soundfold")


def test_the_help_says_how_each_command_is_configured(monkeypatch, capsys):
    for name in COMMANDS:
        assert run_here(monkeypatch, name, "--help") == 0
        line = "as in Hydra" if name in CONFIGURED else "Options are flags, --NAME VALUE"
        assert line in " ".join(capsys.readouterr().out.split())
