"""The software and hardware that a result was measured with."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "torchvision", "torchaudio", "lightning", "torchmetrics", "numpy", "soundfile")


def describe(device: torch.device) -> dict[str, Any]:
    """Return the commit ("+changes" if the checkout is dirty), library versions, device name and thread count."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in LIBRARIES},
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
    }


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return a phrase for the commit and each library version that differ between two environments.

    Devices are not compared.
    """
    changed = [f"commit {old['commit']} and {new['commit']}"] if old["commit"] != new["commit"] else []
    for library, release in old["versions"].items():
        if new["versions"].get(library) != release:
            changed.append(f"{library} {release} and {new['versions'].get(library)}")
    return changed


def _commit() -> str:
    def git(*args: str) -> str:
        # without the locks, `status` does not write the index, which a commit at the same moment would find locked
        command = ["git", "--no-optional-locks", "-C", str(Path(__file__).parent), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        dirty = "+changes" if git("status", "--porcelain", "--untracked-files=no").strip() else ""
        return git("rev-parse", "--short=12", "HEAD").strip() + dirty
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
