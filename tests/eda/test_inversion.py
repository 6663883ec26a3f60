import numpy as np
import pytest
import soundfile
import torch

from soundfold.eda.inversion import invert
from soundfold.features.logmel import LogMel

RATE = 44100
LOGMEL = {"sample_rate": RATE, "n_fft": 2048, "hop_length": 441, "n_mels": 128, "f_min": 0.0, "f_max": 20000.0}


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(np.corrcoef(one.flatten(), other.flatten())[0, 1])


def test_inverted_clips_have_the_same_log_mel(esc10):
    logmel = LogMel(**LOGMEL)
    files = sorted((esc10 / "audio").iterdir())[::130]
    waves = torch.stack([torch.from_numpy(soundfile.read(path, dtype="float32")[0][: 4 * RATE]) for path in files])
    log_mel = logmel(waves)[:, 0]
    back = invert(log_mel, logmel)
    assert back.shape == (len(files), 4 * RATE)
    for one, other in zip(log_mel, logmel(back)[:, 0], strict=True):
        assert correlation(one, other) > 0.9
    torch.testing.assert_close(invert(log_mel, logmel), back)


def test_an_inverted_tone_has_the_same_frequency_and_amplitude():
    tone = 0.3 * torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)[None]
    logmel = LogMel(**LOGMEL)
    back = invert(logmel(tone)[:, 0], logmel)[0, 4410:-4410]
    spectrum = torch.fft.rfft(back).abs()
    assert float(spectrum.argmax()) * RATE / len(back) == pytest.approx(1000, rel=0.02)
    assert float(back.square().mean().sqrt()) == pytest.approx(0.3 / 2**0.5, rel=0.3)


def test_a_relative_log_mel_is_scaled_to_a_fixed_peak():
    logmel = LogMel(**LOGMEL, relative=True)
    wave = torch.randn(1, RATE, generator=torch.Generator().manual_seed(0))
    assert float(invert(logmel(wave)[:, 0], logmel).abs().max()) == pytest.approx(0.5)
