"""The software and hardware that a result was measured with."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from soundfold import __version__
from soundfold.config import is_built
from soundfold.config.composition import PACKAGE

LIBRARIES = ("torch", "torchvision", "torchaudio", "lightning", "torchmetrics", "numpy", "soundfile")


def describe(device: torch.device, packages: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return commits, versions of libraries and of further ``packages``, and the machine, without its name.

    ``commit`` is that of soundfold's checkout, and ``project`` that of the user's repository if it is another one: the
    repository of the folder that contains ``--config-dir``, or else of the current folder. "+changes" marks a checkout
    that differs from its commit.
    """
    processor = _processor()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        **_commits(),
        "python": platform.python_version(),
        "versions": {"soundfold": __version__, **_versions(), **(packages or {})},
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
    options = [
        part for folder in config_dirs() for part in ("--config-dir", os.path.relpath(folder, hydra.runtime.cwd))
    ]
    # reading an item would resolve it
    overrides: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return shlex.join(["soundfold", hydra.job.name, *options, *overrides])


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return a phrase for the commit and each library version that differ between two environments.

    Devices are not compared.
    """
    changed = []
    for name, label in (("commit", "commit"), ("project", "commit of the project")):
        if name in old and name in new and old[name] != new[name]:
            changed.append(f"{label} {old[name]} and {new[name]}")
    for library, release in old["versions"].items():
        if new["versions"].get(library) != release:
            changed.append(f"{library} {release} and {new['versions'].get(library)}")
    return changed


def _versions() -> dict[str, str]:
    found = {library: version(library) for library in LIBRARIES}
    with suppress(PackageNotFoundError):  # optional
        found["timm"] = version("timm")
    return found


def _processor() -> str:
    """Return the model of the processor; `platform.processor` is empty, or the architecture, on most Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
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


def config_dirs() -> list[str]:
    """Return the folder of ``--config-dir``, as an absolute path, if there is one."""
    if not HydraConfig.initialized():
        return []
    return [source.path for source in HydraConfig.get().runtime.config_sources if source.provider == "command-line"]


def _commits() -> dict[str, str]:
    # an installed package may lie in a repository of the user's, whose commit is not its own
    commits = {"commit": "installed package" if is_built() else _commit(PACKAGE) or "unknown"}
    project = next((Path(folder).parent for folder in config_dirs()), Path.cwd())
    root = _git(project, "rev-parse", "--show-toplevel")
    if root and (is_built() or root != _git(PACKAGE, "rev-parse", "--show-toplevel")):
        commits["project"] = _commit(project) or "unknown"
    return commits


def _commit(folder: Path) -> str | None:
    """Return the commit of the repository that holds a folder; None if there is none."""
    head = _git(folder, "rev-parse", "--short=12", "HEAD")
    return head and head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def _git(folder: Path, *args: str) -> str | None:
    """Return the output of a git command, without the line break; None if it fails."""
    # without the locks, `status` does not write the index, which a commit at the same moment would find locked
    command = ["git", "--no-optional-locks", "-C", str(folder), *args]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
