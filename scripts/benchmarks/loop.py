"""What Lightning's loop costs: a fold trained through it, with every callback, beside a plain loop of the same step."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.tables import keep, measured_on
from benchmarks.workload import bare_epochs, noise, trained
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device

# by name: steps of an epoch, length of a clip in s, Hz, words of the configuration
SMALL = ("features.window=0.064", "features.hop=0.02", "features.n_mels=16", "features.f_max=4000")
TINY = (*SMALL, "augment=none", "optim=sgd")
SETTINGS: dict[str, tuple[int, float, int, tuple[str, ...]]] = {
    "tiny steps, 5 an epoch": (5, 0.25, 8000, TINY),
    "tiny steps, 40 an epoch": (40, 0.25, 8000, TINY),
    "128x128, augmented": (3, 5.0, 44100, ("features=seed_128x128", "model.channels_last=true")),
}
TINY_BATCH = 4


def run(device: str, batch: int, repeats: int, outputs: Path, words: tuple[str, ...] = ()) -> Path:
    """Measure, print, and write ``loop-<device>.md`` and ``.json``.

    Args:
        device: ``cpu`` or ``cuda``.
        batch: clips in a batch of the last setting; the tiny ones have four.
        repeats: turns of each loop, in turn.
        outputs: folder of the two files.
        words: more of the configuration, for every setting.

    Raises:
        InputError: the device is not there.
    """
    target = choose_device(device)
    rows = []
    for name, (steps, seconds, rate, features) in SETTINGS.items():
        tiny = features is TINY
        size, epochs = (TINY_BATCH, 6) if tiny else (batch, 1)
        # four folds of five train
        collection = noise(-(-steps * size // 4) * 5, seconds, rate, 5)
        through: list[float] = []
        plain: list[float] = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                clock = trained(collection, Path(folder), target, epochs, *features, f"data.batch_size={size}", *words)
                plain.append(median(bare_epochs(clock, epochs)))
            through.append(median(clock.epochs))
        rows.append(row(name, len(clock.data.train_dataloader()), through, plain))
    header = {**environment.describe(target), "date": time.strftime("%Y-%m-%d"), "batch": batch, "repeats": repeats}
    return keep(outputs / f"loop-{device}", {"header": header, "rows": rows}, markdown(header, rows), width=160)


def row(name: str, steps: int, through: list[float], plain: list[float]) -> dict[str, Any]:
    """One setting's figures from seconds an epoch, through Lightning and in the plain loop, turn by turn.

    What Lightning adds is the median over the turns, as the two loops of a turn meet the same load of the machine.
    """
    pairs = list(zip(through, plain, strict=True))
    return {
        "setting": name,
        "steps": steps,
        "lightning": median(through),
        "bare": median(plain),
        "added": median(ours - bare for ours, bare in pairs),
        "overhead": median(ours / bare for ours, bare in pairs) - 1,
    }


def shell(few: dict[str, Any], many: dict[str, Any]) -> tuple[float, float]:
    """What Lightning adds, seconds a step and an epoch: the line through two settings that differ in steps only."""
    step = (many["added"] - few["added"]) / (many["steps"] - few["steps"])
    return step, few["added"] - step * few["steps"]


def markdown(header: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The table; its first two rows differ in steps only."""
    step, epoch = shell(*rows[:2])
    lines = [
        f"One fold as scripts/train.py trains it (progress bar, metrics.csv, checkpoints) beside a plain loop over the "
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
