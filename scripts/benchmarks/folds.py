"""Time a five-fold cross-validation, from the command to the plain report."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.tables import measured_on, write_results
from benchmarks.train import BFLOAT16, CAPTURED, CLASSES, CONTENDERS, ON_CUDA, RATE, SECONDS
from benchmarks.workload import FOLDS
from soundfold.config import CONF
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device

CLIPS, EPOCHS = 2000, 50


def run(device: str, outputs: Path) -> Path:
    """Measure and print, and write ``folds-<device>.md`` and ``.json``: a minute on a GPU, hours on a CPU.

    Args:
        device: ``cpu``, or ``cuda``, which trains with a CUDA graph.
        outputs: folder for both files.

    Raises:
        InputError: the device is not available.
    """
    target = choose_device(device)
    overrides = (*CONTENDERS[BFLOAT16], "trainer.accelerator=cpu") if device == "cpu" else ON_CUDA[CAPTURED]
    header = {**environment.describe(target), "date": time.strftime("%Y-%m-%d"), "clips": CLIPS, "epochs": EPOCHS}
    took = five_folds(CLIPS, SECONDS, EPOCHS, overrides)
    return write_results(
        outputs / f"folds-{device}", {"header": header, "seconds": took}, markdown(header, took), width=120
    )


def five_folds(
    clips: int, seconds: float, epochs: int, overrides: tuple[str, ...], folds: int = FOLDS
) -> dict[str, float]:
    """Return the seconds that scripts/train.py takes up to the plain report.

    Args:
        clips, seconds: number and length of the clips of noise to render.
        epochs: of each fold.
        overrides: of the configuration.
        folds: of the collection.

    Returns:
        ``cold``: audio is decoded and networks are compiled; ``warm``: both are cached.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        render(folder / "sounds", clips, seconds, folds)
        command = [sys.executable, str(CONF.parent / "scripts" / "train.py"), "data=esc50", "data.download=null"]
        command += [f"data.root={folder / 'sounds'}", f"data.seconds={seconds}", f"paths.cache={folder / 'cache'}"]
        command += [f"paths.outputs={folder / 'outputs'}", "logger=csv", f"trainer.max_epochs={epochs}", *overrides]
        caches = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TRITON_CACHE_DIR": str(folder / "triton")}
        took = {}
        for label in ("cold", "warm"):
            started = time.perf_counter()
            subprocess.run(
                [*command, f"label={label}"], check=True, env={**os.environ, **caches}, stdout=subprocess.DEVNULL
            )
            took[label] = time.perf_counter() - started
        return took


def render(root: Path, clips: int, seconds: float, folds: int) -> None:
    """Write clips of noise in ESC-50's layout, each with another source."""
    rng = np.random.default_rng(0)
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    with (root / "meta" / "esc50.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["filename", "fold", "target", "category", "esc10", "src_file", "take"])
        for i in range(clips):
            target = i // folds % min(CLASSES, clips // folds)
            soundfile.write(root / "audio" / f"{i}.wav", 0.1 * rng.standard_normal(round(seconds * RATE)), RATE)
            writer.writerow([f"{i}.wav", i % folds + 1, target, f"class {target}", False, i, "A"])


def markdown(header: dict[str, Any], took: dict[str, float]) -> str:
    """Return the result as a sentence."""
    return (
        f"Five folds of {header['epochs']} epochs on {header['clips']} clips of {SECONDS:g} s, 128x128 images "
        f"augmented in each step, from the command to the plain report: {took['warm']:.0f} s; including decoding and "
        f"compilation, {took['cold']:.0f} s.\n{measured_on(header)}, torch {header['versions']['torch']}.\n"
    )
