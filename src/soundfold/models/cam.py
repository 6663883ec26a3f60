"""Class activation maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import gt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CONVOLUTIONS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
ADAPTIVE_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
Size = tuple[int, int]


def class_activation(network: nn.Module, image: Tensor, target: Tensor) -> Tensor | None:
    """Compute class activation maps: images (B, 1, M, T) and classes int64 (B,) -> (B, M, T), in [0, 1].

    The last feature maps are multiplied by the gradient of the class's logit and summed over channels. Where a linear
    layer follows a global pooling, as in ResNet, this is each position's exact contribution to the logit; for other
    heads it is the contribution to first order. Negative contributions are set to 0, and each map is scaled to a
    maximum of 1. A position is drawn at the center of its receptive field, with linear interpolation between
    positions.

    Sources: B. Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016; R. Draelos and
    L. Carin, Use HiResCAM instead of Grad-CAM for Faithful Explanations, arXiv:2011.08891.

    Args:
        network: in evaluation mode; see `soundfold.models.networks`.
        image: of any size that the network takes.
        target: classes.

    Returns:
        The maps; None if the network's last layers have no map over frequency and time, as in a vision transformer.
    """
    with torch.inference_mode(False), torch.enable_grad(), _recorded(network, image.shape) as record:
        score = network(image.clone().requires_grad_()).gather(1, target.clone()[:, None]).sum()
        if record.maps is None or any(map(gt, record.maps.shape[2:], image.shape[2:])):  # or channels come last
            return None
        (gradient,) = torch.autograd.grad(score, record.maps, allow_unused=True)
    if gradient is None:
        return None
    cam = (gradient * record.maps).detach().sum(dim=1).clamp(min=0)
    cam = cam / cam.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    rows, columns = (_interpolation(*axis).to(cam) for axis in record.axes())
    return rows @ cam @ columns.T


class _Record:
    """The last feature maps of a forward pass, and the centers of their positions in the image.

    Attributes:
        maps: (B, C, H, W), the last output over frequency and time; None if there is none.
    """

    def __init__(self, shape: torch.Size) -> None:
        self.batch, self.image = shape[0], _size(shape)
        self.maps: Tensor | None = None
        # by the size after a convolution or pooling: the size before it, and stride and first center of both axes
        self._steps: dict[Size, tuple[Size, list[tuple[float, float]]]] = {}

    def hook(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or output.ndim not in (3, 4) or len(output) != self.batch:
            return
        if output.ndim == 3:
            # tokens of all positions, not a sequence over time
            if self.maps is not None and min(self.maps.shape[2:]) > 1 and output.shape[1] >= self.maps[0, 0].numel():
                self.maps = None
            return
        after = _size(output.shape)
        if max(after) == 1 or isinstance(module, ADAPTIVE_POOLS):
            return
        self.maps = output
        if isinstance(module, CONVOLUTIONS) and after != (before := _size(inputs[0].shape)):
            centers = [_center(module, axis, before[axis], after[axis]) for axis in (0, 1)]
            self._steps.setdefault(after, (before, centers))

    def axes(self) -> list[tuple[int, int, float, float]]:
        """Return positions, pixels, stride and first center of both axes, in pixels of the image."""
        assert self.maps is not None
        maps = _size(self.maps.shape)
        path: list[list[tuple[float, float]]] = []
        size = maps
        while size != self.image and (step := self._steps.pop(size, None)):
            size = step[0]
            path.insert(0, step[1])
        if size != self.image:  # pooled by other layers: positions of equal size
            strides = [pixels / cells for pixels, cells in zip(self.image, maps, strict=True)]
            path = [[(stride, (stride - 1) / 2) for stride in strides]]
        axes = []
        for axis in (0, 1):
            stride, center = 1.0, 0.0
            for step_stride, step_center in (step[axis] for step in path):
                center += stride * step_center
                stride *= step_stride
            axes.append((maps[axis], self.image[axis], stride, center))
        return axes


@contextmanager
def _recorded(network: nn.Module, shape: torch.Size) -> Iterator[_Record]:
    record = _Record(shape)
    handles = [module.register_forward_hook(record.hook) for module in network.modules() if module is not network]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _size(shape: torch.Size) -> Size:
    return shape[-2], shape[-1]


def _center(module: Any, axis: int, before: int, after: int) -> tuple[float, float]:
    """Return the stride of a layer and the center of its first window, in positions of its input."""
    kernel, stride, padding, dilation = (
        _of_axis(getattr(module, name, 1), axis) for name in ("kernel_size", "stride", "padding", "dilation")
    )
    extent = dilation * (kernel - 1) + 1
    if isinstance(padding, str) or (before + 2 * padding - extent) // stride + 1 != after:
        # padded on the fly, as much as the output's size requires
        padding = max((after - 1) * stride + extent - before, 0) // 2
    return stride, (extent - 1) / 2 - padding


def _of_axis(value: Any, axis: int) -> Any:
    return value[axis] if isinstance(value, tuple) else value


def _interpolation(cells: int, pixels: int, stride: float, center: float) -> Tensor:
    """Return linear interpolation between cells centered at pixels center + stride * cell: (pixels, cells)."""
    position = ((torch.arange(pixels) - center) / stride).clamp(0, cells - 1)
    return (1 - (position[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def upsample_cam(cam: Tensor, bands: int, frames: int, covered: int) -> Tensor:
    """Resize the map of one image (1, H, W) to the log-mel that the image was made from: (bands, frames).

    Args:
        covered: frames of the log-mel that the image covers; the map is 0 after them.
    """
    resized = functional.interpolate(cam[None], (bands, covered), mode="bilinear", align_corners=False)[0, 0]
    return functional.pad(resized, (0, max(0, frames - covered)))[:, :frames]
