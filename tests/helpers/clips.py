"""Clips for parity tests: those of ESC-10 if they are available, otherwise rendered stand-ins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from soundfold.data.tables import read_table

RATE = 44100
CLASSES, CLIPS_PER_CLASS = 10, 40


@dataclass(frozen=True)
class Clips:
    """Clips at 44.1 kHz, at least 3.6 s each.

    Attributes:
        targets: (400,), class of each clip.
        wave: reads clip i, float32 (N,) on the 16-bit grid.
    """

    targets: np.ndarray
    wave: Callable[[int], np.ndarray]


def real_clips(root: Path) -> Clips:
    """Return the clips of ESC-10, in the order of its table."""
    table = read_table(root / "meta" / "esc50.csv")
    assert len(table.files) == CLASSES * CLIPS_PER_CLASS

    def wave(number: int) -> np.ndarray:
        return soundfile.read(root / "audio" / table.files[number], dtype="int16")[0].astype(np.float32) / 32768

    return Clips(table.targets, wave)


def synthetic_clips() -> Clips:
    """Return deterministic clips of tones, chirps, noises and clicks over background noise."""
    return Clips(np.arange(CLASSES * CLIPS_PER_CLASS) % CLASSES, _render)


def _render(number: int) -> np.ndarray:
    rng, kind = np.random.default_rng(number), number % CLASSES
    time = np.arange(5 * RATE) / RATE
    pitch, tempo = 300 * 2 ** rng.uniform(0, 3), rng.uniform(1, 4)
    beat = (time * tempo) % 1 / tempo
    pink, brown, black = (_colored(rng.standard_normal(len(time)), exponent) for exponent in (1, 2, 3))
    harmonics = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 9))
    sounds = (
        lambda: harmonics,
        lambda: np.sin(2 * np.pi * pitch * (time + 0.3 * time**2)),
        lambda: brown,
        lambda: black,
        lambda: pink * np.exp(-beat / 0.1),
        lambda: brown * (1 + np.sin(2 * np.pi * tempo * time)),
        lambda: brown * np.exp(-beat / 0.05),
        lambda: brown * (beat < 0.02),
        lambda: harmonics * np.exp(-beat / 0.4),
        lambda: black * (1 + np.sin(2 * np.pi * pitch * time)),
    )
    sound = sounds[kind]()
    # level and background of a recording: a swell, and noise that falls with frequency
    sound = sound / sound.std() * 10 ** (-np.cos(2 * np.pi * time / 5))
    sound += 10 ** (-rng.uniform(20, 40) / 20) * _colored(rng.standard_normal(len(time)), 2.5)
    wave = np.rint(32767 * rng.uniform(0.1, 0.9) * sound / np.abs(sound).max()).astype(np.float32) / 32768
    # a third of the clips end in digital silence, as padded recordings do
    if number % 3 == 0:
        wave[round(rng.uniform(2, 4.5) * RATE) :] = 0
    return wave


def _colored(white: np.ndarray, exponent: float) -> np.ndarray:
    """Filter white noise to a power spectrum of 1 / f^exponent above 100 Hz and standard deviation 1."""
    spectrum = np.fft.rfft(white)
    frequency = np.maximum(np.fft.rfftfreq(len(white), 1 / RATE), 100.0)
    noise = np.fft.irfft(spectrum * frequency ** (-exponent / 2), len(white))
    return noise / noise.std()
