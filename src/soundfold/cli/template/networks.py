"""Networks: from images (B, 1, M, T) of M mel bands and T frames to logits (B, C)."""

from itertools import pairwise

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three convolutional stages, the mean over bands and frames, and a linear layer.

    Args:
        classes: number of classes C, from the collection.
        width: channels of the first stage; each further stage has twice as many.
        dropout: probability before the linear layer.
    """

    def __init__(self, classes: int, width: int = 32, dropout: float = 0.2) -> None:
        super().__init__()
        channels = (1, width, 2 * width, 4 * width)
        self.body = nn.Sequential(*(_stage(*pair) for pair in pairwise(channels)))
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels[-1], classes))

    def forward(self, image: Tensor) -> Tensor:
        features = self.body(image)  # (B, 4 width, M / 8, T / 8)
        return self.head(features.mean(dim=(2, 3)))

    def stages(self) -> list[nn.Module]:
        """Return the modules from input to head, for model.layer_decay and model.frozen_stages; optional."""
        return [*self.body, self.head]


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))
