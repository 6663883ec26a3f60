"""The sound of a part of a clip: what a map selects is heard, and nothing else."""

import pytest
import torch
from torch import nn

from soundfold.errors import ArgumentError
from soundfold.features.logmel import LogMel
from soundfold.features.resynthesis import weight_sound
from soundfold.models.cam import class_activation, upsample_cam

RATE = 16000


def make_logmel(**options) -> LogMel:
    values = {"n_fft": 1024, "hop_length": 160, "n_mels": 64, "f_min": 0.0, "f_max": 8000.0, "win_length": 743}
    return LogMel(RATE, **(values | options))


def tone(hz: float, start: float, end: float, seconds: float = 2.0) -> torch.Tensor:
    """Return a tone with soft ends in silence."""
    time = torch.arange(int(seconds * RATE)) / RATE
    inside = ((time - start) / 0.02).clamp(0, 1) * ((end - time) / 0.02).clamp(0, 1)
    return 0.3 * inside * torch.sin(2 * torch.pi * hz * time)


def level(wave: torch.Tensor, reference: torch.Tensor) -> float:
    """Return the energy of ``wave`` at ``reference``'s place in time, relative to it, dB."""
    place = reference.abs() > 1e-3
    return float(10 * torch.log10(wave[place].square().sum() / reference[place].square().sum()))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"win_length": None},
        {"n_mels": 1, "f_min": 200.0, "f_max": 3000.0},
        {"n_fft": 512, "win_length": 100, "hop_length": 400, "n_mels": 20},  # no inverse at this hop
        {"n_fft": 2048, "win_length": 2048, "hop_length": 441},
    ],
    ids=str,
)
def test_a_map_of_ones_returns_the_clip_and_a_map_and_its_complement_add_up_to_it(options, real_or_synthetic_clips):
    wave = torch.from_numpy(real_or_synthetic_clips.wave(0)[:RATE])
    logmel = make_logmel(**options)
    ones = torch.ones(logmel(wave[None]).shape[2:])
    assert (weight_sound(wave, ones, logmel) - wave).abs().max() < 1e-4
    weights = torch.rand(ones.shape, generator=torch.Generator().manual_seed(0))
    parts = weight_sound(wave, weights, logmel) + weight_sound(wave, 1 - weights, logmel)
    assert (parts - wave).abs().max() < 1e-4
    assert weight_sound(wave, 0 * ones, logmel).abs().max() == 0


def test_a_half_lowers_the_level_by_six_decibels_without_a_change_of_phase():
    wave, logmel = tone(1000, 0.2, 1.8), make_logmel()
    half = torch.full(logmel(wave[None]).shape[2:], 0.5)
    torch.testing.assert_close(weight_sound(wave, half, logmel), wave / 2, atol=1e-5, rtol=0)


@pytest.mark.parametrize("hz", [300.0, 1000.0, 3000.0])
def test_a_band_of_the_map_is_the_band_that_is_heard(hz):
    logmel = make_logmel()
    wave = tone(hz, 0.2, 1.8)
    loudest = int(logmel(wave[None])[0, 0].mean(dim=1).argmax())
    weights = torch.zeros(logmel(wave[None]).shape[2:])
    weights[max(0, loudest - 3) : loudest + 4] = 1
    assert level(weight_sound(wave, weights, logmel), wave) > -0.5
    assert level(weight_sound(wave, 1 - weights, logmel), wave) < -25


class HighDetector(nn.Module):
    """Scores a class by the mean level of the upper half of the bands, and the other class by the lower half."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 1, kernel_size=3, padding=1, bias=False)
        self.features.weight.data.fill_(1 / 9)

    def forward(self, image):
        # quiet cells carry nothing
        lower, upper = self.features((image + 40).clamp(min=0)).mean(dim=3).chunk(2, dim=2)
        return torch.cat([lower.mean(dim=2), upper.mean(dim=2)], dim=1)


def test_of_two_events_the_one_that_the_class_depends_on_is_heard():
    logmel, low, high = make_logmel(), tone(400, 0.2, 0.9), tone(5000, 1.1, 1.8)
    wave = low + high
    log_mel = logmel(wave[None])
    for target, (used, other) in enumerate([(low, high), (high, low)]):
        cam = class_activation(HighDetector(), log_mel, torch.tensor([target]))
        weights = upsample_cam(cam, *log_mel.shape[2:], log_mel.shape[3])
        heard = weight_sound(wave, weights, logmel)
        assert level(heard, used) > -3
        assert level(heard, other) < -30
        # the rest is the other event
        assert level(wave - heard, other) > -0.5


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ArgumentError, match=r"`weights` is \(64, 200\), and the clip's log-mel \(64, 201\)"):
        weight_sound(torch.zeros(2 * RATE), torch.ones(64, 200), make_logmel())
