import io

import numpy as np
import pytest
import soundfile
import torch

from soundfold.data.duplicates import fingerprints, near_pairs
from soundfold.data.metadata import read_table

RATE = 44100


def encoded(wave: np.ndarray, **options) -> np.ndarray:
    """int16 (N,) through a lossy coder and back."""
    data = io.BytesIO()
    soundfile.write(data, wave, RATE, **options)
    data.seek(0)
    back = soundfile.read(data, dtype="int16")[0][: len(wave)]
    return np.pad(back, (0, len(wave) - len(back)))


def late(wave: np.ndarray, seconds: float) -> np.ndarray:
    return np.pad(wave, (round(seconds * RATE), 0))[: len(wave)]


CHANGES = {
    "ogg": lambda wave: encoded(wave, format="OGG", subtype="VORBIS", compression_level=0.9),
    "mp3": lambda wave: encoded(wave, format="MP3"),
    "6 dB softer": lambda wave: np.rint(wave * 10 ** (-6 / 20)).astype(np.int16),
    "50 ms later": lambda wave: late(wave, 0.05),
    "47 ms later": lambda wave: late(wave, 0.047),
}


@pytest.fixture(scope="module")
def clips(esc10) -> np.ndarray:
    """Every tenth real clip, int16 (40, N)."""
    table = read_table(esc10 / "meta" / "esc50.csv")
    out = np.zeros((40, 5 * RATE), dtype=np.int16)
    for row, name in zip(out, table.files[::10], strict=True):
        wave = soundfile.read(esc10 / "audio" / name, dtype="int16")[0][: 5 * RATE]
        row[: len(wave)] = wave
    return out


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_of_real_clips_are_found_and_nothing_else(clips, change):
    copies = np.stack([CHANGES[change](wave) for wave in clips])
    pairs = near_pairs(fingerprints(np.concatenate([clips, copies]), RATE))
    n = len(clips)
    right = {(pair.first, pair.second): pair for pair in pairs if pair.second == pair.first + n}
    assert len(right) >= 0.95 * n
    assert len(right) == len(pairs)
    shift = float(change.split()[0]) / 1000 if "later" in change else 0.0
    assert np.median([pair.later for pair in right.values()]) == pytest.approx(shift, abs=0.0051)


def test_pairs_across_blocks_and_silence(monkeypatch):
    monkeypatch.setattr("soundfold.data.duplicates.AT_ONCE", 3)
    rng = np.random.default_rng(0)
    samples = rng.integers(-3000, 3000, (10, RATE), dtype=np.int16)
    samples[8] = samples[1]
    samples[[4, 9]] = 0
    pairs = near_pairs(fingerprints(samples, RATE))
    assert [(pair.first, pair.second) for pair in pairs] == [(1, 8)]
    assert pairs[0].similarity == pytest.approx(1, abs=1e-5)


def test_a_shift_is_counted_from_the_first_to_the_second():
    rng = np.random.default_rng(0)
    wave = rng.integers(-3000, 3000, RATE, dtype=np.int16)
    for samples, shift in ((np.stack([wave, late(wave, 0.03)]), 0.03), (np.stack([late(wave, 0.03), wave]), -0.03)):
        (pair,) = near_pairs(fingerprints(samples, RATE))
        assert pair.later == pytest.approx(shift)


def test_no_noise_is_another():
    samples = (3000 * torch.randn(60, RATE, generator=torch.Generator().manual_seed(0))).short().numpy()
    assert near_pairs(fingerprints(samples, RATE)) == []
