"""Resampling: length, independence of blocks, fidelity of the passband, rejection of aliases, bounded memory."""

import time
import tracemalloc
from math import ceil, gcd

import numpy as np
import pytest
from scipy.signal import firwin, resample_poly

from soundfold.data import resampling
from soundfold.data.resampling import resample_blocks

# up and down, between usual rates, without a small ratio, and the limits that a file's header may name
RATES = [
    (8000, 44_100),
    (48_000, 44_100),
    (22_050, 44_100),
    (44_100, 16_000),
    (192_000, 16_000),
    (11_025, 12_000),
    (44_099, 44_100),
    (999_983, 44_100),
    (1009, 44_100),
    (1000, 1_000_000),
    (1_000_000, 1000),
]


def noise(n_samples: int) -> np.ndarray:
    return np.random.default_rng(n_samples).uniform(-1, 1, n_samples).astype(np.float32)


def sine(frequency: float, rate: int, seconds: float = 2.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def resample(wave: np.ndarray, rate: int, target_rate: int) -> np.ndarray:
    return np.concatenate(list(resample_blocks([wave], rate, target_rate)))


def interior(wave: np.ndarray) -> np.ndarray:
    """Without the filter's ringing at both ends."""
    edge = len(wave) // 20
    return wave[edge:-edge]


def decibels(amplitude: float) -> float:
    return 20 * np.log10(amplitude)


@pytest.mark.parametrize(("rate", "target_rate"), RATES)
@pytest.mark.parametrize("n_samples", [0, 1, 2, 7, 441, 10_001])
def test_length_is_the_duration_rounded_up(rate, target_rate, n_samples):
    resampled = resample(noise(n_samples), rate, target_rate)
    assert resampled.shape == (ceil(n_samples * target_rate / rate),)
    assert resampled.dtype == np.float32


@pytest.mark.parametrize(("rate", "target_rate"), RATES)
@pytest.mark.parametrize("sizes", [(1, 0, 7000, 13, 20_000), (1,) * 500, (40_320,)])
def test_blocks_of_any_size_give_the_same_samples(rate, target_rate, sizes, monkeypatch):
    wave = noise(40_321)
    expected = resample(wave, rate, target_rate)
    monkeypatch.setattr(resampling, "MAX_SAMPLES", 5000)
    blocks = np.split(wave, np.cumsum(sizes))
    resampled = np.concatenate(list(resample_blocks(blocks, rate, target_rate)))
    np.testing.assert_array_equal(resampled, expected)


@pytest.mark.parametrize(("rate", "target_rate"), RATES)
def test_later_samples_do_not_change_earlier_ones(rate, target_rate):
    wave = noise(60_000)
    start = np.concatenate(list(resample_blocks(iter([wave[:30_000]]), rate, target_rate))[:-1])
    np.testing.assert_array_equal(start, resample(wave, rate, target_rate)[: len(start)])


def test_the_same_rate_passes_blocks_through():
    block = noise(100)
    assert list(resample_blocks([block], 44_100, 44_100)) == [pytest.approx(block, abs=0)]


@pytest.mark.parametrize(("rate", "target_rate"), [pair for pair in RATES if min(pair) > 1009])
@pytest.mark.parametrize(("relative", "error_db"), [(0.05, -115), (0.5, -100), (0.9, -58)])
def test_a_sine_of_the_passband_keeps_its_frequency_amplitude_and_phase(rate, target_rate, relative, error_db):
    frequency = relative * min(rate, target_rate) / 2
    error = resample(sine(frequency, rate), rate, target_rate) - sine(frequency, target_rate)
    assert decibels(np.abs(interior(error)).max()) < error_db


@pytest.mark.parametrize(("rate", "target_rate"), [pair for pair in RATES if pair[0] > 1.2 * pair[1]])
@pytest.mark.parametrize("relative", [1.01, 1.05, 1.15])
def test_a_sine_above_the_new_nyquist_frequency_is_rejected(rate, target_rate, relative):
    alias = resample(sine(relative * target_rate / 2, rate), rate, target_rate)
    assert decibels(np.abs(interior(alias)).max()) < -110


@pytest.mark.parametrize(
    ("rate", "target_rate"), [(8000, 44_100), (48_000, 44_100), (44_100, 16_000), (22_050, 44_100)]
)
def test_parity_with_scipy(rate, target_rate):
    spectrum = np.fft.rfft(noise(2 * rate))
    # below the filters' transition bands
    spectrum[np.fft.rfftfreq(2 * rate, 1 / rate) > 0.35 * min(rate, target_rate)] = 0
    wave = np.fft.irfft(spectrum)
    common = gcd(rate, target_rate)
    up, down = target_rate // common, rate // common
    # SciPy's default filter is too short to judge soxr's
    taps = firwin(128 * max(up, down) + 1, 1 / max(up, down), window=("kaiser", 14.0))
    expected = resample_poly(wave, up, down, window=taps)
    error = resample(wave.astype(np.float32), rate, target_rate) - expected
    assert decibels(np.abs(interior(error)).max()) < -85


@pytest.mark.parametrize(("rate", "target_rate"), [(44_099, 44_100), (999_983, 44_100), (1000, 1_000_000)])
def test_any_ratio_takes_bounded_memory_and_time(rate, target_rate):
    wave = noise(min(20 * rate, 20_000_000 * rate // target_rate))
    start = time.perf_counter()
    tracemalloc.start()
    n_resampled = sum(len(block) for block in resample_blocks([wave], rate, target_rate))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_resampled == ceil(len(wave) * target_rate / rate)
    assert peak < 32 * resampling.MAX_SAMPLES
    assert time.perf_counter() - start < 20
