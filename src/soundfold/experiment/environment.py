"""Where a figure was measured: commit, versions, device."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "torchvision", "torchaudio", "lightning", "torchmetrics", "numpy", "soundfile")


def describe(device: torch.device) -> dict[str, Any]:
    """Commit of this project's checkout ("+changes" where it is dirty), versions, and the device's name."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in LIBRARIES},
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of the code differs between two environments, in words; the device may differ."""
    changed = [f"commit {then['commit']} and {now['commit']}"] if then["commit"] != now["commit"] else []
    for library, old in then["versions"].items():
        if now["versions"].get(library) != old:
            changed.append(f"{library} {old} and {now['versions'].get(library)}")
    return changed


def _commit() -> str:
    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=True).stdout

    try:
        dirty = "+changes" if git("status", "--porcelain", "--untracked-files=no").strip() else ""
        return git("rev-parse", "--short=12", "HEAD").strip() + dirty
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
