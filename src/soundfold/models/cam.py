"""Class activation maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from soundfold.models.resnet import MeanMaxPool, ResNet18


@torch.no_grad()
def class_activation(network: ResNet18, image: Tensor, target: Tensor) -> Tensor:
    """Compute class activation maps: images (B, 1, M, T) and classes int64 (B,) -> (B, M, T), in [0, 1].

    The last feature maps are weighted by the class's weights in the linear layer. That layer follows a global pooling,
    so each position's contribution to the logit is exact. Negative contributions are set to 0, and each map is scaled
    to a maximum of 1. Position (h, w) is drawn at band ``stride * h`` and frame ``stride * w``, the center of its
    receptive field, with linear interpolation between positions.

    Source: B. Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016.
    """
    maps = network.features(image)
    if isinstance(network.avgpool, MeanMaxPool):
        maps = network.avgpool.contributions(maps)
    cam = torch.einsum("bchw,bc->bhw", maps, network.fc.weight[target]).clamp(min=0)
    cam = cam / cam.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    rows, columns = (
        _interpolation(cells, pixels, network.stride).to(cam)
        for cells, pixels in zip(cam.shape[1:], image.shape[2:], strict=True)
    )
    return rows @ cam @ columns.T


def _interpolation(cells: int, pixels: int, stride: int) -> Tensor:
    """Return linear interpolation between cells at pixels 0, stride, 2 * stride, ...: (pixels, cells).

    All convolutions and the max pooling have odd kernels and pad half of them, so cell i is centered at pixel
    stride * i.
    """
    position = (torch.arange(pixels) / stride).clamp(max=cells - 1)
    return (1 - (position[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def upsample_cam(cam: Tensor, bands: int, frames: int, covered: int) -> Tensor:
    """Resize the map of one image (1, H, W) to the log-mel that the image was made from: (bands, frames).

    Args:
        covered: frames of the log-mel that the image covers; the map is 0 after them.
    """
    resized = functional.interpolate(cam[None], (bands, covered), mode="bilinear", align_corners=False)[0, 0]
    return functional.pad(resized, (0, max(0, frames - covered)))[:, :frames]
