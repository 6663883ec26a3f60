"""Compare what two commits compute, bit for bit: python scripts/check_golden.py [BASE] [HEAD]

Both commits train the five tiny runs of tests/golden/settings.yaml on this machine, each with its own code and its own
spelling of the settings. What they write is compared: logits, metrics and every weight.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = Path("tests") / "golden" / "settings.yaml"
VALUES = Path("tests") / "golden" / "values.json"
METRICS = ("accuracy", "f1", "top5", "loss", "val_accuracy", "objective", "epochs", "steps")
# one thread: sums of several threads differ from run to run
QUIET = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
SAMPLES = 4  # of a tensor that is stored


@dataclass(frozen=True)
class Numbers:
    """What a run computed, read from its files alone: modules and keys may have other names in another commit.

    Attributes:
        clips: names of the scored clips.
        logits: float64 (clips, classes), as written.
        metrics: of the fold's result.
        epochs: float64 (epochs, columns), the numbers of metrics.csv; columns are known by their place.
        weights: every tensor of the kept model.
    """

    clips: tuple[str, ...]
    logits: np.ndarray
    metrics: dict[str, float | None]
    epochs: np.ndarray
    weights: dict[str, torch.Tensor]


def read_settings(path: Path, work: Path) -> dict[str, list[str]]:
    """The words of each setting for scripts/train.py, which are to write into a folder."""
    given = yaml.safe_load(path.read_text())
    return {
        name: [word.replace("WORK", str(work)) for word in (*given["common"], *words)]
        for name, words in given["settings"].items()
    }


def read_numbers(outputs: Path, name: str) -> Numbers:
    """What the run of a setting wrote; its folder is named after the setting."""
    (result,) = outputs.glob(f"{name}-*/fold*/result.json")
    metrics = json.loads(result.read_text())
    with (result.parent / "predictions.csv").open(newline="") as stream:
        head, *rows = csv.reader(stream)
    logits = [i for i, column in enumerate(head) if column.startswith("logit_")]
    with (result.parent / "metrics.csv").open(newline="") as stream:
        _, *lines = csv.reader(stream)
    kept = torch.load(result.parent / "checkpoints" / "weights.pt", map_location="cpu", weights_only=True)
    std = next(kept[key] for key in ("std", "deviation") if key in kept)
    return Numbers(
        tuple(row[0] for row in rows),
        np.array([[float(row[i]) for i in logits] for row in rows]),
        {key: metrics[key] for key in METRICS},
        np.array([[number(cell) for cell in line] for line in lines]),
        {**kept["network"], "mean": kept["mean"], "std": std},
    )


def number(cell: str) -> float:
    """A cell of metrics.csv; words and empty cells count as not a number."""
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def stored(numbers: Numbers) -> dict[str, Any]:
    """The part of a run's numbers that tests/golden/values.json holds: of each weight its sum and some samples."""
    return {
        "clips": list(numbers.clips),
        "logits": [[round(value, 7) for value in row] for row in numbers.logits.tolist()],
        "metrics": numbers.metrics,
        "weights": {name: summary(weight) for name, weight in numbers.weights.items()},
    }


def summary(weight: torch.Tensor) -> list[float]:
    """The sum of a tensor, the sum of its magnitudes, and evenly spaced samples."""
    flat = weight.double().flatten()
    places = torch.linspace(0, len(flat) - 1, min(SAMPLES, len(flat))).long()
    values = [flat.sum().item(), flat.abs().sum().item(), *flat[places].tolist()]
    return [float(f"{value:.7g}") for value in values]


def differences(a: Numbers, b: Numbers) -> list[str]:
    """What differs between two runs, in words; nothing where every bit is the same."""
    found = []
    if a.clips != b.clips:
        found.append("scored clips")
    elif not np.array_equal(a.logits, b.logits):
        largest = np.abs(a.logits - b.logits).max() if a.logits.shape == b.logits.shape else np.inf
        found.append(f"logits by up to {largest:.3g}")
    found += [f"{key}: {a.metrics[key]} and {b.metrics[key]}" for key in METRICS if a.metrics[key] != b.metrics[key]]
    if not np.array_equal(a.epochs, b.epochs, equal_nan=True):
        found.append("metrics.csv")
    if only := sorted(set(a.weights) ^ set(b.weights)):
        found.append(f"weights in one of the two only: {', '.join(only)}")
    other = [name for name in a.weights if name in b.weights and not same(a.weights[name], b.weights[name])]
    if other:
        found.append(f"{len(other)} of {len(a.weights)} weights, first {other[0]}")
    return found


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


@contextmanager
def checked_out(commit: str, place: Path) -> Iterator[Path]:
    """The files of a commit; a dot is the working tree as it is."""
    if commit == ".":
        yield ROOT
        return
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(place), commit], check=True)
    try:
        yield place
    finally:
        subprocess.run([*git, "remove", "--force", str(place)], check=True)


def train(checkout: Path, words: list[str], work: Path) -> None:
    """Train a setting with the code of a checkout, in a process of its own."""
    work.mkdir(parents=True, exist_ok=True)
    source = checkout / "src"
    env = {**os.environ, **QUIET, "PYTHONPATH": str(source)}
    where = "import soundfold; print(soundfold.__file__)"
    imported = subprocess.run([sys.executable, "-c", where], env=env, cwd=work, capture_output=True, text=True).stdout
    if not Path(imported.strip()).is_relative_to(source):
        sys.exit(f"error: {source} is not what Python imports as soundfold, but {imported.strip() or 'nothing'}.")
    command = [sys.executable, str(checkout / "scripts" / "train.py"), *words]
    done = subprocess.run(command, env=env, cwd=work, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {checkout} does not train {' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def compare(checkouts: list[Path], work: Path) -> bool:
    """Print a line per setting; whether nothing differs."""
    files = [checkout / SETTINGS for checkout in checkouts]
    # a commit from before the settings takes those of the other
    there = [path for path in files if path.is_file()]
    if not there:
        sys.exit(f"error: neither of the two has {SETTINGS}; name a commit that has it.")
    works = [work / "base", work / "head"]
    settings = [read_settings(path if path in there else there[0], w) for path, w in zip(files, works, strict=True)]
    if list(settings[0]) != list(settings[1]):
        sys.exit(f"error: the two have other settings: {', '.join(settings[0])} and {', '.join(settings[1])}.")
    equal = True
    for name in settings[0]:
        numbers = []
        for checkout, words, place in zip(checkouts, settings, works, strict=True):
            train(checkout, words[name], place)
            numbers.append(read_numbers(place / "outputs", name))
        found = differences(*numbers)
        equal &= not found
        print(f"{name}: {'differs: ' + '; '.join(found) if found else 'the same, bit for bit'}", flush=True)
    return equal


def record() -> None:
    """Write tests/golden/values.json as the working tree computes it."""
    with TemporaryDirectory() as folder:
        work, values = Path(folder), {}
        for name, words in read_settings(ROOT / SETTINGS, work).items():
            train(ROOT, words, work)
            values[name] = stored(read_numbers(work / "outputs", name))
    lines = [f'"{name}": {json.dumps(value)}' for name, value in values.items()]
    (ROOT / VALUES).write_text("{" + ",\n".join(lines) + "}\n")
    print(f"Written: {VALUES}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="HEAD", help="a commit; default HEAD")
    parser.add_argument("head", nargs="?", default=".", help="another; default ., the working tree")
    parser.add_argument("--record", action="store_true", help=f"write {VALUES} instead: for a deliberate change only")
    given = parser.parse_args()
    if given.record:
        record()
        return 0
    with (
        TemporaryDirectory() as folder,
        checked_out(given.base, Path(folder) / "a") as base,
        checked_out(given.head, Path(folder) / "b") as head,
    ):
        return int(not compare([base, head], Path(folder) / "work"))


if __name__ == "__main__":
    sys.exit(main())
