"""autrainer's command: SpecAugment on features that it extracts once and stores; see `clock`.

Its torchvision networks take three channels.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

import yaml
from clock import Task

RATE = 44100


def write_tables(sounds: Path, task: Task) -> None:
    """Write a folder of sounds as autrainer reads it; the tables for evaluation after training have one row."""
    files, targets = task.files()
    rows = [(file.name, f"class {target}") for file, target in zip(files, targets, strict=True)]
    sounds.mkdir(parents=True, exist_ok=True)
    (sounds / "default").unlink(missing_ok=True)
    (sounds / "default").symlink_to(files[0].parent, target_is_directory=True)
    for name, count in (("train", len(rows)), ("dev", 1), ("test", 1)):
        with (sounds / f"{name}.csv").open("w") as stream:
            csv.writer(stream).writerows([("filename", "target"), *rows[:count]])


def preprocessing(task: Task) -> dict[str, Any]:
    """Return how features are extracted: log-mel spectrograms, frames x bands."""
    mel: dict[str, float] = {"sample_rate": RATE, "window_size": 2048, "hop_size": 441 if task.frames == 501 else 512}
    mel |= {"mel_bins": task.bands, "fmin": 0, "fmax": RATE // 2, "ref": 1.0, "amin": 1e-10, "top_db": 80}
    size = {"height": task.frames, "width": task.bands}
    return {
        "file_handler": {"autrainer.datasets.utils.AudioFileHandler": {"target_sample_rate": RATE}},
        "pipeline": [
            "autrainer.transforms.StereoToMono",
            {"autrainer.transforms.PannMel": mel},
            {"autrainer.transforms.Resize": size},
        ],
    }


def dataset(sounds: Path, features: str) -> dict[str, Any]:
    """Return the dataset: stored features, read by as many processes as there are cores."""
    metric = "autrainer.metrics.Accuracy"
    return {
        "id": "sounds",
        "_target_": "autrainer.datasets.BaseClassificationDataset",
        "path": str(sounds),
        "features_subdir": features,
        "index_column": "filename",
        "target_column": "target",
        "file_type": "npy",
        "file_handler": "autrainer.datasets.utils.NumpyFileHandler",
        "criterion": "autrainer.criterions.CrossEntropyLoss",
        "metrics": [metric],
        "tracking_metric": metric,
        "transform": {"type": "grayscale"},
        "train_loader_kwargs": {"num_workers": os.cpu_count()},
    }


def experiment(task: Task) -> dict[str, Any]:
    """Return the training. A folder with results would be skipped, so each process has its own."""
    parameters = {"+seed": 1, "+batch_size": task.batch, "+learning_rate": 0.001}
    parameters |= {"dataset": "sounds", "model": "ResNet-18", "optimizer": "AdamW", "augmentation": "SpecAugment"}
    return {
        "defaults": ["_autrainer_", "_self_"],
        "results_dir": f"results-{task.started}",
        "experiment_id": "default",
        "iterations": task.epochs,
        "eval_frequency": task.epochs + 1,
        "device": "cuda:0" if task.device == "cuda" else "cpu",
        "hydra": {"sweeper": {"params": parameters}},
    }


def write_project(folder: Path, task: Task) -> None:
    """Write the tables and the configuration."""
    sounds, features = folder / "sounds", f"log_mel_{task.bands}x{task.frames}"
    write_tables(sounds, task)
    (sounds / features).mkdir(exist_ok=True)
    for name, content in {
        "config": experiment(task),
        "dataset/sounds": dataset(sounds, features),
        f"preprocessing/{features}": preprocessing(task),
    }.items():
        path = folder / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False))


if __name__ == "__main__":
    task = Task("autrainer")
    folder = task.scratch / "autrainer"
    write_project(folder, task)
    os.chdir(folder)
    del sys.argv[1:]
    # imported here: it reads the folder's configuration
    from autrainer import cli

    # features that exist are kept
    cli.preprocess(update_frequency=0)
    task.watch()
    cli.train()
