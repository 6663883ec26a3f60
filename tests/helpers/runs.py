"""Finished runs that are written without training."""

import hashlib
from pathlib import Path

import numpy as np

from soundfold.data.tables import ClipTable
from soundfold.evaluation.predictions import predictions_csv
from soundfold.evaluation.results import FoldResult
from soundfold.io.atomic import dumps_with_checksum, loads_with_checksum

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("a", "b")


def write_run(folder: Path, correct: np.ndarray, *, seed: int = 0, leaky: bool = False) -> Path:
    """Write a run of three folds with two clips per source.

    Args:
        folder: the run's folder.
        correct: bool (n,), the clips that are classified correctly.
        seed: the run's seed.
        leaky: the run has the leaky protocol.
    """
    n = len(correct)
    files = tuple(f"{i}.wav" for i in range(n))
    sources = tuple(f"s{i // 2}" for i in range(n))
    table = ClipTable(files, np.arange(n) * 3 // n + 1, np.arange(n) % 2, sources, CLASSES)
    for fold in (1, 2, 3):
        clips = np.flatnonzero(table.folds == fold)
        predicted = np.where(correct[clips], table.targets[clips], 1 - table.targets[clips])
        path = folder / f"fold{fold}"
        path.mkdir(parents=True)
        predictions = predictions_csv(table, clips, np.eye(2, dtype=np.float32)[predicted])
        (path / "predictions.csv").write_text(predictions)
        config = f"data: {{name: toy}}\ntrainer: {{precision: 32-true}}\noptim: {{lr: 0.1}}\nseed: {seed}\n"
        config += f"name: {folder.name}\n"
        (path / "config.yaml").write_text(config)
        FoldResult(
            cv_id=folder.name,
            fold=fold,
            folds=[1, 2, 3],
            protocol="random_clips" if leaky else "benchmark",
            leaky=leaky,
            seed=seed,
            classes=list(CLASSES),
            n=len(clips),
            accuracy=float(correct[clips].mean()),
            metrics={"f1": 0.5, "top5": 1.0},
            loss=1.0,
            confusion=[[1, 1], [1, 1]],
            val_accuracy=None,
            objective=0.5,
            epochs=1,
            steps=1,
            seconds=1.0,
            audit={
                "train": n - len(clips),
                "images": n - len(clips),
                "same_clip": 3 if leaky else 0,
                "same_audio": 1 if leaky else 0,
            },
            environment={},
            predictions=hashlib.sha256(predictions.encode()).hexdigest(),
        ).save(path / "result.json")
    return folder


def rebind(fold: Path) -> None:
    """Set the SHA-256 in a fold's result.json to those of its changed predictions.csv and config.yaml."""
    values = loads_with_checksum((fold / "result.json").read_text())
    for key, name in (("predictions", "predictions.csv"), ("config", "config.yaml")):
        values[key] = hashlib.sha256((fold / name).read_bytes()).hexdigest()
    (fold / "result.json").write_text(dumps_with_checksum(values))
