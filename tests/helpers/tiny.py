"""A tiny collection of tones and noises, and runs on it that take seconds on a CPU."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from hydra import compose, initialize_config_dir

from soundfold.config import register
from soundfold.experiment import run as runs
from soundfold.report.reporter import RunReporter

ROOT = Path(__file__).resolve().parents[2]
RATE = 8000


def render(root: Path, seed: int = 0, folds: int = 3) -> Path:
    """Write a collection of thirty clips of half a second in ``folds`` folds; return its root."""
    rng = np.random.default_rng(seed)
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    rows = ["filename,fold,target,category,src_file"]
    time_axis = np.arange(RATE // 2) / RATE
    for number in range(30):
        fold, target = number % folds + 1, number // folds % 2
        tone = np.sin(2 * np.pi * rng.uniform(300, 2000) * time_axis)
        wave = 0.3 * (tone if target else rng.uniform(-1, 1, len(time_axis)))
        soundfile.write(root / "audio" / f"{number}.wav", wave, RATE)
        rows.append(f"{number}.wav,{fold},{target},{'tone' if target else 'noise'},{number}")
    (root / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return root


def overrides(root: Path, outputs: Path, *more: str) -> list[str]:
    """Return the overrides of a run on the collection at ``root``."""
    # a quarter of the width halves the time of a fold; only ResNet18 has a width
    narrow = [] if any(option.startswith("model=") for option in more) else ["model.width=16"]
    return [
        f"data.root={root}",
        f"paths.outputs={outputs}",
        f"paths.cache={root.parent / 'cache'}",
        "name=tiny",
        "data.download=null",
        "data.seconds=0.5",
        f"data.sample_rate={RATE}",
        "data.batch_size=8",
        "features.window=0.064",
        "features.hop=0.02",
        "features.n_mels=16",
        "features.f_max=4000",
        "trainer=cpu",
        "trainer.precision=32-true",
        "model.channels_last=false",
        *narrow,
        "trainer.max_epochs=2",
        "trainer.enable_progress_bar=false",
        "logger=csv",
        "checkpoints.every_seconds=0",
        # a page takes a second; complete runs have theirs
        *["report.page=none" for option in more if re.fullmatch(r"fold=\d", option)],
        *more,
    ]


def only(outputs: Path) -> Path:
    """Return the folder of the only run."""
    (folder,) = outputs.glob("tiny-*")
    return folder


def train(*args: str, **options) -> subprocess.CompletedProcess:
    """Run ``scripts/train.py`` in a new process."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, **options)


def cross_validate(root: Path, outputs: Path, *more: str) -> float | None:
    """Cross-validate on the collection at ``root`` in this process."""
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return runs.cross_validate(compose("train", overrides(root, outputs, *more)), RunReporter())


LEAKY = (
    "split=random_clips",
    "allow_leakage=true",
    "split.image_val=0.15",
    "split.test_in_training=true",
    "augment=seed_copies",
    "augment.copies.after=2",
    "schedule=constant",
)
