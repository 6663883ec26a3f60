"""The contract of an augmentation: it draws its parameters for a batch, then applies them at one stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from soundfold.features.augment_params import Params, ParamSampler
from soundfold.features.readable import is_readable
from soundfold.features.recordings import Recordings

# "axes" is for time stretch and pitch shift only, see `soundfold.features.spectrum`
Stage = Literal["waveform", "spectrum", "axes", "image", "targets"]
# the stages of a user's augmentation
STAGES = ("waveform", "spectrum", "image", "targets")
N_EXAMPLES = 2


class Transform(nn.Module, ABC):
    """An augmentation of training clips.

    A subclass sets `stage`, which determines the input of `forward`, float32 with one row per clip:

    - ``waveform``: (B, N), nominally in [-1, 1]; N is at most the length of a clip, and less with random crops;
    - ``spectrum``: (B, F, T), the power spectrum, before stretch, shift and mel bank;
    - ``image``: (B, 1, M, T), normalized, as the network receives it;
    - ``targets``: (B, C), the probabilities of the classes, after mixing.

    `draw` is the only random step; all random numbers come from its argument, so a seed determines every image. The
    uniform numbers of an epoch are drawn at once, as many as `draw` takes when training is set up. If it takes more in
    a batch, further ones come from ``sampler.generator``, which also serves for other distributions and for noise.
    `forward` applies what was drawn. It returns its input's shape, dtype and device, does not modify its input, and
    transforms each clip by itself: devices, micro-batches and a CPU, which processes clips one by one, split the batch.
    On an accelerator a step that reads a value (``.item()``, ``.cpu()``, ``if tensor:``) waits for the device, so
    `forward` should not. Constant tensors are buffers (`register_buffer`), which follow the module to its device.
    `check_transform` tries the class on three clips before training.

    The configuration names the class in an entry of ``augment.extra``, with its keyword arguments. ``p`` is not passed
    on: it is the share of clips that the augmentation is applied to (default 1); the others stay as they are.
    ``sample_rate`` (Hz) and ``samples`` (length of a clip) are passed if the constructor has these arguments. The
    entries follow the augmentations of this package, in the order of the configuration, both in each stage and in the
    random numbers.

    Example:
        A class in ``distortion.py``:

        >>> from soundfold.features.augment_params import Uniform
        >>> class Clipping(Transform):
        ...     stage = "waveform"
        ...
        ...     def __init__(self, low: float = 0.1, high: float = 1.0) -> None:
        ...         super().__init__()
        ...         self.level = Uniform(low, high)
        ...
        ...     def draw(self, sampler: ParamSampler) -> Tensor:
        ...         return sampler.value(self.level)
        ...
        ...     def forward(self, wave: Tensor, level: Tensor) -> Tensor:
        ...         bound = (level * wave.abs().amax(dim=1))[:, None]
        ...         return wave.clamp(-bound, bound)
        >>> clipping = Clipping(low=0.5, high=0.5)
        >>> level = clipping.draw(ParamSampler(2, Generator().manual_seed(0)))
        >>> clipping(torch.tensor([[0.1, -0.2], [0.8, 0.3]]), level)
        tensor([[ 0.1000, -0.1000],
                [ 0.4000,  0.3000]])

        Its entry in ``conf/augment/mine.yaml``::

            defaults: [strong]
            extra:
              clipping: {_target_: distortion.Clipping, low: 0.2, p: 0.5}

    Attributes:
        stage: see above.
        recordings: that `forward` uses, if any. They count for a run's identity and must not be of a scored clip.
    """

    stage: Stage
    recordings: Recordings | None = None

    @abstractmethod
    def draw(self, sampler: ParamSampler) -> Params:
        """Draw the parameters of a batch of ``sampler.clips`` clips, on ``sampler.device``.

        Returns:
            A tensor of B rows, a tuple or dict of such tensors, or None.
        """

    @abstractmethod
    def forward(self, x: Any, params: Any) -> Any:
        """Apply the parameters to the input of the stage, row by row."""

    def examples(self, name: str) -> list[tuple[str, Params]]:
        """Return labels and parameters of one clip that show the effect, for the gallery of ``explore``.

        Args:
            name: of the augmentation in the configuration.
        """
        sampler = ParamSampler(1, Generator().manual_seed(0))
        return [(f"{name}, example {i}", self.draw(sampler)) for i in range(1, N_EXAMPLES + 1)]


class RandomApply(Transform):
    """Applies an augmentation to a share of the clips; the others stay as they are.

    Args:
        transform: the augmentation.
        p: share of the clips.
    """

    def __init__(self, transform: Transform, p: float = 1.0) -> None:
        super().__init__()
        self.transform, self.p = transform, p
        self.stage, self.recordings = transform.stage, transform.recordings

    def draw(self, sampler: ParamSampler) -> Params:
        return sampler.hit(self.p), self.transform.draw(sampler)

    def forward(self, x: Tensor, params: tuple[Tensor, Params]) -> Tensor:
        hit, inner = params
        if is_readable(x) and not hit.any():
            return x
        return torch.where(hit.view(-1, *[1] * (x.ndim - 1)), self.transform(x, inner), x)

    def examples(self, name: str) -> list[tuple[str, Params]]:
        return [(label, (torch.ones(1, dtype=torch.bool), params)) for label, params in self.transform.examples(name)]
