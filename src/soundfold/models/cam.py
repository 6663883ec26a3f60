"""Class activation maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from soundfold.models.resnet import ResNet18


@torch.no_grad()
def class_activation(network: ResNet18, image: Tensor, target: Tensor) -> Tensor:
    """Compute class activation maps: images (B, 1, M, T) and classes int64 (B,) -> (B, M, T), in [0, 1].

    The last feature maps are weighted by the class's weights in the linear layer. That layer follows a global average,
    so each position's contribution to the logit is exact. Negative contributions are set to 0, and each map is scaled
    to a maximum of 1.

    Source: B. Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016.
    """
    cam = torch.einsum("bchw,bc->bhw", network.features(image), network.fc.weight[target]).clamp(min=0)
    cam = cam / cam.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    return functional.interpolate(cam[:, None], image.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def upsample_cam(cam: Tensor, bands: int, frames: int, covered: int) -> Tensor:
    """Resize the map of one image (1, H, W) to the log-mel that the image was made from: (bands, frames).

    Args:
        covered: frames of the log-mel that the image covers; the map is 0 after them.
    """
    resized = functional.interpolate(cam[None], (bands, covered), mode="bilinear", align_corners=False)[0, 0]
    return functional.pad(resized, (0, max(0, frames - covered)))[:, :frames]
