"""Choice of the device to train or predict on."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from soundfold.errors import InputError
from soundfold.io.console import console


def choose_device(name: str, option: str = "device") -> torch.device:
    """Return the device to predict on.

    Args:
        name: ``auto`` (CUDA if available, else the CPU), ``cpu`` or ``cuda``.
        option: name of the user's option, for the error message.

    Raises:
        InputError: the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{option}=cuda: PyTorch finds no CUDA device. Set {option}=cpu.")
    return torch.device(name)


def choose_accelerator(cfg: DictConfig) -> str:
    """Return the Lightning accelerator to train on: ``cpu``, ``gpu`` or ``mps``.

    ``trainer.accelerator=auto`` chooses a CUDA device if available, else the CPU. MPS is untested, so it must be named.

    Raises:
        InputError: the accelerator is not available.
    """
    name = cfg.trainer.accelerator
    if name == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    is_available = {"cpu": True, "mps": torch.backends.mps.is_available()}.get(name, torch.cuda.is_available())
    if not is_available:
        raise InputError(f"trainer.accelerator={name} is not available here. Set trainer=auto or trainer=cpu.")
    return "gpu" if name == "cuda" else name


def check_accelerator(cfg: DictConfig) -> None:
    """Check that the configured devices are available, and print notes about faster choices.

    Raises:
        InputError: the accelerator, CUDA graphs, the optimizer's steps or so many devices are not available.
    """
    accelerator = choose_accelerator(cfg)
    if cfg.trainer.cuda_graph is True and accelerator != "gpu":
        raise InputError(
            f"trainer.cuda_graph=true with trainer.accelerator={cfg.trainer.accelerator}: CUDA graphs require a CUDA "
            "device. Set trainer.cuda_graph=auto."
        )
    if cfg.optim.get("capturable") and accelerator != "gpu":
        raise InputError(f"optim.capturable=true requires a GPU, and training is on {accelerator}. Omit it.")
    # on the CPU a device is a process, so any number is available
    if accelerator == "gpu" and cfg.trainer.devices > (available := torch.cuda.device_count()):
        raise InputError(
            f"trainer.devices={cfg.trainer.devices} must be at most {available}, the number of CUDA devices here. "
            "trainer.accelerator=cpu runs several processes without a GPU."
        )
    if cfg.trainer.accelerator == "auto" and accelerator == "cpu" and torch.backends.mps.is_available():
        print_note("trainer.accelerator=auto ignores MPS. trainer.accelerator=mps uses it, untested.")
    if accelerator == "cpu":
        _print_bfloat16_note(cfg.trainer.precision)
        if (threads := torch.get_num_threads()) > 1:
            _print_threads_note(threads, os.cpu_count() or 1, running_elsewhere())


def choose_precision(cfg: DictConfig) -> str:
    """Return Lightning's precision for ``trainer.precision``; ``auto`` is bf16-mixed if the hardware multiplies it."""
    if cfg.trainer.precision != "auto":
        return cfg.trainer.precision
    return "bf16-mixed" if multiplies_bfloat16(cfg) else "32-true"


def multiplies_bfloat16(cfg: DictConfig) -> bool:
    """Return whether the devices to train on have instructions for products of bfloat16.

    CUDA devices have them from compute capability 8.0 on. False for MPS, and for a CPU that PyTorch does not describe.
    """
    accelerator = choose_accelerator(cfg)
    if accelerator == "gpu":
        capabilities = [torch.cuda.get_device_capability(index) for index in range(cfg.trainer.devices)]
        return min(capabilities) >= (8, 0) and torch.cuda.is_bf16_supported(including_emulation=False)
    return accelerator == "cpu" and any(_cpu_bfloat16())


def _cpu_bfloat16() -> list[bool]:
    """Return whether the CPU has each kind of instruction for bfloat16 that PyTorch knows; empty if it knows none."""
    # not in every PyTorch release that we support
    capabilities: Mapping[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    known = [bool(capabilities[name]) for name in ("avx512_bf16", "amx_bf16") if name in capabilities]
    # of ARM; PyTorch for macOS has no library that uses them
    if "bf16" in capabilities:
        known.append(bool(capabilities["bf16"]) and torch.backends.mkldnn.is_available())
    return known


def _print_bfloat16_note(precision: str) -> None:
    """Print a note if the CPU would train faster in float32."""
    known = _cpu_bfloat16()
    if known and not any(known) and precision == "bf16-mixed":
        print_note("this CPU has no bfloat16 instructions. trainer.precision=auto trains faster.")


def _print_threads_note(threads: int, cores: int, busy: int) -> None:
    """Print a note if fewer threads would train faster, because other processes keep cores busy.

    Every parallel loop waits for its slowest thread, which shares its core.
    """
    idle = max(1, cores - busy)
    if threads > idle:
        print_note(
            f"{min(busy, cores)} of {cores} cores are busy with other processes, and this run has {threads} threads. "
            f"OMP_NUM_THREADS={idle} may train faster."
        )


def running_elsewhere(samples: int = 5, interval: float = 0.02) -> int:
    """Return how many threads of other processes are running now, at least: the minimum of some samples.

    0 where the system does not say (only Linux does).
    """
    counts = []
    for _ in range(samples):
        try:
            # the fourth field is running/all threads; see proc(5). This thread is one of them.
            counts.append(int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]) - 1)
        except (OSError, IndexError, ValueError):
            return 0
        time.sleep(interval)
    return max(0, min(counts))


@cache
def print_note(note: str) -> None:
    """Print a note once per command: not for every trial of a search, and only for the first job of a sweep."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is None or hydra.mode != RunMode.MULTIRUN or hydra.job.num == 0:
        console.print(f"note: {note}", soft_wrap=True)
