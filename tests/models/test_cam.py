"""Class activation maps: exact contributions, drawn where the network computed them."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from soundfold.models.cam import _recorded, class_activation
from soundfold.models.libraries import torchvision_network
from soundfold.models.resnet import ResNet18


class Mixed(nn.Module):
    """Even kernels, a convolution without padding, poolings, and padding that depends on the size."""

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 4, kernel_size=2, stride=2)
        self.valid = nn.Conv2d(4, 4, kernel_size=5)
        self.pool = pool
        self.head = nn.Linear(4, 2)

    def forward(self, image):
        return self.head(self.pool(self.valid(self.patches(image))).mean(dim=(2, 3)))


class PaddedOnTheFly(nn.Conv2d):
    def forward(self, image):
        return super().forward(nn.functional.pad(image, (0, 1, 0, 1)))


@pytest.mark.parametrize(
    "network",
    [
        *(
            ResNet18(2, width=4, **options)
            for options in ({}, {"max_pool": False}, {"stem_stride": 1}, {"stem_stride": 1, "max_pool": False})
        ),
        Mixed(nn.AvgPool2d(2)),
        Mixed(nn.AvgPool2d(3, stride=2, ceil_mode=True)),
        Mixed(PaddedOnTheFly(4, 4, kernel_size=3, stride=2)),
    ],
    ids=lambda network: type(network).__name__,
)
def test_a_position_of_the_last_maps_is_drawn_at_the_center_of_its_receptive_field(network):
    """The gradient of one position with respect to the image, of a network whose weights are all positive."""
    torch.manual_seed(0)
    network.eval()
    for parameter in network.parameters():
        parameter.data = 0.1 + torch.rand_like(parameter) / 100
    size = 24 * (32 if isinstance(network, ResNet18) else 4)
    image = torch.rand(1, 1, size, size, requires_grad=True)
    with _recorded(network, image.shape) as record:
        network(image)
    maps, axes = record.maps, record.axes()
    for row, column in ((10, 13), (12, 11)):
        (gradient,) = torch.autograd.grad(maps[0, :, row, column].sum(), image, retain_graph=True)
        weight = gradient[0, 0].abs() / gradient.abs().sum()
        measured = [float((weight.sum(dim=1 - axis) * torch.arange(weight.shape[axis])).sum()) for axis in (0, 1)]
        drawn = [center + stride * cell for (*_, stride, center), cell in zip(axes, (row, column), strict=True)]
        # a max pooling passes the gradient of one of nine pixels
        assert drawn == pytest.approx(measured, abs=0.15 * axes[0][2])


@pytest.mark.parametrize(
    ("name", "stride", "center"),
    [
        ("resnet34", 32, 0),
        ("mobilenet_v3_small", 32, 0),
        ("efficientnet_b0", 32, 0),
        ("densenet121", 32, 14),  # three average poolings of 2 x 2 after a stride of 4: 2 + 4 + 8
        ("convnext_tiny", 32, 15.5),  # patches of 4 x 4, then of 2 x 2
        ("vgg11", 32, 15.5),
        ("squeezenet1_1", 16, 15),  # no padding: 1 + 2 + 4 + 8
    ],
)
def test_centers_of_known_networks(name, stride, center):
    with torch.device("meta"):
        network, image = torchvision_network(2, name), torch.zeros(1, 1, 128, 501)
    with _recorded(network, image.shape) as record:
        network(image)
    assert [axis[2:] for axis in record.axes()] == [(stride, center)] * 2


@pytest.mark.parametrize("pooling", ["mean", "mean_max"])
def test_the_map_is_each_position_s_contribution_to_the_logit(pooling):
    torch.manual_seed(0)
    network = ResNet18(3, width=4, pooling=pooling).eval()
    network.fc.weight.data.abs_()
    image, target = torch.randn(2, 1, 128, 224), torch.tensor([2, 0])
    maps = network.features(image).detach()
    share = torch.full(maps.shape[2:], 1 / maps[0, 0].numel()).expand_as(maps)
    if pooling == "mean_max":
        loudest = maps.mean(dim=2, keepdim=True).argmax(dim=3, keepdim=True)
        share = share + torch.zeros_like(maps[:, :, :1]).scatter(3, loudest, 1.0) / maps.shape[2]
    contributions = maps * share
    torch.testing.assert_close(contributions.sum(dim=(2, 3)), network.avgpool(maps).flatten(1))
    expected = torch.einsum("bchw,bc->bhw", contributions, network.fc.weight[target]).clamp(min=0)
    expected /= expected.amax(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(class_activation(network, image, target)[:, ::32, ::32], expected, rtol=1e-3, atol=1e-5)


def test_the_map_peaks_at_the_position_that_contributes():
    network = ResNet18(2, width=4).eval()
    maps = torch.zeros(1, 32, 4, 16)
    maps[:, :, 2, 5] = 1
    network.layer4.register_forward_hook(lambda *_: maps.requires_grad_())
    network.fc.weight.data.abs_()
    with torch.inference_mode():
        cam = class_activation(network, torch.zeros(1, 1, 128, 501), torch.tensor([0]))[0]
    assert divmod(int(cam.argmax()), 501) == (64, 160)
    assert float(cam[64, 176]) == pytest.approx(0.5)
    assert float(cam[48, 160]) == pytest.approx(0.5)
    assert float(cam[0, 0]) == 0


def test_a_map_that_no_convolution_explains_covers_the_image_evenly():
    network = Mixed(nn.Sequential()).eval()
    network.pool.forward = lambda maps: nn.functional.avg_pool2d(maps, 4)
    with _recorded(network, torch.Size((1, 1, 104, 104))) as record:
        network(torch.zeros(1, 1, 104, 104))
    assert record.axes() == [(12, 104, 104 / 12, (104 / 12 - 1) / 2)] * 2


def test_a_network_without_maps_has_no_activation():
    transformer = VisionTransformer(32, 8, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8, num_classes=2).eval()
    assert class_activation(transformer, torch.zeros(1, 3, 32, 32), torch.tensor([0])) is None
