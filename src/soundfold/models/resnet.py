"""A single-channel ResNet-18, equal to torchvision's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from soundfold.errors import ArgumentError
from soundfold.models.convolution import Conv3x3

POOLINGS = ("mean", "mean_max")
MAX_WIDTH = 1024  # 2.9e9 parameters


class Block(nn.Module):
    """A residual block of two 3x3 convolutions, with optional squeeze-and-excitation and stochastic depth."""

    def __init__(
        self, inplanes: int, planes: int, stride: int, downsample: nn.Module | None, excite: bool, drop: float
    ) -> None:
        super().__init__()
        self.conv1 = Conv3x3(inplanes, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = Conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample
        self.excite: nn.Module = nn.Identity()
        self.drop: nn.Module = nn.Identity()
        if excite or drop:
            # imported here: it takes a quarter of a second
            from torchvision.ops import SqueezeExcitation, StochasticDepth

            self.excite = SqueezeExcitation(planes, planes // 16) if excite else self.excite
            self.drop = StochasticDepth(drop, "row") if drop else self.drop

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.drop(self.excite(self.bn2(self.conv2(branch))))
        return self.relu(branch + (x if self.downsample is None else self.downsample(x)))


class FrequencyConv(nn.Conv2d):
    """A convolution over an image (B, 1, M, T) and a second channel that holds each row's frequency, from -1 to 1.

    The extra channel lets the translation-equivariant convolution distinguish low bands from high ones.
    """

    def forward(self, image: Tensor) -> Tensor:
        frequency = torch.linspace(-1, 1, image.shape[-2], device=image.device, dtype=image.dtype)
        return super().forward(torch.cat([image, frequency[:, None].expand_as(image)], dim=1))


class MeanMaxPool(nn.Module):
    """Mean over frequency, then mean plus maximum over time: (B, C, M, T) -> (B, C, 1, 1)."""

    def forward(self, maps: Tensor) -> Tensor:
        over_time = maps.mean(dim=2, keepdim=True)
        return over_time.mean(dim=3, keepdim=True) + over_time.amax(dim=3, keepdim=True)


class ResNet18(nn.Module):
    """ResNet-18 with a one-channel 7x7 stem: images (B, 1, M, T) -> logits (B, classes).

    With the defaults it equals torchvision's ResNet-18, with the same parameter names.

    >>> network = ResNet18(classes=50, width=16, pooling="mean_max")
    >>> network(torch.zeros(2, 1, 128, 501)).shape
    torch.Size([2, 50])

    Source: K. He et al., Deep Residual Learning for Image Recognition, CVPR 2016; torchvision's implementation.

    Args:
        classes: number of classes.
        width: channels of the first stage; each later stage doubles them.
        stem_stride: stride of the first convolution; 1 keeps the image's resolution at four times the cost.
        max_pool: halve the resolution after the stem; without it every stage costs four times as much.
        frequency_channel: see `FrequencyConv`.
        squeeze_excitation: in every block, with a reduction of 16. J. Hu et al., Squeeze-and-Excitation Networks,
            CVPR 2018.
        stochastic_depth: probability of dropping the last block's branch for a clip in training; it rises linearly
            over the blocks. G. Huang et al., Deep Networks with Stochastic Depth, ECCV 2016.
        pooling: of the last feature maps: ``mean``, or ``mean_max``: the mean over frequency, then the sum of mean and
            maximum over time, as in Q. Kong et al., PANNs, IEEE/ACM TASLP 2020.

    Raises:
        ArgumentError: an argument is invalid.
    """

    def __init__(
        self,
        classes: int,
        width: int = 64,
        stem_stride: int = 2,
        max_pool: bool = True,
        frequency_channel: bool = False,
        squeeze_excitation: bool = False,
        stochastic_depth: float = 0.0,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        if not 1 <= width <= MAX_WIDTH:
            raise ArgumentError(f"`width`={width} must be between 1 and {MAX_WIDTH}; ResNet-18 has 64.")
        if squeeze_excitation and width < 16:
            raise ArgumentError(f"`squeeze_excitation` requires `width`={width} to be at least 16.")
        if stem_stride not in (1, 2):
            raise ArgumentError(f"`stem_stride`={stem_stride} must be 1 or 2.")
        if not 0 <= stochastic_depth < 1:
            raise ArgumentError(f"`stochastic_depth`={stochastic_depth:g} must be at least 0 and below 1.")
        if pooling not in POOLINGS:
            raise ArgumentError(f"`pooling`={pooling} is unknown. Set one of {', '.join(POOLINGS)}.")
        options = {"kernel_size": 7, "stride": stem_stride, "padding": 3, "bias": False}
        self.conv1 = FrequencyConv(2, width, **options) if frequency_channel else nn.Conv2d(1, width, **options)  # type: ignore[arg-type]
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if max_pool else nn.Identity()
        drops = [stochastic_depth * (block + 1) / 8 for block in range(8)]
        excite = squeeze_excitation
        self.layer1 = nn.Sequential(*(Block(width, width, 1, None, excite, drop) for drop in drops[:2]))
        self.layer2 = _downsampling_stage(width, excite, drops[2:4])
        self.layer3 = _downsampling_stage(2 * width, excite, drops[4:6])
        self.layer4 = _downsampling_stage(4 * width, excite, drops[6:])
        self.avgpool = nn.AdaptiveAvgPool2d(1) if pooling == "mean" else MeanMaxPool()
        self.fc = nn.Linear(8 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> list[nn.ModuleList]:
        """Return the six units of freezing and layer decay: the stem, four stages of two blocks, the head."""
        stem = nn.ModuleList([self.conv1, self.bn1])
        return [stem, *(nn.ModuleList([m]) for m in (self.layer1, self.layer2, self.layer3, self.layer4, self.fc))]

    def features(self, image: Tensor) -> Tensor:
        """Compute the last feature maps: (B, 1, M, T) -> (B, 8 * width, M / 32, T / 32) with the default strides."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.features(image)).flatten(1))


def _downsampling_stage(channels: int, excite: bool, drops: list[float]) -> nn.Sequential:
    """Return two blocks that halve the resolution and double the channels."""
    shortcut = nn.Conv2d(channels, 2 * channels, kernel_size=1, stride=2, bias=False)
    first = Block(channels, 2 * channels, 2, nn.Sequential(shortcut, nn.BatchNorm2d(2 * channels)), excite, drops[0])
    return nn.Sequential(first, Block(2 * channels, 2 * channels, 1, None, excite, drops[1]))
