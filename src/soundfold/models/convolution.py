"""A 3x3 convolution that is faster on a CPU where feature maps are small."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

MAX_POSITIONS = 16  # of an output map; measured: 4 times as fast at 8, twice at 16, no gain at 32, in bfloat16
MIN_CHANNELS = 256  # of the input; not measured with fewer on such maps


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with padding 1 and without bias, equal to `torch.nn.Conv2d` up to rounding.

    The last stage of ResNet-18 makes maps of few positions with many channels: 512 x 2 x 4 for images of 64 x 126. For
    them oneDNN reaches a few percent of a core's speed, above all for the gradient of the weights. As one matrix
    product, the same convolution takes a quarter of the time in bfloat16 with AMX, and two thirds in float32. Used
    for such maps in channels-last format on a CPU; elsewhere, and in exports, this is `torch.nn.Conv2d`.

    >>> Conv3x3(256, 512, stride=2)(torch.zeros(1, 256, 4, 8)).shape
    torch.Size([1, 512, 2, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        return self._as_product(maps) if self._is_small(maps) else super().forward(maps)

    def _is_small(self, maps: Tensor) -> bool:
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or maps.device.type != "cpu":
            return False
        stride = self.stride[0]
        positions = ((maps.shape[2] - 1) // stride + 1) * ((maps.shape[3] - 1) // stride + 1)
        few = positions <= MAX_POSITIONS and self.in_channels >= MIN_CHANNELS
        return few and maps.is_contiguous(memory_format=torch.channels_last)

    def _as_product(self, maps: Tensor) -> Tensor:
        """Multiply a row per output position, its 3x3 neighborhood of all channels, by the weights."""
        stride, (height, width) = self.stride[0], maps.shape[2:]
        padded = functional.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        shifted = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return functional.linear(torch.cat(shifted, dim=-1), weight).permute(0, 3, 1, 2)
