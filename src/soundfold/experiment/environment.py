"""The software and hardware that a result was measured with."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

LIBRARIES = ("torch", "torchvision", "torchaudio", "lightning", "torchmetrics", "numpy", "soundfile")


def describe(device: torch.device) -> dict[str, Any]:
    """Return the commit ("+changes" if the checkout is dirty), library versions and the machine, without its name."""
    processor = _processor()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in LIBRARIES},
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
        "processor": f"{processor}, {os.cpu_count()} cores",
        "memory": _memory(),
        "operating system": _operating_system(),
    }


def command() -> str | None:
    """Return the command of this job, with its overrides as in Hydra's ``overrides.yaml``; None outside of Hydra.

    An override has no secret: interpolations are not resolved, and the command line refuses keys that hold one.
    """
    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    # the folder of --config-dir; Hydra stores its absolute path
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    options = [part for folder in folders for part in ("--config-dir", os.path.relpath(folder, hydra.runtime.cwd))]
    # reading an item would resolve it
    overrides: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return shlex.join(["python", f"scripts/{hydra.job.name}.py", *options, *overrides])


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return a phrase for the commit and each library version that differ between two environments.

    Devices are not compared.
    """
    changed = [f"commit {old['commit']} and {new['commit']}"] if old["commit"] != new["commit"] else []
    for library, release in old["versions"].items():
        if new["versions"].get(library) != release:
            changed.append(f"{library} {release} and {new['versions'].get(library)}")
    return changed


def _processor() -> str:
    """Return the model of the processor; `platform.processor` is empty, or the architecture, on most Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    except (AttributeError, OSError, ValueError):
        return "unknown"  # not on Windows


def _operating_system() -> str:
    kernel = f"{platform.system()} {platform.release()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


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
