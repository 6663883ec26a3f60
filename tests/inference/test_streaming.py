import numpy as np
import pytest
import torch

from soundfold.features.logmel import LogMel
from soundfold.inference import streaming
from soundfold.inference.streaming import SpectrogramSketch, windows


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32)


def cut(wave: np.ndarray, *sizes: int) -> list[np.ndarray]:
    return np.split(wave, np.cumsum(sizes))


@pytest.mark.parametrize(
    ("length", "hop", "starts"),
    [
        (30, 50, [0]),  # shorter than a window: filled up
        (100, 50, [0]),
        (109, 50, [0]),  # longer by less than a tenth: cut, as in training
        (110, 50, [0, 10]),
        (200, 50, [0, 50, 100]),
        (230, 50, [0, 50, 100, 130]),  # the last ends where the stream ends
        (230, 100, [0, 100, 130]),
        (203, 1, list(range(104))),
    ],
)
def test_windows_cover_a_stream(length, hop, starts):
    wave = np.arange(1, length + 1, dtype=np.int16)
    for sizes in ((), (1, 40, 3), (99, 1), (length,)):
        found = list(windows(cut(wave, *sizes), 100, hop))
        assert [start for start, _, _ in found] == starts
        for start, own, window in found:
            assert window.shape == (100,)
            assert np.array_equal(window[:own], wave[start : start + 100][:own])
            assert not window[own:].any()
            assert own == min(100, length)


def test_a_sketch_is_the_log_mel_without_seams(monkeypatch):
    monkeypatch.setattr(streaming, "STEP", 3000)
    logmel = LogMel(8000, n_fft=512, hop_length=160, n_mels=16, f_min=0, f_max=4000)
    wave = noise(16_000)
    sketch = SpectrogramSketch(logmel, 8000)
    for block in cut(wave, 10, 5000, 8000):
        sketch.add(block)
    level, column = sketch.end()
    whole = logmel(torch.from_numpy(wave)[None])[0, 0].numpy()
    assert column == 0.02
    assert level.shape == (16, 100)
    # the whole has a frame that is centred on its very end
    assert np.abs(level - whole[:, :100]).max() < 1e-3


def test_a_sketch_of_a_long_stream_has_few_columns():
    logmel = LogMel(8000, n_fft=512, hop_length=160, n_mels=16, f_min=0, f_max=4000)
    sketch = SpectrogramSketch(logmel, 8000, columns=50)
    time_axis = np.arange(8000 * 30) / 8000
    wave = np.where(time_axis < 15, 0.001, 0.5).astype(np.float32) * noise(len(time_axis))
    for block in np.split(wave, 30):
        sketch.add(block)
    level, column = sketch.end()
    assert level.shape[1] <= 51
    assert level.shape[1] * column == pytest.approx(30, abs=column)
    # half of it is louder, by 54 dB
    half = round(15 / column)
    assert level[:, half + 1 :].mean() - level[:, : half - 1].mean() == pytest.approx(54, abs=1)
