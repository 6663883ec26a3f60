"""Supply chain and secrets: locked packages, no loader that runs code from a file, no API key in any output."""

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

from soundfold.cli.hydra_app import run

# modules and functions that can run code from a file or a string
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "jsonpickle", "tarfile"}
FUNCTIONS = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("subprocess.getstatusoutput", "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all"),
    *("yaml.unsafe_load", "yaml.unsafe_load_all", "torch.hub.load", "joblib.load", "shutil.unpack_archive"),
    *("pandas.read_pickle",),
}
# these unpack to any path that the archive names
METHODS = {"extract", "extractall"}
LOADS = {"torch.load", "torch.serialization.load"}
TRAINER = {"fit", "validate", "test", "predict"}


def unsafe_calls(source: str) -> list[str]:
    """Return the unsafe calls of a module with their lines."""
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

    def full_name(node: ast.AST) -> str:
        """Return the dotted name of an expression, such as ``torch.load``; empty if it is not a name."""
        if isinstance(node, ast.Name):
            return names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{full_name(node.value)}.{node.attr}"
        return ""

    def check(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"import {module}" for module in modules if module.split(".")[0] in MODULES)
        if not isinstance(node, ast.Name | ast.Attribute):
            return
        name, call = full_name(node), calls.get(id(node))
        arguments = {keyword.arg: keyword.value for keyword in call.keywords} if call else {}

        def has(option: str, value: bool) -> bool:
            return isinstance(arguments.get(option), ast.Constant) and arguments[option].value is value

        if name in FUNCTIONS:
            yield name
        # also refused if it is only referred to, since it may be called elsewhere
        if name in LOADS and not has("weights_only", True):
            yield name
        if name in ("numpy.load", "numpy.lib.format.open_memmap") and "allow_pickle" in arguments:
            yield f"{name} with allow_pickle"
        if name.startswith("subprocess.") and "shell" in arguments and not has("shell", False):
            yield f"{name} with shell"
        if not call or not isinstance(node, ast.Attribute):
            return
        if node.attr in METHODS:
            yield node.attr
        loads_checkpoint = node.attr == "load_from_checkpoint"
        loads_checkpoint |= node.attr in TRAINER and ("ckpt_path" in arguments or len(call.args) > 2)
        if loads_checkpoint and not has("weights_only", True):
            yield f"{node.attr} without weights_only=True"

    return [f"line {node.lineno}: {call}" for node in ast.walk(tree) for call in check(node)]


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
def test_unsafe_call_is_detected(source):
    assert unsafe_calls(source)


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
def test_safe_call_is_accepted(source):
    assert unsafe_calls(source) == []


def test_source_has_no_unsafe_calls():
    modules = [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    assert len(modules) > 90
    calls = {str(path.relative_to(ROOT)): unsafe_calls(path.read_text()) for path in modules}
    assert {path: lines for path, lines in calls.items() if lines} == {}


def locked_packages() -> list[tuple[Requirement, list[str]]]:
    """Return the requirements of the lock file with their hashes."""
    lines = (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()
    split = [re.split(r"\s+--hash=", line.strip()) for line in lines if line.strip()]
    return [(Requirement(requirement), hashes) for requirement, *hashes in split]


def test_locked_packages_are_pinned_and_hashed():
    packages = locked_packages()
    assert len(packages) > 100
    for package, hashes in packages:
        assert re.fullmatch(r"==[^*,]+", str(package.specifier)), package
        assert package.url is None
        assert hashes, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), package


def required_packages(project: dict, extras: set[str]) -> Iterator[Requirement]:
    """Yield the requirements of a project with extras; an extra may refer to others of the project."""
    optional = [requirement for extra in extras for requirement in project["optional-dependencies"][extra]]
    for package in map(Requirement, [*project["dependencies"], *optional]):
        if package.name == project["name"]:
            yield from required_packages(project, package.extras)
        else:
            yield package


def test_locked_versions_are_within_the_ranges_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions: dict[str, list[str]] = {}
    for package, _ in locked_packages():
        versions.setdefault(canonicalize_name(package.name), []).append(str(package.specifier)[2:])
    required = list(required_packages(project, {"dev"}))
    assert {"torch", "optuna", "gradio", "pytest"} <= {package.name for package in required}
    for package in required:
        locked = versions.get(canonicalize_name(package.name), [])
        assert locked, f"{package} is not locked"
        # the version may depend on the platform
        assert all(package.specifier.contains(version) for version in locked), f"{package}, but locked {locked}"


API_KEY = "5ec2e7" + "0123456789abcdef" * 2 + "42"
TOKENS = {
    "HF_TOKEN": "hf_QzXwVuTsRqPoNmLkJiHgFeDcBa",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLE",
}
PASSWORD = "106e1" + "fedcba9876543210" * 2 + "777"


def files_with(folder: Path, text: str) -> list[str]:
    """Return the names of files that contain half of the text: a LevelDB log may split it between two blocks."""
    middle = len(text) // 2
    halves = (text[:middle].encode(), text[middle:].encode())
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if any(half in path.read_bytes() for half in halves)]


@pytest.mark.slow
def test_secrets_of_the_environment_are_neither_printed_nor_stored(tmp_path):
    """Checks a cross-validation with a W&B run and a report page."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine api.wandb.ai\n  login user\n  password {PASSWORD}\n")
    netrc.chmod(0o600)
    args = overrides(render(tmp_path / "tiny"), tmp_path / "outputs", "logger=wandb", "trainer.max_epochs=1")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    # files outside of the outputs are searched too; logs are as verbose as possible
    paths = {"NETRC": str(netrc), "WANDB_CONFIG_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    verbose = {"WANDB_DEBUG": "true", "WANDB_CORE_DEBUG": "true"}
    done = train(*args, cwd=tmp_path, env={**environment, **paths, **verbose, **TOKENS, "WANDB_API_KEY": API_KEY})
    assert done.returncode == 0, done.stderr
    folder = only(tmp_path / "outputs")
    # the search covers the logs, and finds a text that is in the W&B file
    searched = {"report.html", "cv.json", "config.yaml", "debug.log", "debug-internal.log"}
    assert searched <= {path.name for path in folder.rglob("*")}
    assert [name for name in files_with(tmp_path, folder.name) if name.endswith(".wandb")]
    netrc.unlink()
    for value in (API_KEY, PASSWORD, *TOKENS.values()):
        assert files_with(tmp_path, value) == []
        assert value not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "argument",
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
def test_secret_on_the_command_line_is_refused_and_not_repeated(tmp_path, monkeypatch, capsys, argument, multirun):
    def main() -> None:
        raise AssertionError("Hydra was called, which prints and stores its arguments")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py", *multirun, "logger=wandb", argument.format(API_KEY)])
    with pytest.raises(SystemExit) as exit_info:
        run(main)
    output = capsys.readouterr()
    assert exit_info.value.code == 2
    assert re.search(r"(?i)(api[_-]key|token|password) .*WANDB_API_KEY", output.err)
    assert API_KEY not in output.out + output.err
    assert list(tmp_path.iterdir()) == []
