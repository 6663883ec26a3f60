"""What comes in from outside: packages, files that run code when they are read, and keys that must not go out."""

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tiny import ROOT, only, overrides, render, train
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from soundfold.cli import run
from soundfold.config import CONF

# a file's import of one of these, or a call of one of these functions, can run what a file or a word says
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "jsonpickle", "tarfile"}
FUNCTIONS = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all"),
    *("yaml.unsafe_load", "yaml.unsafe_load_all", "torch.hub.load", "joblib.load", "shutil.unpack_archive"),
    *("pandas.read_pickle",),
}
# these unpack wherever the archive says
METHODS = {"extract", "extractall"}
LOADS = {"torch.load", "torch.serialization.load"}
TRAINER = {"fit", "validate", "test", "predict"}


def faults(source: str) -> list[str]:
    """The unsafe calls of a module, by line."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}

    def full(node: ast.AST) -> str:
        """What an expression names, such as ``torch.load``; empty where it is no name."""
        if isinstance(node, ast.Name):
            return names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{full(node.value)}.{node.attr}"
        return ""

    def found(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"import {module}" for module in modules if module.split(".")[0] in MODULES)
        if not isinstance(node, ast.Name | ast.Attribute):
            return
        name, call = full(node), calls.get(id(node))
        given = {word.arg: word.value for word in call.keywords} if call else {}

        def says(option: str, value: bool) -> bool:
            return isinstance(given.get(option), ast.Constant) and given[option].value is value

        if name in FUNCTIONS:
            yield name
        # not called here, it is called by whoever gets it
        if name in LOADS and not says("weights_only", True):
            yield name
        if name in ("numpy.load", "numpy.lib.format.open_memmap") and "allow_pickle" in given:
            yield f"{name} with allow_pickle"
        if name.startswith("subprocess.") and "shell" in given and not says("shell", False):
            yield f"{name} with shell"
        if not call or not isinstance(node, ast.Attribute):
            return
        if node.attr in METHODS:
            yield node.attr
        loads = node.attr == "load_from_checkpoint"
        loads |= node.attr in TRAINER and ("ckpt_path" in given or len(call.args) > 2)
        if loads and not says("weights_only", True):
            yield f"{node.attr} without weights_only=True"

    return [f"line {node.lineno}: {fault}" for node in ast.walk(tree) for fault in found(node)]


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=flag)",
        "import torch\ntorch.load(path, **options)",
        "import torch as t\nt.load(path)",
        "from torch import load as read\nread(path)",
        "import torch\nread = torch.load",
        "from torch.serialization import load\nload(path)",
        "import torch.serialization\ntorch.serialization.load(path)",
        "Model.load_from_checkpoint(path)",
        "trainer.fit(model, data, ckpt_path=path)",
        "trainer.test(model, data, path)",
        "trainer.validate(model, data, ckpt_path=path, weights_only=False)",
        "eval(text)",
        "exec(text)",
        "import pickle",
        "from pickle import load",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "from yaml import unsafe_load as safe_load\nsafe_load(text)",
        "import os\nos.system(text)",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "from subprocess import run\nrun(text, shell=flag)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import zipfile\nzipfile.ZipFile(path).extractall(folder)",
        "import shutil\nshutil.unpack_archive(path)",
    ],
)
def test_an_unsafe_call_is_found(source):
    assert faults(source)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(path, map_location='cpu', weights_only=True)",
        "trainer.fit(model, data, ckpt_path=path, weights_only=True)",
        "trainer.test(model, data, verbose=False)",
        "model.eval()",
        "import yaml\nyaml.safe_load(text)",
        "import subprocess\nsubprocess.run(['git', 'status'])",
        "import numpy as np\nnp.load(path, mmap_mode='c')",
        "import json\njson.load(stream)",
    ],
)
def test_a_safe_call_is_not(source):
    assert faults(source) == []


def test_no_file_that_is_read_can_run_code():
    modules = [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    assert len(modules) > 90
    found = {str(path.relative_to(ROOT)): faults(path.read_text()) for path in modules}
    assert {path: lines for path, lines in found.items() if lines} == {}


def locked() -> list[tuple[Requirement, list[str]]]:
    """Each requirement of the lock with its hashes."""
    lines = (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()
    split = [re.split(r"\s+--hash=", line.strip()) for line in lines if line.strip()]
    return [(Requirement(words[0]), words[1:]) for words in split]


def test_every_locked_package_is_exact_and_hashed():
    found = locked()
    assert len(found) > 100
    for package, hashes in found:
        assert re.fullmatch(r"==[^*,]+", str(package.specifier)), package
        assert package.url is None
        assert hashes, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", word) for word in hashes), package


def wanted(project: dict, extras: set[str]) -> Iterator[Requirement]:
    """The requirements of a project with some extras, those that it names by itself included."""
    more = [word for extra in extras for word in project["optional-dependencies"][extra]]
    for package in map(Requirement, [*project["dependencies"], *more]):
        if package.name == project["name"]:
            yield from wanted(project, package.extras)
        else:
            yield package


def test_the_lock_is_within_the_ranges_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions: dict[str, list[str]] = {}
    for package, _ in locked():
        versions.setdefault(canonicalize_name(package.name), []).append(str(package.specifier)[2:])
    asked = list(wanted(project, {"dev"}))
    assert {"torch", "optuna", "gradio", "pytest"} <= {package.name for package in asked}
    for package in asked:
        found = versions.get(canonicalize_name(package.name), [])
        assert found, f"{package} is not locked"
        # where platforms differ, each has its own
        assert all(package.specifier.contains(version) for version in found), f"{package}, but locked {found}"


KEY = "5ec2e7" + "0123456789abcdef" * 2 + "42"
OTHERS = {"HF_TOKEN": "hf_QzXwVuTsRqPoNmLkJiHgFeDcBa", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLE"}
LOGIN = "106e1" + "fedcba9876543210" * 2 + "777"


def holding(folder: Path, text: str) -> list[str]:
    """The files with a half of the text: a file of blocks may hold the whole in two places."""
    half = len(text) // 2
    halves = (text[:half].encode(), text[half:].encode())
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if any(part in path.read_bytes() for part in halves)]


@pytest.mark.slow
def test_no_key_of_the_environment_is_printed_or_kept(tmp_path):
    """Of a whole cross-validation, with its own run and its page."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine api.wandb.ai\n  login user\n  password {LOGIN}\n")
    netrc.chmod(0o600)
    words = overrides(render(tmp_path / "tiny"), tmp_path / "outputs", "logger=wandb", "trainer.max_epochs=1")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    # what is written beside the outputs is looked through as well; logs are at their most talkative
    places = {"NETRC": str(netrc), "WANDB_CONFIG_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    talkative = {"WANDB_DEBUG": "true", "WANDB_CORE_DEBUG": "true"}
    done = train(*words, cwd=tmp_path, env={**environment, **places, **talkative, **OTHERS, "WANDB_API_KEY": KEY})
    assert done.returncode == 0, done.stderr
    folder = only(tmp_path / "outputs")
    # what is searched is there, and is found where it is to be found
    kept = {"report.html", "cv.json", "config.yaml", "debug.log", "debug-internal.log"}
    assert kept <= {path.name for path in folder.rglob("*")}
    assert [name for name in holding(tmp_path, folder.name) if name.endswith(".wandb")]
    netrc.unlink()
    for value in (KEY, LOGIN, *OTHERS.values()):
        assert holding(tmp_path, value) == []
        assert value not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "word",
    [
        "logger.wandb.api_key={}",
        "+logger.wandb.api_key={}",
        "++logger.wandb={{api_key:{}}}",
        "+logger={{wandb:{{'api_key':{}}}}}",
        "logger.wandb.api_key=[{}",
        "WANDB_API_KEY={}",
        "+hydra.job.env_set.WANDB_API_KEY={}",
        "hydra.launcher.setup=['export WANDB_API_KEY={}']",
        "--wandb-api-key={}",
        "+hf_token={}",
        "+password={}",
        "optim.api_key={},1",
    ],
)
@pytest.mark.parametrize("multirun", [(), ("-m",)])
def test_a_key_on_the_command_line_is_refused_and_not_repeated(tmp_path, monkeypatch, capsys, word, multirun):
    def main() -> None:
        raise AssertionError("Hydra, which repeats and keeps what it is given, has been called")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py", *multirun, "logger=wandb", word.format(KEY)])
    with pytest.raises(SystemExit) as stopped:
        run(main, CONF)
    told = capsys.readouterr()
    assert stopped.value.code == 2
    assert re.search(r"(?i)(api[_-]key|token|password) .*WANDB_API_KEY", told.err)
    assert KEY not in told.out + told.err
    assert list(tmp_path.iterdir()) == []
