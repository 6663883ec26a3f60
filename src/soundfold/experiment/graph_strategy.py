"""Training of one device by whole iterations, captured as a CUDA graph."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler, LambdaCallback, Timer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import DictConfig
from torch import Tensor
from torch.optim import Optimizer

from soundfold.errors import InputError
from soundfold.experiment.device import print_note
from soundfold.experiment.iteration import CapturedIteration, Iteration
from soundfold.models.averaging import Averaging

# whether `auto` captures; equality with eager steps was measured on one H100 with PyTorch 2.11, without `torch.compile`
AUTO = True
# hooks between the forward pass and the optimizer's step, which a replay does not call
INNER_HOOKS = ("on_before_backward", "on_after_backward", "on_before_zero_grad", "on_before_optimizer_step")
# hooks that take the batch, which is only indices and random numbers; Lightning's callbacks do not read it
BATCH_HOOKS = ("on_train_batch_start", "on_train_batch_end")


class GraphStrategy(SingleDeviceStrategy):
    """Single-device strategy whose training step is an `Iteration`, captured as a CUDA graph on a CUDA device.

    Lightning's loop goes on counting steps, setting the learning rate, and calling callbacks, so that checkpoints equal
    those of other strategies. Where an iteration cannot be captured, the strategy trains as its parent does.

    Args:
        device: to train on; a CPU runs the iteration without a capture.
        averaging: of the weights; None if disabled.
        required: raise an error instead of going on without a graph.

    Raises:
        InputError: the iteration cannot be captured, and ``required``.
        TrainingError: see `CapturedIteration`.
    """

    def __init__(self, device: torch.device, averaging: Averaging | None, required: bool) -> None:
        super().__init__(device)
        self.averaging, self.required = averaging, required
        self._iteration: Iteration | None = None

    def setup(self, trainer: pl.Trainer) -> None:
        super().setup(trainer)
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if obstacle := find_obstacle(trainer):
            if self.required:
                raise InputError(f"trainer.cuda_graph=true is not possible: {obstacle}. Set trainer.cuda_graph=false.")
            print_note(f"training without a CUDA graph: {obstacle}.")
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        model: Any = trainer.lightning_module
        data.yield_indices(True)
        if self.averaging:
            # the weight of a step in `swa` changes from step to step
            self.averaging.in_step = self.averaging.kind == "ema"
        self._trainer, self._data = trainer, data
        self._iteration = Iteration(trainer, model, data, self.optimizers[0], self.averaging)
        is_cuda = self.root_device.type == "cuda"
        self._run = CapturedIteration(self._iteration, self.required) if is_cuda else self._iteration

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        if self._iteration is None:
            return super().training_step(*args, **kwargs)
        (index, numbers), batch_idx = args
        if batch_idx == 0:
            self._iteration.start_epoch()
            self._clips = 0
        loss, image_finite = self._run(index, numbers)
        self._clips += len(index)
        self._log_epoch(batch_idx)
        # Lightning copies the loss
        return {"loss": loss, "image_finite": image_finite.clone()}

    def _log_epoch(self, batch_idx: int) -> None:
        """Log the means of an epoch in its last step, as `Classifier.training_step` does."""
        trainer = self._trainer
        if batch_idx + 1 != trainer.num_training_batches and trainer.global_step + 1 != trainer.max_steps:
            return
        for name, total in zip(("train/loss", "train/accuracy"), self._iteration.totals, strict=True):  # type: ignore[union-attr]
            mean = total / self._clips
            trainer.lightning_module.log(name, mean, on_step=False, on_epoch=True, prog_bar=True, batch_size=1)

    def backward(self, closure_loss: Tensor, optimizer: Optimizer | None, *args: Any, **kwargs: Any) -> Tensor:
        if self._iteration is None:
            return super().backward(closure_loss, optimizer, *args, **kwargs)
        return closure_loss

    def optimizer_step(self, optimizer: Optimizer, closure: Any, model: Any = None, **kwargs: Any) -> Any:
        if self._iteration is None:
            return super().optimizer_step(optimizer, closure, model, **kwargs)
        return closure()

    def teardown(self) -> None:
        if self._iteration is not None:
            if isinstance(self._run, CapturedIteration):
                self._run.release()
            self._data.yield_indices(False)
            self._iteration = None
        super().teardown()


def choose_strategy(cfg: DictConfig, accelerator: str, averaging: Averaging | None) -> GraphStrategy | None:
    """Return the strategy for one device that ``trainer.cuda_graph`` asks for, or None for Lightning's own."""
    wanted = AUTO and cfg.model.compile == "none" if cfg.trainer.cuda_graph == "auto" else cfg.trainer.cuda_graph
    if not wanted or accelerator != "gpu":
        return None
    return GraphStrategy(torch.device("cuda", 0), averaging, required=cfg.trainer.cuda_graph is True)


def find_obstacle(trainer: pl.Trainer) -> str | None:
    """Return why the iterations of a fit cannot be captured, or None."""
    groups = trainer.strategy.optimizers[0].param_groups
    if (parts := trainer.accumulate_grad_batches) > 1:
        return f"trainer.accumulate_grad_batches={parts} accumulates gradients over several calls"
    if trainer.precision == "16-mixed":
        return "trainer.precision=16-mixed reads from the device in each step whether gradients are finite"
    if not trainer.datamodule.reads_on_device:  # type: ignore[attr-defined]
        return "the waveforms are in host memory (data.on_device)"
    if not all(group.get("fused") or group.get("capturable") for group in groups):
        return "the optimizer reads its state from the host (optim.fused=false without optim.capturable=true)"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping) and trainer.val_check_interval != 1.0:
            return "trainer.val_check_interval can end an epoch before its last step"
        if isinstance(callback, EarlyStopping) and trainer.min_steps:
            return "trainer.min_steps can end an epoch before its last step"
        if isinstance(callback, Timer):
            return "the callback Timer can end an epoch before its last step"
        if isinstance(callback, GradientAccumulationScheduler):
            return "the callback GradientAccumulationScheduler accumulates gradients over several calls"
        # a LambdaCallback has the hooks of its user
        known = type(callback).__module__.partition(".")[0] in ("lightning", "soundfold")
        known = known and not isinstance(callback, LambdaCallback)
        for hook in INNER_HOOKS if known else (*INNER_HOOKS, *BATCH_HOOKS):
            if hook in vars(callback) or getattr(type(callback), hook) is not getattr(pl.Callback, hook):
                return f"the callback {type(callback).__name__} has the hook {hook}"
    return None
