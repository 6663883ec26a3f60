"""The scoring path, with stand-ins for front ends, networks and crops."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from soundfold.io.pcm import FULL_SCALE
from soundfold.models.resnet import ResNet18
from soundfold.models.scoring import ClipScorer, clip_logits


class Log(nn.Module):
    """A log-mel of 32 bands without overlap: (B, N) -> (B, 1, 32, N / 32); counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, wave):
        self.calls += 1
        return wave.view(len(wave), 1, 32, -1)


class FrontEnd(nn.Module):
    def __init__(self, logmel, shift, image=None):
        super().__init__()
        self.logmel, self.shift, self.image = logmel, shift, image

    def normalize(self, log_mel):
        return log_mel - self.shift


class Halves:
    """Two crops of 1024 samples per clip."""

    per_clip = 2

    def tta_crops(self, wave):
        return wave.view(-1, 1024)


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return [ResNet18(3, width=8).eval() for _ in range(2)]


def test_clip_logits_are_float32_means_over_consecutive_images(networks):
    image = torch.randn(6, 1, 32, 32)
    expected = torch.stack([networks[0](image[i : i + 1])[0] for i in range(6)])
    with torch.autocast("cpu", torch.bfloat16):
        logits = clip_logits(networks[0], image, per_clip=3)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, torch.stack([expected[:3].mean(dim=0), expected[3:].mean(dim=0)]))


@pytest.mark.parametrize("crops", [None, Halves()])
def test_scorer_shares_the_log_mel_and_averages_crops(networks, crops):
    logmel = Log()
    scorer = ClipScorer([FrontEnd(logmel, shift) for shift in (0.0, 0.5)], networks, crops).eval()
    wave = torch.randint(-FULL_SCALE, FULL_SCALE, (2, 2048), dtype=torch.int16)
    logits = scorer(wave)
    assert logits.shape == (2, 2, 3)
    # on a CPU one call per crop, for all models
    assert logmel.calls == (2 if crops is None else 4)
    parts = [wave] if crops is None else [wave[:, :1024], wave[:, 1024:]]
    for network, shift, result in zip(networks, (0.0, 0.5), logits, strict=True):
        images = [part.float().view(2, 1, 32, -1) / FULL_SCALE - shift for part in parts]
        torch.testing.assert_close(result, torch.stack([network(image) for image in images]).mean(dim=0).detach())


def test_activation_is_a_mean_over_models_at_the_resolution_of_the_log_mel(networks):
    logmel, log_mel = Log(), torch.randn(1, 1, 32, 64)
    covers_half = SimpleNamespace(frames=32)
    full, half = FrontEnd(logmel, 0.0), FrontEnd(logmel, 0.0, covers_half)
    target = 1
    first, second = (ClipScorer([full], [network]).activation(log_mel, target) for network in networks)
    torch.testing.assert_close(ClipScorer([full, full], networks).activation(log_mel, target), (first + second) / 2)
    assert first.shape == (32, 64)
    assert float(first.max()) == pytest.approx(1)
    clipped = ClipScorer([half], networks[:1]).activation(log_mel, target)
    assert clipped.shape == (32, 64)
    assert not clipped[:, 32:].any()
    assert clipped[:, :32].any()
