"""The channels-last memory format, in which convolutions are faster."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def to_channels_last(network: Network) -> Network:
    """Convert the weights of two-dimensional convolutions in place, and return the network.

    The format of an image of one channel is undefined, so these weights determine that of all feature maps.
    `nn.Module.to` would refuse a network that also has three-dimensional convolutions.
    """
    for module in network.modules():
        for weight in module.parameters(recurse=False):
            if weight.ndim == 4:
                # not `contiguous`, which leaves weights of one input channel as they are
                weight.data = weight.data.to(memory_format=torch.channels_last)
    return network
