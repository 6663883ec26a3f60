import pytest
import torch
from networks import SmallCNN


@pytest.mark.parametrize("frames", [50, 251])
def test_images_of_any_length_become_logits(frames):
    network = SmallCNN(classes=7, width=8).eval()
    logits = network(torch.randn(2, 1, 64, frames))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


def test_every_parameter_is_trained():
    network = SmallCNN(classes=3, width=4)
    network(torch.randn(4, 1, 32, 32)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())
