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


def test_real_clips_come_back_as_sound_with_the_same_log_mel(esc10):
    logmel = LogMel(**LOGMEL)
    files = sorted((esc10 / "audio").iterdir())[::130]
    waves = torch.stack([torch.from_numpy(soundfile.read(path, dtype="float32")[0][: 4 * RATE]) for path in files])
    level = logmel(waves)[:, 0]
    back = invert(level, logmel)
    assert back.shape == (len(files), 4 * RATE)
    for one, other in zip(level, logmel(back)[:, 0], strict=True):
        assert correlation(one, other) > 0.9
    torch.testing.assert_close(invert(level, logmel), back)


def test_a_tone_keeps_its_frequency_and_level():
    tone = 0.3 * torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)[None]
    logmel = LogMel(**LOGMEL)
    back = invert(logmel(tone)[:, 0], logmel)[0, 4410:-4410]
    spectrum = torch.fft.rfft(back).abs()
    assert float(spectrum.argmax()) * RATE / len(back) == pytest.approx(1000, rel=0.02)
    assert float(back.square().mean().sqrt()) == pytest.approx(0.3 / 2**0.5, rel=0.3)


def test_a_relative_image_has_a_level_of_our_choice():
    logmel = LogMel(**LOGMEL, relative=True)
    wave = torch.randn(1, RATE, generator=torch.Generator().manual_seed(0))
    assert float(invert(logmel(wave)[:, 0], logmel).abs().max()) == pytest.approx(0.5)
