"""Which packages each kind of start imports. Times are in docs/explanation/start-up.md."""

import json
import os
import shlex
import subprocess
import sys

import pytest
from helpers.tiny import ROOT, overrides, render

# prints the modules of a command that has ended
LIST = "import atexit, json, sys; atexit.register(lambda: print(json.dumps(sorted(sys.modules))))"
CALL = "from soundfold.cli.main import main; sys.argv = ['soundfold', *sys.argv[1:]]; sys.exit(main())"
# none of these is used by a training of our network without compilation
UNUSED = {
    "torch._dynamo",
    "torch._inductor",
    "torchvision",
    "torchvision.models.detection",
    "sympy",
    "scipy",
    "scipy.stats",
    "matplotlib",
    "onnxruntime",
    "librosa",
    "triton",
    "wandb",
    "pandas",
    "torchaudio",
}


def modules_of(*args: str, code: int = 0) -> set[str]:
    """Run ``soundfold`` in a new process; return the modules that it imported."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", f"{LIST}; {CALL}", *args], capture_output=True, text=True, env=env)
    assert done.returncode == code, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("--help", 0),
        ("train --help", 0),
        ("predict --help", 0),
        ("train sede=1", 2),
        ("train optim.lr=-1", 2),
        ("train selection.choose=lst", 2),
        ("train fold=some", 2),
    ],
)
def test_help_and_errors_of_the_configuration_import_no_library_of_arrays(command, code):
    imported = modules_of(*shlex.split(command), code=code)
    assert not imported & {*UNUSED, "torch", "lightning", "torchmetrics", "numpy", "rich", "filelock", "asyncio"}


@pytest.mark.parametrize("override", ["sede=1", "optim.lr=-1", "selection.choose=lst", "fold=some"])
def test_a_misspelled_key_and_an_invalid_value_are_refused_before_hydra_looks_for_plugins(override):
    plugins = "hydra._internal.core_plugins"
    assert not {name for name in modules_of("train", override, code=2) if name.startswith(plugins)}
    assert {name for name in modules_of("train", "crops.trim=true", code=2) if name.startswith(plugins)}


def test_the_library_installs_no_import_hook():
    code = "import sys; before = list(sys.meta_path); import soundfold.errors; assert sys.meta_path == before"
    hook = "import soundfold.cli; assert len(sys.meta_path) == len(before) + 1"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", f"{code}; {hook}"], check=True, env=env)


@pytest.mark.slow
def test_transformers_which_torchmetrics_imports_is_not_imported(tmp_path):
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "transformers-5.1.0.dist-info").mkdir()
    (tmp_path / "transformers-5.1.0.dist-info" / "METADATA").write_text("Name: transformers\nVersion: 5.1.0\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(tmp_path)])}
    code = "{}import lightning.pytorch; from torchmetrics.functional.text.bert import AutoModel"
    subprocess.run([sys.executable, "-c", code.format("import soundfold.cli; ")], check=True, env=env)
    done = subprocess.run([sys.executable, "-c", code.format("")], capture_output=True, text=True, env=env)
    assert "RuntimeError: imported" in done.stderr


@pytest.mark.slow
def test_a_training_and_its_model_import_only_what_they_use(tmp_path):
    root = render(tmp_path / "clips")
    options = overrides(root, tmp_path / "outputs", "fold=1")
    imported = modules_of("train", *options)
    assert {"torch", "lightning.pytorch", "torchmetrics"} <= imported
    assert not imported & UNUSED - {"scipy", "scipy.stats"}  # the interval of the accuracy at the end
    (run,) = (tmp_path / "outputs").glob("tiny-*")
    assert not modules_of("predict", str(run), str(root / "audio" / "0.wav")) & UNUSED
    assert not modules_of("report", str(tmp_path / "outputs"), "--format", "csv") & {*UNUSED, "torch", "lightning"} - {
        "scipy",
        "scipy.stats",
    }
