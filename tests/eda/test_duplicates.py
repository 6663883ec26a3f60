import io

import numpy as np
import pytest
import soundfile
import torch

from soundfold.data.tables import read_table
from soundfold.eda.duplicates import Pair, fingerprints, near_pairs

RATE = 44100


def encoded(wave: np.ndarray, **options) -> np.ndarray:
    """int16 (N,) through a lossy coder and back."""
    data = io.BytesIO()
    soundfile.write(data, wave, RATE, **options)
    data.seek(0)
    back = soundfile.read(data, dtype="int16")[0][: len(wave)]
    return np.pad(back, (0, len(wave) - len(back)))


def late(wave: np.ndarray, seconds: float, rate: int = RATE) -> np.ndarray:
    return np.pad(wave, (round(seconds * rate), 0))[: len(wave)]


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


def pairs_of(waves: list[np.ndarray], seconds: float, rate: int = RATE) -> list[Pair]:
    """Pairs of clips in a store of clips of `seconds`, padded with zeros as in `soundfold.data.store`."""
    samples = np.zeros((len(waves), round(seconds * rate)), dtype=np.int16)
    for row, wave in zip(samples, waves, strict=True):
        row[: len(wave)] = wave
    return near_pairs(fingerprints(samples, np.array([len(wave) for wave in waves]), rate))


@pytest.mark.parametrize(
    ("length", "store"), [(5.0, 5.0), (1.0, 4.0)], ids=["full length", "cut to 1 s in a store of 4 s"]
)
@pytest.mark.parametrize("change", CHANGES)
def test_only_modified_copies_of_real_clips_are_detected(clips, change, length, store):
    cut = [wave[: round(length * RATE)] for wave in clips]
    pairs = pairs_of([*cut, *(CHANGES[change](wave) for wave in cut)], store)
    expected = {(pair.first, pair.second): pair for pair in pairs if pair.second == pair.first + len(clips)}
    assert len(expected) >= 0.95 * sum(wave.any() for wave in cut)
    assert len(expected) == len(pairs)
    shift = float(change.split()[0]) / 1000 if "later" in change else 0.0
    assert np.median([pair.lag for pair in expected.values()]) == pytest.approx(shift, abs=0.0051)


@pytest.mark.parametrize("length", [0.1, 0.2, 0.3, 0.5, 1.0])
def test_short_real_clips_in_a_long_store_are_not_paired(clips, length):
    assert pairs_of([wave[: round(length * RATE)] for wave in clips], 4.0) == []


def test_an_excerpt_is_paired_with_its_original(clips):
    n = len(clips)
    pairs = pairs_of([*(wave[: 2 * RATE] for wave in clips), *clips], 5.0)
    assert {(pair.first, pair.second) for pair in pairs} <= {(i, i + n) for i in range(n)}
    # a louder sound later in a clip may raise the floor above its first seconds
    assert len(pairs) >= 0.75 * n


def test_clips_of_different_lengths(monkeypatch):
    rng = np.random.default_rng(0)
    waves = [rng.integers(-3000, 3000, rng.integers(8000, 32000), dtype=np.int16) for _ in range(12)]
    waves[7] = late(waves[2], 0.03, 16000)[: len(waves[2]) - 1234]
    waves[3] = waves[9][:9000]
    results = {}
    for block_size in (512, 5):
        monkeypatch.setattr("soundfold.eda.duplicates.BLOCK_SIZE", block_size)
        results[block_size] = {(pair.first, pair.second, round(pair.lag, 2)) for pair in pairs_of(waves, 2.5, 16000)}
    assert results[512] == results[5] == {(2, 7, 0.03), (3, 9, 0.0)}


def test_pairs_across_blocks_and_silence(monkeypatch):
    monkeypatch.setattr("soundfold.eda.duplicates.BLOCK_SIZE", 3)
    rng = np.random.default_rng(0)
    samples = rng.integers(-3000, 3000, (10, RATE), dtype=np.int16)
    samples[8] = samples[1]
    samples[[4, 9]] = 0
    pairs = pairs_of(list(samples), 1.0)
    assert [(pair.first, pair.second) for pair in pairs] == [(1, 8)]
    assert pairs[0].similarity == pytest.approx(1, abs=1e-5)


def test_the_lag_is_the_delay_of_the_second_clip():
    rng = np.random.default_rng(0)
    wave = rng.integers(-3000, 3000, RATE, dtype=np.int16)
    for waves, shift in (([wave, late(wave, 0.03)], 0.03), ([late(wave, 0.03), wave], -0.03)):
        (pair,) = pairs_of(waves, 1.0)
        assert pair.lag == pytest.approx(shift)


def test_independent_noises_are_not_paired():
    samples = (3000 * torch.randn(60, RATE, generator=torch.Generator().manual_seed(0))).short().numpy()
    assert pairs_of(list(samples), 1.0) == []
