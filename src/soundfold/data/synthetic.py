"""A small labelled collection, rendered in ESC-50's layout, whose classes differ in their sound only.

Each class is a recipe. A source draws pitch, tempo and background. Its clips differ slightly from one another, as takes
of one recording do, and are in one fold. Level, onset and length are independent of the class.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from soundfold.errors import ArgumentError
from soundfold.io.atomic import atomic_folder
from soundfold.io.locks import exclusive_lock

RATE = 44100
SECONDS = 2.0
FOLDS = 5
SOURCES_PER_FOLD = 2
TAKES = 2

Recipe = Callable[[np.random.Generator, np.ndarray, float, float], np.ndarray]


def _tone(_: np.random.Generator, time: np.ndarray, pitch: float, __: float) -> np.ndarray:
    return sum((np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3)), np.zeros_like(time))


def _rising(_: np.random.Generator, time: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
    phase = (time * tempo / 4) % 1.0
    # the instantaneous frequency climbs two octaves in each sweep
    return np.sin(2 * np.pi * np.cumsum(pitch * 4**phase) / RATE)


def _falling(rng: np.random.Generator, time: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
    return _rising(rng, time, pitch, tempo)[::-1]


def _band_noise(rng: np.random.Generator, size: int, low: float, high: float) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.fft.rfftfreq(size, 1 / RATE)
    return np.fft.irfft(np.where((frequency > low) & (frequency < high), spectrum, 0), size)


def _low_noise(rng: np.random.Generator, time: np.ndarray, pitch: float, _: float) -> np.ndarray:
    return _band_noise(rng, len(time), 0.3 * pitch, 1.2 * pitch)


def _high_noise(rng: np.random.Generator, time: np.ndarray, pitch: float, _: float) -> np.ndarray:
    return _band_noise(rng, len(time), 8 * pitch, 20 * pitch)


def _pulses(rng: np.random.Generator, time: np.ndarray, _: float, tempo: float) -> np.ndarray:
    return rng.standard_normal(len(time)) * np.exp(-((time * tempo) % 1.0) / tempo / 0.006)


def _warble(_: np.random.Generator, time: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
    return np.sin(2 * np.pi * np.cumsum(2 * pitch * (1 + 0.2 * np.sin(2 * np.pi * tempo * time))) / RATE)


def _tremolo_noise(rng: np.random.Generator, time: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
    return _band_noise(rng, len(time), pitch, 8 * pitch) * (1 + np.sin(2 * np.pi * tempo * time))


def _beeps(_: np.random.Generator, time: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
    return np.sin(2 * np.pi * 3 * pitch * time) * ((time * tempo) % 1.0 < 0.4)


def _bell(_: np.random.Generator, time: np.ndarray, pitch: float, tempo: float) -> np.ndarray:
    since = (time * tempo / 4) % 1.0 * 4 / tempo
    partials = (1.0, 2.76, 5.4, 8.93)  # of a struck bar
    return sum((np.sin(2 * np.pi * pitch * p * time) * np.exp(-3 * p * since) for p in partials), np.zeros_like(time))


RECIPES: dict[str, Recipe] = {
    "tone": _tone,
    "rising_chirp": _rising,
    "falling_chirp": _falling,
    "low_noise": _low_noise,
    "high_noise": _high_noise,
    "pulses": _pulses,
    "warble": _warble,
    "tremolo_noise": _tremolo_noise,
    "beeps": _beeps,
    "bell": _bell,
}


def render_clip(recipe: Recipe, source: np.random.Generator, take: np.random.Generator) -> np.ndarray:
    """Render one take of a source: float64 (samples,), 1.2 to 2 s at 44.1 kHz, within [-1, 1]."""
    pitch = 350 * 2 ** (source.uniform(-0.7, 0.7) + take.uniform(-0.1, 0.1))
    tempo = source.uniform(4.0, 9.0) * take.uniform(0.95, 1.05)
    background_low, background_ratio = source.uniform(50, 4000), 10 ** (-source.uniform(15, 25) / 20)
    size = round(take.uniform(0.6, 1.0) * SECONDS * RATE)
    onset = round(take.uniform(0, 0.2) * size)
    event = recipe(take, np.arange(size - onset) / RATE, pitch, tempo)
    sound = np.concatenate([np.zeros(onset), event / event.std()])
    sound += background_ratio * _normalize(_band_noise(take, size, background_low, 3 * background_low))
    # loudness must not depend on the class
    return np.clip(10 ** (take.uniform(-40, -26) / 20) * _normalize(sound), -1, 1)


def _normalize(sound: np.ndarray) -> np.ndarray:
    """Scale to an RMS of 1."""
    return sound / np.sqrt(np.mean(sound**2))


def render(root: Path, seed: int = 0) -> None:
    """Render the collection to ``root`` (``meta/esc50.csv``, ``audio/*.wav``), unless it exists.

    It has 200 clips of 10 classes in 5 folds, about 30 MB. The folder appears complete or not at all.

    Raises:
        ArgumentError: the folder cannot be written, or has other files.
    """
    root = root.resolve()
    table = root / "meta" / "esc50.csv"
    if table.is_file():
        return
    if root == Path.cwd():
        raise ArgumentError(f"`root`={root} is the current folder, which cannot be replaced. Set another one.")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(root.with_name(f"{root.name}.lock"), "is rendering the synthetic collection"):
            if table.is_file():  # another process held the lock
                return
            if root.is_dir() and any(root.iterdir()):
                raise ArgumentError(
                    f"`root`={root} has files, but no meta/esc50.csv. It is not replaced: set `root` to another folder."
                )
            with atomic_folder(root) as folder:
                _render(folder, seed)
    except (OSError, soundfile.SoundFileError) as error:
        raise ArgumentError(
            f"The synthetic collection cannot be written to `root`={root}: {error}. It needs 30 MB. Free some space, "
            "or set `root` to another folder."
        ) from error


def _render(folder: Path, seed: int) -> None:
    (folder / "audio").mkdir()
    (folder / "meta").mkdir()
    rows = []
    for target, (category, recipe) in enumerate(RECIPES.items()):
        for number in range(FOLDS * SOURCES_PER_FOLD):
            for take in range(TAKES):
                fold, letter = number % FOLDS + 1, "ABCDEFGH"[take]
                source = f"{target}{number:02d}"
                name = f"{fold}-{source}-{letter}-{target}.wav"
                clip = render_clip(
                    recipe,
                    np.random.default_rng([seed, target, number]),
                    np.random.default_rng([seed, target, number, take]),
                )
                soundfile.write(folder / "audio" / name, clip, RATE, subtype="PCM_16")
                rows.append([name, fold, target, category, False, source, letter])
    with (folder / "meta" / "esc50.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["filename", "fold", "target", "category", "esc10", "src_file", "take"])
        writer.writerows(rows)
