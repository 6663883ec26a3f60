"""What a run is trained on."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from soundfold.errors import InputError
from soundfold.io.console import console


def choose_accelerator(cfg: DictConfig) -> str:
    """The device to train on: ``auto`` takes a CUDA device or the CPU, as MPS is untested and used only where named.

    Raises:
        InputError: the device that is named is not there.
    """
    there = {"cpu": True, "gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    wanted = cfg.trainer.accelerator
    if cfg.model.compile == "graphs" and not (there["gpu"] and wanted in ("auto", "gpu")):
        raise InputError(
            f"model.compile=graphs with trainer.accelerator={wanted}: CUDA graphs need a CUDA device. Give "
            "model.compile=none, or default."
        )
    if wanted == "auto":
        if there["mps"] and not there["gpu"]:
            console.print("note: trainer=auto passes over MPS; trainer.accelerator=mps tries it.")
        return "gpu" if there["gpu"] else "cpu"
    if not there[wanted]:
        raise InputError(f"trainer.accelerator={wanted}: PyTorch sees no such device here. Give trainer=auto or cpu.")
    return wanted


def check_device_count(cfg: DictConfig, kind: str) -> None:
    """Refuse more devices than there are; on processors a device is a process.

    Raises:
        InputError: says how many there are.
    """
    found = torch.cuda.device_count() if kind == "gpu" else cfg.trainer.devices
    if cfg.trainer.devices > found:
        raise InputError(
            f"trainer.devices={cfg.trainer.devices}: PyTorch sees {found} CUDA device(s) here. Give at most so many; "
            "trainer.accelerator=cpu tries several processes without any."
        )


def note_bfloat16(cfg: DictConfig, kind: str) -> None:
    """Say where a CPU could train faster in bfloat16, and where it was asked to and cannot."""
    if kind != "cpu":
        return
    # private, and in no release missing so far; without it nothing is said
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: None)()
    if has and cfg.trainer.precision == "32-true":
        console.print("note: this CPU multiplies bfloat16 in hardware; trainer.precision=bf16-mixed may train faster.")
    if has is False and cfg.trainer.precision == "bf16-mixed":
        console.print("note: this CPU has no bfloat16 arithmetic; trainer.precision=32-true trains faster.")


def choose_device(name: str, option: str = "device") -> torch.device:
    """The device of a name: ``auto`` (a CUDA device where there is one), ``cpu`` or ``cuda``.

    Args:
        option: what the user calls it.

    Raises:
        InputError: the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{option}=cuda: PyTorch sees no CUDA device here. Give {option}=cpu.")
    return torch.device(name)
