import numpy as np
import pytest
import torch

from soundfold.features.logmel import LogMel
from soundfold.inference import streaming
from soundfold.inference.streaming import SpectrogramSketch, windows


def noise(n_samples: int) -> np.ndarray:
    return np.random.default_rng(n_samples).uniform(-1, 1, n_samples).astype(np.float32)


def split(wave: np.ndarray, *sizes: int) -> list[np.ndarray]:
    return np.split(wave, np.cumsum(sizes))


@pytest.mark.parametrize(
    ("length", "hop", "starts"),
    [
        (30, 50, [0]),  # shorter than a window: padded
        (100, 50, [0]),
        (109, 50, [0]),  # longer by less than a tenth: cut, as in training
        (110, 50, [0, 10]),
        (200, 50, [0, 50, 100]),
        (230, 50, [0, 50, 100, 130]),  # the last ends with the stream
        (230, 100, [0, 100, 130]),
        (203, 1, list(range(104))),
    ],
)
def test_windows_cover_a_stream(length, hop, starts):
    wave = np.arange(1, length + 1, dtype=np.int16)
    for sizes in ((), (1, 40, 3), (99, 1), (length,)):
        result = list(windows(split(wave, *sizes), 100, hop))
        assert [start for start, _, _ in result] == starts
        for start, n_samples, window in result:
            assert window.shape == (100,)
            assert np.array_equal(window[:n_samples], wave[start : start + 100][:n_samples])
            assert not window[n_samples:].any()
            assert n_samples == min(100, length)


def test_an_empty_stream_has_no_windows():
    assert not list(windows([], 100, 50))


def test_a_sketch_equals_the_log_mel_without_seams(monkeypatch):
    monkeypatch.setattr(streaming, "STEP", 3000)
    logmel = LogMel(8000, n_fft=512, hop_length=160, n_mels=16, f_min=0, f_max=4000)
    wave = noise(16_000)
    sketch = SpectrogramSketch(logmel, 8000)
    for block in split(wave, 10, 5000, 8000):
        sketch.add(block)
    log_mel_db, seconds = sketch.end()
    expected = logmel(torch.from_numpy(wave)[None])[0, 0].numpy()
    assert seconds == 0.02
    assert log_mel_db.shape == (16, 100)
    # the last frame of the expected log-mel is centered on the end of the wave
    assert np.abs(log_mel_db - expected[:, :100]).max() < 1e-3


def test_a_sketch_of_a_long_stream_has_few_columns():
    logmel = LogMel(8000, n_fft=512, hop_length=160, n_mels=16, f_min=0, f_max=4000)
    sketch = SpectrogramSketch(logmel, 8000, columns=50)
    time_axis = np.arange(8000 * 30) / 8000
    wave = np.where(time_axis < 15, 0.001, 0.5).astype(np.float32) * noise(len(time_axis))
    for block in np.split(wave, 30):
        sketch.add(block)
    log_mel_db, seconds = sketch.end()
    assert log_mel_db.shape[1] <= 51
    assert log_mel_db.shape[1] * seconds == pytest.approx(30, abs=seconds)
    # the second half is louder by 54 dB
    half = round(15 / seconds)
    assert log_mel_db[:, half + 1 :].mean() - log_mel_db[:, : half - 1].mean() == pytest.approx(54, abs=1)
