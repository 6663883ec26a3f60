"""The command ``soundfold``, in this process and in a new one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from helpers.tiny import ROOT
from soundfold.cli.main import main
from soundfold.experiment.sweep import Sweep

# the file that pip writes for an entry point
SCRIPT = """import sys
from soundfold.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""


def run_here(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    """Run ``soundfold ARGS`` in this process and return its exit code."""
    GlobalHydra.instance().clear()
    monkeypatch.setattr(Sweep, "folder", None)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # restores it after a sweep has set it
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["soundfold", *args])
    try:
        return main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    finally:
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None


def install(folder: Path) -> Path:
    """Write the command into a folder; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "soundfold"
    path.write_text(f"#!{sys.executable}\n{SCRIPT}")
    path.chmod(0o755)
    return path


def python_path() -> str:
    """Return the PYTHONPATH of a new process that imports helpers of the tests."""
    return os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])


def soundfold(folder: Path, *args: str, **options) -> subprocess.CompletedProcess:
    """Run ``soundfold ARGS`` in a new process; ``folder`` gets the command."""
    return subprocess.run([str(install(folder)), *args], capture_output=True, text=True, **options)
