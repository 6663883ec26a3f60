"""Check an augmentation against the contract of `Transform`, on a few clips before training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from soundfold.errors import ArgumentError, InputError, is_out_of_memory
from soundfold.features.augment_params import Params, ParamSampler, rows_of
from soundfold.features.transform import STAGES, Transform

CLIPS = 3
# of a clip by itself and in its batch, relative to the largest value: matrix products round by their shape
TOLERANCE = 1e-3


def check_transform(transform: Transform, shapes: dict[str, tuple[int, ...]]) -> None:
    """Draw and apply an augmentation, on the CPU.

    Args:
        transform: the augmentation.
        shapes: of one clip's input, by stage.

    Raises:
        ArgumentError: it breaks the contract; the message is a clause whose subject is its class.
    """
    stage = getattr(transform, "stage", None)
    if stage not in STAGES:
        raise ArgumentError(f"has stage={stage!r}, which must be one of {', '.join(STAGES)}.")
    generator = torch.Generator().manual_seed(0)
    x = _example(stage, (CLIPS, *shapes[stage]), generator)
    before = x.clone()
    where = f"on a batch of stage {stage}, {tuple(x.shape)}"
    try:
        state = generator.get_state()
        params = transform.draw(ParamSampler(CLIPS, generator))
        _check_rows(params)
        redrawn = transform.draw(ParamSampler(CLIPS, generator.set_state(state)))
        out = transform(x, params)
        again = transform(x.clone(), params)
        last = transform(x[-1:].clone(), rows_of(params, slice(CLIPS - 1, None)))
    except InputError:
        raise
    except Exception as error:  # of an arbitrary class
        if is_out_of_memory(error):
            raise
        raise ArgumentError(f"fails {where}: {type(error).__name__}: {str(error).rstrip('.')}.") from error
    if not _are_equal(params, redrawn):
        raise ArgumentError(
            "draws other parameters from a generator of the same state, so a run could not be repeated. Draw with the "
            "methods of the sampler, not with `random` or NumPy."
        )
    _check_output(out, x, where)
    if not torch.equal(x, before):
        raise ArgumentError("modifies the input of `forward`. Compute a new tensor instead.")
    if not torch.equal(out, again):
        raise ArgumentError("returns different results for the same parameters. Draw all random numbers in `draw`.")
    if (out[-1:] - last).abs().max() > TOLERANCE * out.abs().max():
        raise ArgumentError(
            "transforms a clip differently by itself and in a batch. Transform each clip by itself, because devices "
            "and micro-batches split batches."
        )


def _check_rows(params: Params) -> None:
    if isinstance(params, tuple | dict):
        for value in params.values() if isinstance(params, dict) else params:
            _check_rows(value)
    elif params is not None and not (isinstance(params, Tensor) and params.ndim and len(params) == CLIPS):
        shape = f" of shape {tuple(params.shape)}" if isinstance(params, Tensor) else ""
        raise ArgumentError(
            f"draws a {type(params).__name__}{shape} for {CLIPS} clips. Draw tensors with one row per clip, or a tuple "
            "or dict of them."
        )


def _are_equal(params: Params, others: Params) -> bool:
    if isinstance(params, Tensor) and isinstance(others, Tensor):
        return torch.equal(params, others)
    if isinstance(params, dict) and isinstance(others, dict):
        return params.keys() == others.keys() and all(_are_equal(params[key], others[key]) for key in params)
    if isinstance(params, tuple) and isinstance(others, tuple):
        return len(params) == len(others) and all(map(_are_equal, params, others))
    return params is None and others is None


def _check_output(out: Any, x: Tensor, where: str) -> None:
    if not isinstance(out, Tensor):
        raise ArgumentError(f"returns a {type(out).__name__}, not a tensor, {where}.")
    for name in ("shape", "dtype", "device"):
        if (result := getattr(out, name)) != (expected := getattr(x, name)):
            result, expected = (tuple(v) if name == "shape" else v for v in (result, expected))
            raise ArgumentError(f"returns the {name} {result} instead of {expected}, {where}.")
    if not out.isfinite().all():
        raise ArgumentError(f"returns values that are not finite, {where}.")


def _example(stage: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return a typical input: noise at -20 dBFS, its power, a normalized image, or targets of one class."""
    noise = torch.randn(shape, generator=generator)
    if stage == "waveform":
        return 0.1 * noise
    if stage == "targets":
        return torch.eye(shape[1])[torch.arange(shape[0]) % shape[1]]
    return noise.square() if stage == "spectrum" else noise
