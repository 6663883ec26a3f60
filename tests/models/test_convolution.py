import pytest
import torch
from torch.nn import functional

from soundfold.models.convolution import Conv3x3
from soundfold.models.memory_format import to_channels_last
from soundfold.models.resnet import ResNet18


def products(layer, maps, monkeypatch):
    """Count the calls of the matrix product in `layer(maps)`."""
    calls = []
    original = Conv3x3._as_product
    monkeypatch.setattr(Conv3x3, "_as_product", lambda self, x: calls.append(x.shape) or original(self, x))
    layer(maps)
    return len(calls)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 4), (3, 5), (4, 4)])
def test_small_maps_give_the_values_and_gradients_of_torch(size, stride):
    torch.manual_seed(0)
    layer = to_channels_last(Conv3x3(256, 32, stride)).double()
    maps = torch.randn(3, 256, *size, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    expected = functional.conv2d(maps, layer.weight, stride=stride, padding=1)
    weights = torch.randn_like(expected)
    reference = torch.autograd.grad((expected * weights).sum(), [maps, layer.weight])
    assert layer._is_small(maps)
    actual = layer(maps)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    assert actual.is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(torch.autograd.grad((actual * weights).sum(), [maps, layer.weight]), reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_bfloat16_is_as_near_to_float32_as_torch_is():
    torch.manual_seed(0)
    layer = to_channels_last(Conv3x3(256, 64))
    maps = torch.randn(8, 256, 2, 4).to(memory_format=torch.channels_last)
    exact = layer(maps)
    with torch.autocast("cpu", torch.bfloat16):
        ours = layer(maps)
        torchs = functional.conv2d(maps, layer.weight, padding=1)
    assert ours.dtype == torch.bfloat16
    assert (ours - exact).norm() <= 1.1 * (torchs - exact).norm()


def test_only_the_last_stage_of_small_images_is_a_product(monkeypatch):
    network = to_channels_last(ResNet18(classes=5)).eval()
    with torch.no_grad():
        assert products(network, torch.zeros(2, 1, 64, 126), monkeypatch) == 4
        assert products(network, torch.zeros(2, 1, 128, 401), monkeypatch) == 0
        assert products(ResNet18(classes=5).eval(), torch.zeros(2, 1, 64, 126), monkeypatch) == 0


def test_an_export_has_the_convolutions_and_equal_values():
    network = to_channels_last(ResNet18(classes=5)).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    image = torch.randn(2, 1, 64, 126)
    exported = torch.export.export(network, (image,), dynamic_shapes=({0: batch},))
    assert sum(node.target is torch.ops.aten.conv2d.default for node in exported.graph.nodes) == 20
    torch.testing.assert_close(exported.module()(image), network(image), rtol=1e-4, atol=1e-4)
