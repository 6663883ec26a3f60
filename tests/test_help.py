"""``--help`` and the refusal of misspelled keys: their text, and that they import nothing heavy."""

import re
import subprocess
import sys

import pytest
from helpers.tiny import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from soundfold.config import CONF, flatten, register
from soundfold.config.comments import group_comment, key_comments
from soundfold.config.help import help_text


def run_without_heavy_imports(*args: str) -> subprocess.CompletedProcess:
    """Run scripts/train.py; print HEAVY, the heavy modules that it imported, and its exit code."""
    probe = (
        "import sys, runpy; sys.argv = ['train.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('scripts/train.py', run_name='__main__')\n"
        "except SystemExit as end: code = end.code\n"
        "else: code = 0\n"
        "print('HEAVY', sorted({'torch', 'lightning', 'torchmetrics', 'wandb'} & set(sys.modules)), code)"
    )
    return subprocess.run([sys.executable, "-c", probe, *args], cwd=ROOT, capture_output=True, text=True, check=True)


@pytest.mark.parametrize(("override", "near"), [("optim.lrr=1", "optim.lr"), ("+crops.trimm=1", "crops.trim")])
def test_misspelled_key_is_refused_without_heavy_imports(override, near):
    process = run_without_heavy_imports(override)
    assert "HEAVY [] 2" in process.stdout
    key = override.strip("+").partition("=")[0]
    assert f"{key} is not a key of the configuration. Did you mean {near}?" in process.stderr
    assert "Traceback" not in process.stderr


def test_help_is_printed_without_heavy_imports():
    process = run_without_heavy_imports("--help", "optim=sgd")
    assert "HEAVY [] 0" in process.stdout
    register()
    assert help_text("train", ["optim=sgd"]) in process.stdout
    assert "momentum: 0.9" in process.stdout


GROUPS = {
    "train": (
        *("data", "split", "features", "augment", "model", "optim", "schedule", "average", "trainer", "selection"),
        *("metrics", "callbacks", "logger", "experiment", "ablate", "search"),
    ),
    "explore": ("data", "features", "augment"),
    "prepare": ("data",),
    "benchmark": (),
}
# lines of the help: key, value and comment
KEY_LINES = {
    "train": ["fold: all  # all, none (", "  n_mels: 128  # mel bands, 1 to 1,024", "seed: 0  # of weights, order, "],
    "explore": ["device: auto  # auto, cpu, cuda", "seed: 0  # of the choice of clips", "  n_mels: 128  # mel bands"],
    "prepare": ["audit: false  # check the collection for duplicates", "  sample_rate: 44100  # Hz"],
    "benchmark": ["device: cpu  # cpu, cuda", "clips: 32  # clips per measurement, 1 or more"],
}


def help_lines(command: str, *overrides: str) -> list[str]:
    """Return the lines of a help text with its columns joined by two spaces."""
    register()
    return [re.sub(r" +  # ", "  # ", line) for line in help_text(command, overrides).splitlines()]


@pytest.mark.parametrize("command", GROUPS)
def test_help_has_every_option_of_each_group(command):
    lines = [line for line in help_lines(command) if re.match(r"[\w/]+=\w", line)]
    expected = {
        f"{group}={path.stem}": group_comment(path)
        for group in GROUPS[command]
        for path in (CONF / group).glob("*.yaml")
    }
    assert {line.split("  # ")[0]: line.partition("  # ")[2] for line in lines} == expected
    # these files are included, not chosen
    assert not any(line.startswith(("base", "schema", "hydra")) for line in help_lines(command))


@pytest.mark.parametrize("command", GROUPS)
def test_help_has_every_key_with_its_value_and_comment(command):
    lines = help_lines(command)
    for start in KEY_LINES[command]:
        assert any(line.startswith(start) for line in lines), start
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values = flatten(OmegaConf.to_container(compose(command)))
    comments = key_comments(command)
    for key in values:
        depth, name = key.count("."), key.rpartition(".")[2]
        comment = f"  # {comments[key]}" if key in comments else ""
        assert any(re.fullmatch(f"{'  ' * depth}{name}: .*{re.escape(comment)}", line) for line in lines), key


def test_help_shows_the_keys_of_the_chosen_options():
    assert not any("momentum" in line for line in help_lines("train"))
    lines = help_lines("train", "optim=sgd")
    assert "  momentum: 0.9  # 0 to 1" in lines
    assert not any("betas" in line for line in lines)
