"""Five folds by the clock: from the command to the plain report."""

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

from benchmarks.tables import keep, measured_on
from benchmarks.train import BFLOAT16, CLASSES, CONTENDERS, ON_CUDA, RATE, SECONDS
from benchmarks.workload import FOLDS
from soundfold.config import CONF
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device

CLIPS, EPOCHS = 2000, 50


def run(device: str, outputs: Path) -> Path:
    """Measure, print, and write ``folds-<device>.md`` and ``.json``: a minute on a GPU, hours on a processor.

    Args:
        device: ``cpu``, or ``cuda``, which trains in CUDA graphs.
        outputs: folder of the two files.

    Raises:
        InputError: the device is not there.
    """
    target = choose_device(device)
    cuda = ON_CUDA[f"{BFLOAT16}, graphs"]
    words = (*CONTENDERS[BFLOAT16], "trainer.accelerator=cpu") if device == "cpu" else cuda
    header = {**environment.describe(target), "date": time.strftime("%Y-%m-%d"), "clips": CLIPS, "epochs": EPOCHS}
    took = five_folds(CLIPS, SECONDS, EPOCHS, words)
    return keep(outputs / f"folds-{device}", {"header": header, "seconds": took}, markdown(header, took), width=120)


def five_folds(clips: int, seconds: float, epochs: int, words: tuple[str, ...], folds: int = FOLDS) -> dict[str, float]:
    """Seconds from the command to the plain report, in a process of its own: ``cold``, with the audio to decode and
    nothing compiled, and ``warm``, with both done before.

    Args:
        clips, seconds: of a collection of noise, rendered first; 50 classes.
        epochs: of each fold.
        words: of the configuration.
        folds: of the collection.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _render(folder / "sounds", clips, seconds, folds)
        command = [sys.executable, str(CONF.parent / "scripts" / "train.py"), "data=esc50", "data.download=null"]
        command += [f"data.root={folder / 'sounds'}", f"data.seconds={seconds}", f"paths.cache={folder / 'cache'}"]
        command += [f"paths.outputs={folder / 'outputs'}", "logger=csv", f"trainer.max_epochs={epochs}", *words]
        caches = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TRITON_CACHE_DIR": str(folder / "triton")}
        took = {}
        for label in ("cold", "warm"):
            started = time.perf_counter()
            subprocess.run(
                [*command, f"label={label}"], check=True, env={**os.environ, **caches}, stdout=subprocess.DEVNULL
            )
            took[label] = time.perf_counter() - started
        return took


def _render(root: Path, clips: int, seconds: float, folds: int) -> None:
    """Noise in ESC-50's layout, each clip of its own source."""
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
    """A sentence."""
    return (
        f"Five folds of {header['epochs']} epochs on {header['clips']} clips of {SECONDS:g} s, 128x128 images varied "
        f"in each step, from the command to the plain report: {took['warm']:.0f} s; with the audio to decode and "
        f"nothing compiled, {took['cold']:.0f} s.\n{measured_on(header)}, torch {header['versions']['torch']}.\n"
    )
