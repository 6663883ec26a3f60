"""What part of an image speaks for a class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from soundfold.models.resnet import ResNet18


@torch.no_grad()
def class_activation(network: ResNet18, image: Tensor, target: Tensor) -> Tensor:
    """Class activation maps: images (B, 1, M, T) and classes int64 (B,) -> (B, M, T), in [0, 1].

    The last feature maps, weighted by the class's weights in the linear layer: as that layer sees only their average
    over the image, each place's share of the logit can be read off exactly. What speaks against the class is 0, and
    each clip's greatest share is 1.

    Source: B. Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016.
    """
    share = torch.einsum("bchw,bc->bhw", network.features(image), network.fc.weight[target]).clamp(min=0)
    share = share / share.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    return functional.interpolate(share[:, None], image.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def upsample_cam(share: Tensor, bands: int, frames: int, of_image: int) -> Tensor:
    """Activation of an image (1, H, W) laid over the log-mel that the image was made of -> (bands, frames).

    Args:
        of_image: frames of the log-mel that the image covers; beyond them nothing was looked at.
    """
    whole = functional.interpolate(share[None], (bands, of_image), mode="bilinear", align_corners=False)[0, 0]
    return functional.pad(whole, (0, max(0, frames - of_image)))[:, :frames]
