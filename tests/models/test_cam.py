"""Class activation maps: exact contributions, drawn where the network computed them."""

import pytest
import torch

from soundfold.models.cam import class_activation
from soundfold.models.resnet import MeanMaxPool, ResNet18


@pytest.mark.parametrize(
    "options", [{}, {"max_pool": False}, {"stem_stride": 1}, {"stem_stride": 1, "max_pool": False}]
)
def test_a_position_of_the_last_maps_is_drawn_at_the_center_of_its_receptive_field(options):
    """The gradient of one position with respect to the image, of a network whose weights are all positive."""
    torch.manual_seed(0)
    network = ResNet18(2, width=4, **options).eval()
    for parameter in network.parameters():
        parameter.data = parameter.data.abs() + 0.01
    stride = network.stride
    image = torch.rand(1, 1, 24 * stride, 24 * stride, requires_grad=True)
    maps = network.features(image)
    assert maps.shape[-2:] == (24, 24)
    for row, column in ((10, 13), (12, 11)):
        (gradient,) = torch.autograd.grad(maps[0, :, row, column].sum(), image, retain_graph=True)
        weight = gradient[0, 0].abs() / gradient.abs().sum()
        center = [float((weight.sum(dim=1 - axis) * torch.arange(weight.shape[axis])).sum()) for axis in (0, 1)]
        # a max pooling passes the gradient of one of nine pixels
        assert center == pytest.approx([stride * row, stride * column], abs=0.15 * stride)


def test_the_map_peaks_at_the_position_that_contributes(monkeypatch):
    network = ResNet18(2, width=4).eval()
    maps = torch.zeros(1, 32, 4, 16)
    maps[:, :, 2, 5] = 1
    monkeypatch.setattr(network, "features", lambda image: maps)
    network.fc.weight.data.abs_()
    cam = class_activation(network, torch.zeros(1, 1, 128, 501), torch.tensor([0]))[0]
    assert divmod(int(cam.argmax()), 501) == (64, 160)
    assert float(cam[64, 176]) == pytest.approx(0.5)
    assert float(cam[48, 160]) == pytest.approx(0.5)
    assert float(cam[0, 0]) == 0


def test_contributions_of_mean_max_pooling_add_up_to_its_output():
    maps, pool = torch.randn(3, 5, 4, 7), MeanMaxPool()
    parts = pool.contributions(maps)
    torch.testing.assert_close(parts.sum(dim=(2, 3), keepdim=True), pool(maps))
    # and they are the positions that the output depends on
    maps.requires_grad_()
    pool(maps).sum().backward()
    torch.testing.assert_close(parts, (maps.grad * maps).detach())
