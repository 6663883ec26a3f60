"""Errors of a fold, explained."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from soundfold.errors import InputError, TrainingError, is_out_of_memory
from soundfold.experiment.device import choose_precision
from soundfold.validation import count_processes


@contextmanager
def explain_oom(cfg: DictConfig, fold: int | None) -> Iterator[None]:
    """Raise `TrainingError` with advice if a device, or the machine, runs out of memory.

    Args:
        cfg: the run's configuration.
        fold: the fold that is being trained.

    Raises:
        TrainingError: the body ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        micro_batches, size = cfg.trainer.accumulate_grad_batches, cfg.data.batch_size
        n_shards = micro_batches * count_processes(cfg)
        advice = ["lower data.batch_size, which changes the recipe"]
        if size >= 8 * n_shards:  # validation requires four clips per micro-batch
            advice = [f"set trainer.accumulate_grad_batches={2 * micro_batches}, which keeps data.batch_size={size}"]
        if choose_precision(cfg) == "32-true":
            advice.append("set trainer.precision=bf16-mixed, which halves the memory of activations")
        advice.append("set data.on_device=false, which keeps the waveforms in host memory")
        raise TrainingError(
            f"Fold {fold or 'none'}: Out of memory with {-(-size // n_shards)} clips at once: "
            f"{_first_sentences(str(error) or type(error).__name__)} Any of these saves memory: {'; '.join(advice)}."
        ) from error


@contextmanager
def explain_misconfiguration() -> Iterator[None]:
    """Raise `InputError` if Lightning, or one of its callbacks, refuses its options in this run."""
    try:
        yield
    except (MisconfigurationException, RuntimeError) as error:
        # `EarlyStopping` raises a RuntimeError for a metric that the run does not have
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        by_callback = frame.f_globals.get("__name__", "").startswith("lightning.pytorch.callbacks")
        if not (by_callback or isinstance(error, MisconfigurationException)):
            raise
        raise InputError(f"Lightning refuses trainer or callbacks: {' '.join(str(error).split())}") from error


def _first_sentences(message: str) -> str:
    """Return the first two sentences; CUDA appends allocator statistics."""
    return f"{'. '.join(message.splitlines()[0].split('. ')[:2]).removesuffix('.')}."
