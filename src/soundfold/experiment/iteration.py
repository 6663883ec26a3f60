"""A whole training iteration as one function of static tensors, and its capture as a CUDA graph."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from soundfold.data.datamodule import SoundDataModule
from soundfold.errors import TrainingError, is_out_of_memory
from soundfold.experiment.device import print_note
from soundfold.models.averaging import Averaging
from soundfold.models.classifier import Classifier

StepOutputs = tuple[Tensor, Tensor]


@dataclass
class Iteration:
    """One training iteration: read clips, draw, make images, forward, loss, backward, optimizer, weight average.

    It computes what Lightning's loop computes with the same objects. Nothing that changes from one call to the next is
    a Python value: clips, random numbers, learning rates, weights and sums are tensors at fixed addresses, and further
    random numbers come from `generators`. So a CUDA graph of it can be replayed.

    Args:
        trainer: in a fit; its precision and gradient clipping are applied.
        model, data, optimizer: of the fit.
        averaging: its average is updated in the iteration, if its `in_step` is set; None disables it.

    Attributes:
        totals: float32 (2,), sums over the clips since `start_epoch`: loss and hits.
        rates: float32 () per parameter group: the learning rates, see `static_rates`.
    """

    trainer: pl.Trainer
    model: Classifier
    data: SoundDataModule
    optimizer: Optimizer
    averaging: Averaging | None
    totals: Tensor = field(init=False)
    rates: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        device = self.data.device
        self.totals = torch.zeros(2, device=device)
        self.rates = []

    def __call__(self, index: Tensor, numbers: Tensor) -> StepOutputs:
        """Train on a batch, and return its loss, and whether its images are finite: float32 (), bool ().

        Args:
            index: int64 (B,), of its clips.
            numbers: float32 (n,), its random numbers, see `ClipBatches`.
        """
        image, target = self.data.training_batch(index, numbers)
        with self.trainer.precision_plugin.train_step_context():
            logits = self.model.training_logits(image)
            loss = self.model.loss(logits, target)
        # backward allocates the gradients, in a capture at fixed addresses
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.model.configure_gradient_clipping(
            self.optimizer, self.trainer.gradient_clip_val, self.trainer.gradient_clip_algorithm
        )
        self.optimizer.step()
        if self.averages:
            self.averaging.update(self.model)  # type: ignore[union-attr]
        correct = logits.detach().argmax(dim=1) == (target.argmax(dim=1) if target.ndim == 2 else target)
        self.totals += torch.stack([loss.detach(), correct.float().mean()]) * len(index)
        # one pass: the sum of finite images is finite, and that of others is not
        return loss.detach(), image.sum().isfinite()

    @property
    def averages(self) -> bool:
        """Whether the next iteration updates the average of the weights."""
        return self.averaging is not None and self.averaging.in_step and self.averaging.has_started

    def constants(self) -> list[Any]:
        """Return the values that a graph holds constant, and that a callback may change, such as frozen weights."""
        weights = [(weight.data_ptr(), weight.requires_grad) for weight in self.model.network.parameters()]
        modes = [module.training for module in self.model.network.modules()]
        groups = [
            (len(group["params"]), {key: value for key, value in group.items() if key not in ("params", "lr")})
            for group in self.optimizer.param_groups
        ]
        return [weights, modes, groups]

    @property
    def generators(self) -> list[torch.Generator]:
        """The sources of randomness: of the training batches, and of the network's own draws."""
        own = self.data.generator
        return [own, torch.cuda.default_generators[own.device.index or 0]] if own.device.type == "cuda" else [own]

    def start_epoch(self) -> None:
        self.totals.zero_()

    def load_rates(self) -> None:
        """Copy the current learning rates, which the schedule has set in the parameter groups, into `rates`."""
        while len(self.rates) < len(self.optimizer.param_groups):
            self.rates.append(torch.zeros((), device=self.data.device))
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])

    @contextmanager
    def static_rates(self, capturable: bool = False) -> Iterator[None]:
        """Let the optimizer read the learning rates from `rates`.

        The schedule, checkpoints and callbacks go on using plain numbers.

        Args:
            capturable: declare the optimizer capturable, which torch requires within a capture only.
        """
        groups = self.optimizer.param_groups
        original = [dict(group) for group in groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate
            if capturable and "capturable" in group:
                group["capturable"] = True
        try:
            yield
        finally:
            for group, values in zip(groups, original, strict=True):
                group.update(values)


def register_generators(graph: torch.cuda.CUDAGraph, generators: list[torch.Generator]) -> None:
    """Let a graph that will be captured draw from generators, which PyTorch does by itself from 2.14 on."""
    if torch.__version__ < "2.14":
        for generator in generators:
            graph.register_generator_state(generator)


class CapturedIteration:
    """Runs an iteration a few times, then captures it as a CUDA graph and replays it.

    Batches of another size, and iterations that begin to average weights, get a separate graph. After a change of
    `Iteration.constants`, such as weights that a callback freezes, all are captured again. The iterations
    before a capture train as well: they create the optimizer's state, plans and workspaces, which a capture must not.
    A capture itself computes nothing, so a failed one leaves the training as it was.

    Args:
        iteration: on a CUDA device.
        required: raise an error instead of going on without a graph.

    Raises:
        TrainingError: the iteration cannot be captured, and ``required``.
    """

    WARMUP = 3

    def __init__(self, iteration: Iteration, required: bool) -> None:
        self.iteration, self.required = iteration, required
        self.device = iteration.data.device
        # capture is not allowed on the default stream; autograd requires the same stream for the iterations before
        self._stream = torch.cuda.Stream(self.device)
        self._pool = torch.cuda.graph_pool_handle()
        self._runs: Counter[tuple[int, bool]] = Counter()
        self._constants: list[Any] = []
        self._graphs: dict[tuple[int, bool], tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], StepOutputs]] = {}
        self.failure: str | None = None

    def __call__(self, *inputs: Tensor) -> StepOutputs:
        """Train on a batch as `Iteration` does; the next call overwrites the outputs."""
        self.iteration.load_rates()
        if (constants := self.iteration.constants()) != self._constants:
            self._constants = constants
            self._graphs.clear()
            self._runs.clear()
            # torch refuses a pool whose graphs are gone while a tensor in it is still used
            self._pool = torch.cuda.graph_pool_handle()
        key = len(inputs[0]), self.iteration.averages
        if key not in self._graphs and self.failure is None and self._runs[key] >= self.WARMUP:
            self._try_to_capture(key, inputs)
        if key not in self._graphs:
            self._runs[key] += 1
            # a synchronization would fail the capture: find it first
            is_last = self._runs[key] == self.WARMUP and self.failure is None
            return self._run_and_check(*inputs) if is_last else self._run(*inputs)
        graph, static_inputs, outputs = self._graphs[key]
        for static, value in zip(static_inputs, inputs, strict=True):
            static.copy_(value)
        graph.replay()
        return outputs

    def release(self) -> None:
        """Free the graphs and their memory."""
        self._graphs.clear()
        with suppress(RuntimeError):  # of an allocator that a failed capture has left
            torch.cuda.empty_cache()

    def _run(self, *inputs: Tensor) -> StepOutputs:
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream), self.iteration.static_rates():
            outputs = self.iteration(*inputs)
        current.wait_stream(self._stream)
        return outputs

    def _run_and_check(self, *inputs: Tensor) -> StepOutputs:
        """Run the iteration, and look for operations that wait for the device."""
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                outputs = self._run(*inputs)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        for warning in caught:
            if "synchronizing CUDA operation" in str(warning.message):
                self._fail(f"it waits for the device in {warning.filename}, line {warning.lineno}")
                break
        return outputs

    def _try_to_capture(self, key: tuple[int, bool], inputs: tuple[Tensor, ...]) -> None:
        states = [generator.get_state() for generator in self.iteration.generators]
        stream = torch.cuda.current_stream(self.device)
        try:
            self._capture(key, inputs)
        except Exception as error:  # of any operation
            if is_out_of_memory(error) and self.required:
                raise
            # torch leaves the stream of a failed capture current, and the generators' state in its hands
            torch.cuda.set_stream(stream)
            for generator, state in zip(self.iteration.generators, states, strict=True):
                fresh = torch.Generator(self.device)
                fresh.set_state(state)
                generator.graphsafe_set_state(fresh)
            self._fail(str(error).splitlines()[0] if str(error) else type(error).__name__)
        finally:
            # the graph writes its gradients into its own memory, which Lightning must not move
            self.iteration.optimizer.zero_grad(set_to_none=True)

    def _capture(self, key: tuple[int, bool], inputs: tuple[Tensor, ...]) -> None:
        graph, static_inputs = torch.cuda.CUDAGraph(), tuple(value.clone() for value in inputs)
        register_generators(graph, self.iteration.generators)
        capture = torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local")
        with self.iteration.static_rates(capturable=True), capture:
            outputs = self.iteration(*static_inputs)
        self._graphs[key] = graph, static_inputs, outputs

    def _fail(self, reason: str) -> None:
        self.failure = reason
        # those captured before draw from the state that a failed capture replaces
        self._graphs.clear()
        if self.required:
            raise TrainingError(
                f"trainer.cuda_graph=true: a training iteration cannot be captured as a CUDA graph: {reason}. Remove "
                "the operation, or set trainer.cuda_graph=false."
            )
        print_note(f"training without a CUDA graph: {reason}.")
