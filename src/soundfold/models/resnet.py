"""A one-channel ResNet-18 of torchvision's blocks, and the weights that it may start from."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights
from torchvision.models.resnet import BasicBlock
from torchvision.ops import SqueezeExcitation, StochasticDepth

from soundfold.errors import InputError
from soundfold.io.checkpoints import load_checkpoint

STEMS = ("sum", "random")
MOST_WIDTH = 1024  # 2.9e9 weights
STAGES = 6  # stem, four of two blocks each, head


class Block(BasicBlock):
    """torchvision's residual block, whose branch may be reweighted by channel and left out at random in training."""

    def __init__(
        self, inplanes: int, planes: int, stride: int, downsample: nn.Module | None, excite: bool, drop: float
    ) -> None:
        super().__init__(inplanes, planes, stride, downsample)
        self.excite = SqueezeExcitation(planes, planes // 16) if excite else nn.Identity()
        self.drop = StochasticDepth(drop, "row") if drop else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.bn1(self.conv1(x)))
        branch = self.drop(self.excite(self.bn2(self.conv2(branch))))
        return self.relu(branch + (x if self.downsample is None else self.downsample(x)))


class FrequencyConv(nn.Conv2d):
    """A convolution that sees, beside the image (B, 1, M, T), each row's place, -1 lowest to 1 highest.

    A convolution alone cannot tell a low band from a high one.
    """

    def forward(self, image: Tensor) -> Tensor:
        place = torch.linspace(-1, 1, image.shape[-2], device=image.device, dtype=image.dtype)
        return super().forward(torch.cat([image, place[:, None].expand_as(image)], dim=1))


class ResNet18(nn.Module):
    """ResNet-18 with a one-channel 7x7 stem: images (B, 1, M, T) -> logits (B, classes).

    With the defaults it is torchvision's, weight by weight, under the same names.

    Source: K. He et al., Deep Residual Learning for Image Recognition, CVPR 2016; torchvision's implementation.

    Args:
        classes: number of classes.
        width: channels of the first stage; each later one has twice as many as the one before.
        stem_stride: of the first convolution; 1 keeps the image's resolution, at four times the operations.
        max_pool: halve the resolution after the stem; without it every stage sees four times the places.
        frequency_channel: see `FrequencyConv`.
        squeeze_excitation: J. Hu et al., Squeeze-and-Excitation Networks, CVPR 2018; in each block, reduced by 16.
        stochastic_depth: chance of the last block's branch to be left out for a clip in training; from the first on it
            rises evenly. G. Huang et al., Deep Networks with Stochastic Depth, ECCV 2016.

    Raises:
        InputError: a value outside its rule.
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
    ) -> None:
        super().__init__()
        if not 1 <= width <= MOST_WIDTH:
            raise InputError(f"model.width={width} must be at least 1 and at most {MOST_WIDTH}; 64 is ResNet-18's.")
        if squeeze_excitation and width < 16:
            raise InputError(f"model.squeeze_excitation needs model.width={width} to be at least 16.")
        if stem_stride not in (1, 2):
            raise InputError(f"model.stem_stride={stem_stride} must be 1 or 2.")
        if not 0 <= stochastic_depth < 1:
            raise InputError(f"model.stochastic_depth={stochastic_depth:g} must be at least 0 and below 1.")
        options = {"kernel_size": 7, "stride": stem_stride, "padding": 3, "bias": False}
        self.conv1 = FrequencyConv(2, width, **options) if frequency_channel else nn.Conv2d(1, width, **options)  # type: ignore[arg-type]
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1) if max_pool else nn.Identity()
        drops = [stochastic_depth * (block + 1) / 8 for block in range(8)]
        excite = squeeze_excitation
        self.layer1 = nn.Sequential(*(Block(width, width, 1, None, excite, drop) for drop in drops[:2]))
        self.layer2 = _halved(width, excite, drops[2:4])
        self.layer3 = _halved(2 * width, excite, drops[4:6])
        self.layer4 = _halved(4 * width, excite, drops[6:])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> list[nn.ModuleList]:
        """What freezing and a learning rate by depth count: the stem, four stages of two blocks each, the head."""
        stem = nn.ModuleList([self.conv1, self.bn1])
        return [
            stem,
            *(nn.ModuleList([part]) for part in (self.layer1, self.layer2, self.layer3, self.layer4, self.fc)),
        ]

    def features(self, image: Tensor) -> Tensor:
        """The last stage's maps: (B, 1, M, T) -> (B, 8 * width, M / 32, T / 32), with the default strides."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.features(image)).flatten(1))


def _halved(channels: int, excite: bool, drops: list[float]) -> nn.Sequential:
    """Two blocks: half the resolution, twice the channels."""
    shortcut = nn.Conv2d(channels, 2 * channels, kernel_size=1, stride=2, bias=False)
    first = Block(channels, 2 * channels, 2, nn.Sequential(shortcut, nn.BatchNorm2d(2 * channels)), excite, drops[0])
    return nn.Sequential(first, Block(2 * channels, 2 * channels, 1, None, excite, drops[1]))


def single_channel_resnet18(classes: int, weights: str = "none", stem: str = "sum", **architecture: Any) -> ResNet18:
    """A ResNet-18 that starts from the weights that are named.

    Args:
        classes: number of classes.
        weights: ``none`` (random), ``imagenet`` (torchvision's IMAGENET1K_V1, from its cache or the network), or the
            path of a file of weights: a state dict of ResNet-18 with three channels or one, or what a finished fold
            keeps. A head of another number of classes is refused, unless the file is ImageNet's (1,000 classes).
        stem: with three-channel weights: ``sum`` of the three colour kernels, so that a grey image gives the response
            that it would as colour; or ``random``.
        architecture: see `ResNet18`.

    Raises:
        InputError: the weights cannot be had or do not fit.
    """
    if stem not in STEMS:
        raise InputError(f"model.stem={stem} is unknown; give one of {', '.join(STEMS)}.")
    network = ResNet18(classes, **architecture)
    if weights == "none":
        return network
    state = _imagenet() if weights == "imagenet" else _from_file(Path(weights))
    kernel = state.get("conv1.weight")
    if kernel is not None and kernel.ndim == 4 and kernel.shape[1] == 3:
        grey = kernel.sum(dim=1, keepdim=True)
        # the place of a row says nothing yet
        blank = torch.zeros_like(grey).expand(-1, network.conv1.in_channels - 1, -1, -1)
        state["conv1.weight"] = torch.cat([grey, blank], dim=1) if stem == "sum" else network.conv1.weight.data
    head = state.get("fc.weight")
    if head is not None and len(head) != classes:
        if len(head) != 1000:
            raise InputError(
                f"model.weights={weights} was trained for {len(head)} classes and the data has {classes}. "
                "Give weights of the same classes, model.weights=imagenet, or model.weights=none."
            )
        state |= {name: value for name, value in network.state_dict().items() if name.startswith("fc.")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise InputError(f"model.weights={weights} are not those of a ResNet-18: {first}") from error
    return network


def weights_digest(weights: str) -> str:
    """What identifies the weights: the name, or the SHA-256 of the file.

    Raises:
        InputError: the file does not exist.
    """
    if weights in ("none", "imagenet"):
        return weights
    try:
        # a pipe or a device might never answer
        if not Path(weights).is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with Path(weights).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"model.weights={weights} cannot be read ({error.strerror}). Give imagenet, none, or the path of a file."
        ) from error


def _imagenet() -> dict[str, Tensor]:
    try:
        return dict(ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        cache = Path(os.environ.get("TORCH_HOME", "~/.cache/torch")) / "hub" / "checkpoints"
        raise InputError(
            f"model.weights=imagenet: the weights are neither in {cache} nor could they be downloaded ({error}). "
            f"Put {Path(ResNet18_Weights.IMAGENET1K_V1.url).name} there, give model.weights=PATH of a copy, or train "
            "from scratch with model.weights=none."
        ) from error


def _from_file(path: Path) -> dict[str, Tensor]:
    weights_digest(str(path))
    try:
        found = load_checkpoint(path)
    except Exception as error:  # torch raises many kinds for a file that is not one of its own
        # torch's own words advise to load it unsafely
        raise InputError(
            f"model.weights={path} is not a file of weights that torch reads safely ({type(error).__name__})."
        ) from error
    state = found.get("network", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"model.weights={path} holds no state dict of a network.")
    return dict(state)
