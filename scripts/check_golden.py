"""Compare the results of two commits bit for bit: python scripts/check_golden.py [BASE] [HEAD]

The five tiny runs of tests/golden/settings.yaml are trained on this machine with the code and the settings of each
commit. Logits, metrics and all weights are compared.
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
# the order of summation, and so the last bits, depends on the number of threads
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
SAMPLES = 4  # stored values per weight tensor


@dataclass(frozen=True)
class Numbers:
    """The numbers of a run, read from its files without importing soundfold: names may differ between commits.

    Attributes:
        clips: names of the scored clips.
        logits: float64 (clips, classes), as written.
        metrics: metrics of the fold's result.
        epochs: columns of metrics.csv by name, float64 (epochs,) each; those of only one run are not compared.
        weights: all tensors of the saved model.
    """

    clips: tuple[str, ...]
    logits: np.ndarray
    metrics: dict[str, float | None]
    epochs: dict[str, np.ndarray]
    weights: dict[str, torch.Tensor]


def read_settings(path: Path, work: Path) -> dict[str, list[str]]:
    """Return the overrides of each setting for scripts/train.py; the runs write to the folder ``work``."""
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        name: [override.replace("WORK", str(work)) for override in (*settings["common"], *overrides)]
        for name, overrides in settings["settings"].items()
    }


def read_numbers(outputs: Path, name: str) -> Numbers:
    """Read the numbers of a setting's run, whose folder is named after the setting."""
    (result,) = outputs.glob(f"{name}-*/fold*/result.json")
    metrics = json.loads(result.read_text())
    with (result.parent / "predictions.csv").open(newline="") as stream:
        header, *rows = csv.reader(stream)
    logits = [i for i, column in enumerate(header) if column.startswith("logit_")]
    with (result.parent / "metrics.csv").open(newline="") as stream:
        columns, *lines = csv.reader(stream)
    bundle = torch.load(result.parent / "checkpoints" / "weights.pt", map_location="cpu", weights_only=True)
    std = next(bundle[key] for key in ("std", "deviation") if key in bundle)
    return Numbers(
        tuple(row[0] for row in rows),
        np.array([[float(row[i]) for i in logits] for row in rows]),
        {key: metrics[key] for key in METRICS},
        {name: np.array([to_float(line[i]) for line in lines]) for i, name in enumerate(columns)},
        {**bundle["network"], "mean": bundle["mean"], "std": std},
    )


def to_float(cell: str) -> float:
    """Return the number in a cell of metrics.csv; nan for text and empty cells."""
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def summarize(numbers: Numbers) -> dict[str, Any]:
    """Return an entry of tests/golden/values.json, in which weights are reduced to sums and samples."""
    return {
        "clips": list(numbers.clips),
        "logits": [[round(value, 7) for value in row] for row in numbers.logits.tolist()],
        "metrics": numbers.metrics,
        "weights": {name: summarize_weight(weight) for name, weight in numbers.weights.items()},
    }


def summarize_weight(weight: torch.Tensor) -> list[float]:
    """Return the sum of a tensor, the sum of its magnitudes, and evenly spaced samples."""
    flat = weight.double().flatten()
    indices = torch.linspace(0, len(flat) - 1, min(SAMPLES, len(flat))).long()
    values = [flat.sum().item(), flat.abs().sum().item(), *flat[indices].tolist()]
    return [float(f"{value:.7g}") for value in values]


def differences(a: Numbers, b: Numbers) -> list[str]:
    """Describe the differences between two runs; empty if they are identical bit for bit."""
    result = []
    if a.clips != b.clips:
        result.append("scored clips")
    elif not np.array_equal(a.logits, b.logits):
        largest = np.abs(a.logits - b.logits).max() if a.logits.shape == b.logits.shape else np.inf
        result.append(f"logits by up to {largest:.3g}")
    result += [f"{key}: {a.metrics[key]} and {b.metrics[key]}" for key in METRICS if a.metrics[key] != b.metrics[key]]
    columns = [name for name in a.epochs if name in b.epochs]
    if changed := [name for name in columns if not np.array_equal(a.epochs[name], b.epochs[name], equal_nan=True)]:
        result.append(f"metrics.csv: {', '.join(changed)}")
    if only := sorted(set(a.weights) ^ set(b.weights)):
        result.append(f"weights in only one run: {', '.join(only)}")
    changed = [name for name in a.weights if name in b.weights and not identical(a.weights[name], b.weights[name])]
    if changed:
        result.append(f"{len(changed)} of {len(a.weights)} weights, first {changed[0]}")
    return result


def identical(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """Check a commit out into a new worktree at ``folder``; "." is the current working tree."""
    if commit == ".":
        yield ROOT
        return
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def train(checkout: Path, overrides: list[str], work: Path) -> None:
    """Train a setting with the code of a checkout, in a new process."""
    work.mkdir(parents=True, exist_ok=True)
    source = checkout / "src"
    env = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(source)}
    code = "import soundfold; print(soundfold.__file__)"
    imported = subprocess.run([sys.executable, "-c", code], env=env, cwd=work, capture_output=True, text=True).stdout
    if not Path(imported.strip()).is_relative_to(source):
        sys.exit(f"error: Python imports soundfold from {imported.strip() or 'nowhere'} instead of {source}.")
    command = [sys.executable, str(checkout / "scripts" / "train.py"), *overrides]
    process = subprocess.run(command, env=env, cwd=work, capture_output=True, text=True)
    if process.returncode:
        output = f"{process.stdout[-2000:]}{process.stderr[-2000:]}"
        sys.exit(f"error: {checkout} fails to train {' '.join(overrides)}\n{output}")


def compare(checkouts: list[Path], work: Path) -> bool:
    """Print a line per setting; return whether all results are identical."""
    files = [checkout / SETTINGS for checkout in checkouts]
    # a commit older than the file of settings is trained with the settings of the other
    fallback = next((path for path in files if path.is_file()), None)
    if fallback is None:
        sys.exit(f"error: neither commit has {SETTINGS}. Compare with a commit that has it.")
    works = [work / "base", work / "head"]
    files = [path if path.is_file() else fallback for path in files]
    settings = [read_settings(path, folder) for path, folder in zip(files, works, strict=True)]
    if list(settings[0]) != list(settings[1]):
        sys.exit(f"error: the commits have different settings: {', '.join(settings[0])} and {', '.join(settings[1])}.")
    all_equal = True
    for name in settings[0]:
        numbers = []
        for checkout, overrides, folder in zip(checkouts, settings, works, strict=True):
            train(checkout, overrides[name], folder)
            numbers.append(read_numbers(folder / "outputs", name))
        changes = differences(*numbers)
        all_equal &= not changes
        print(f"{name}: {'differs: ' + '; '.join(changes) if changes else 'identical'}", flush=True)
    return all_equal


def record() -> None:
    """Write tests/golden/values.json with the results of the working tree."""
    with TemporaryDirectory() as folder:
        work, values = Path(folder), {}
        for name, overrides in read_settings(ROOT / SETTINGS, work).items():
            train(ROOT, overrides, work)
            values[name] = summarize(read_numbers(work / "outputs", name))
    lines = [f'"{name}": {json.dumps(value)}' for name, value in values.items()]
    (ROOT / VALUES).write_text("{" + ",\n".join(lines) + "}\n")
    print(f"Written: {VALUES}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="HEAD", help="first commit; default HEAD")
    parser.add_argument("head", nargs="?", default=".", help="second commit; default ., the working tree")
    parser.add_argument("--record", action="store_true", help=f"write {VALUES} instead; only after a deliberate change")
    args = parser.parse_args()
    if args.record:
        record()
        return 0
    with (
        TemporaryDirectory() as folder,
        checked_out(args.base, Path(folder) / "a") as base,
        checked_out(args.head, Path(folder) / "b") as head,
    ):
        return int(not compare([base, head], Path(folder) / "work"))


if __name__ == "__main__":
    sys.exit(main())
