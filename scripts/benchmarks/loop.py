"""Measure the overhead of Lightning: a fold trained with every callback, against a plain loop of the same step."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.tables import measured_on, write_results
from benchmarks.workload import bare_epochs, noise, trained
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device

# the plain loop is eager
EAGER = "trainer.cuda_graph=false"
# by name: steps of an epoch, length of a clip in s, sample rate in Hz, overrides
SMALL = ("features.window=0.064", "features.hop=0.02", "features.n_mels=16", "features.f_max=4000")
TINY = (*SMALL, "augment=none", "optim=sgd")
SETTINGS: dict[str, tuple[int, float, int, tuple[str, ...]]] = {
    "tiny steps, 5 an epoch": (5, 0.25, 8000, TINY),
    "tiny steps, 40 an epoch": (40, 0.25, 8000, TINY),
    "128x128, augmented": (3, 5.0, 44100, ("features=seed_128x128", "model.channels_last=true")),
}
TINY_BATCH = 4


def run(device: str, batch: int, repeats: int, outputs: Path, overrides: tuple[str, ...] = ()) -> Path:
    """Measure and print, and write ``loop-<device>.md`` and ``.json``.

    Args:
        device: ``cpu`` or ``cuda``.
        batch: clips in a batch of the last setting; the tiny settings have four.
        repeats: number of turns of each loop.
        outputs: folder for both files.
        overrides: of the configuration, for every setting.

    Raises:
        InputError: the device is not available.
    """
    target = choose_device(device)
    rows = []
    for name, (steps, seconds, rate, features) in SETTINGS.items():
        tiny = features is TINY
        size, epochs = (TINY_BATCH, 6) if tiny else (batch, 1)
        # four of five folds train
        collection = noise(-(-steps * size // 4) * 5, seconds, rate, 5)
        through: list[float] = []
        plain: list[float] = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                clock = trained(
                    collection, Path(folder), target, epochs, *features, f"data.batch_size={size}", EAGER, *overrides
                )
                plain.append(median(bare_epochs(clock, epochs)))
            through.append(median(clock.epochs))
        rows.append(row(name, len(clock.data.train_dataloader()), through, plain))
    header = {**environment.describe(target), "date": time.strftime("%Y-%m-%d"), "batch": batch, "repeats": repeats}
    return write_results(
        outputs / f"loop-{device}", {"header": header, "rows": rows}, markdown(header, rows), width=160
    )


def row(name: str, steps: int, through: list[float], plain: list[float]) -> dict[str, Any]:
    """Return the figures of a setting from the seconds per epoch of each turn, with Lightning and in the plain loop.

    The overhead is the median over turns, because both loops of a turn run under the same load of the machine.
    """
    pairs = list(zip(through, plain, strict=True))
    return {
        "setting": name,
        "steps": steps,
        "lightning": median(through),
        "bare": median(plain),
        "added": median(with_lightning - bare for with_lightning, bare in pairs),
        "overhead": median(with_lightning / bare for with_lightning, bare in pairs) - 1,
    }


def shell(few: dict[str, Any], many: dict[str, Any]) -> tuple[float, float]:
    """Return the seconds that Lightning adds per step and per epoch, from two settings that differ in steps only."""
    step = (many["added"] - few["added"]) / (many["steps"] - few["steps"])
    return step, few["added"] - step * few["steps"]


def markdown(header: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the table; the first two rows differ in steps only."""
    step, epoch = shell(*rows[:2])
    lines = [
        f"One fold as scripts/train.py trains it (progress bar, metrics.csv, checkpoints) and in a plain loop over the "
        f"same objects; ResNet-18, medians of {header['repeats']} turns.",
        f"{measured_on(header)}, torch {header['versions']['torch']}.",
        "",
        "| setting | steps an epoch | plain, ms a step | Lightning, ms a step | overhead % |",
        "|---|---|---|---|---|",
    ]
    for each in rows:
        lines.append(
            f"| {each['setting']} | {each['steps']} | {1000 * each['bare'] / each['steps']:.2f} "
            f"| {1000 * each['lightning'] / each['steps']:.2f} | {100 * each['overhead']:.1f} |"
        )
    lines += ["", f"Lightning adds {1000 * step:.2f} ms a step and {1000 * epoch:.1f} ms an epoch."]
    return "\n".join(lines) + "\n"
