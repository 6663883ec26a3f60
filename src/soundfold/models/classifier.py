"""The training, validation and test steps of an image classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from soundfold.errors import ArgumentError
from soundfold.models.compilation import compile_function
from soundfold.models.memory_format import to_channels_last
from soundfold.models.metrics import default_metrics, score_clips
from soundfold.models.networks import stages
from soundfold.models.optim import check_schedule, parameter_groups, warmup_and_decay
from soundfold.models.scoring import clip_logits

LOSSES = ("cross_entropy", "binary")


class Classifier(pl.LightningModule):
    """Cross entropy on images (B, 1, M, T), with hard targets int64 (B,) or soft targets (B, C).

    In validation and test a clip may be K consecutive images; its logits are their mean. With several devices, each
    trains and scores its slice of the clips; logged values cover all of them. See `SoundDataModule`.

    Args:
        network: images -> logits (B, C).
        classes: C.
        optimizer: returns an optimizer of parameter groups, such as ``partial(torch.optim.AdamW, lr=1e-3)``.
        decay, warmup: see `warmup_and_decay`.
        label_smoothing: in [0, 1); applied to clips that are not mixed.
        loss: ``cross_entropy``, or ``binary``: one logistic regression per class against the same soft targets, so that
            a mixture may contain several classes. Predictions are the softmax of the logits with both.
        class_weights: (C,), of each class's term in the training loss; None: 1 for all. They multiply the cross entropy
            of a clip by the weight of its class, or of a mixed clip each class's share of it, and the positive terms of
            the binary loss. The loss is the mean over clips, also of a batch with soft targets, as
            ``torch.nn.functional.cross_entropy`` computes for these; for hard ones it would divide by the weights of
            the batch, so that the gradient would depend on how a batch is divided among devices.
        frozen_stages: number of the network's stages, from the stem, whose weights and batch statistics are frozen; see
            `soundfold.models.networks`.
        layer_decay: see `parameter_groups`; applied by the network's stages.
        channels_last: memory format of the network's weights, see `to_channels_last`.
        compile: mode of the training step, see `compile_function`. Validation and test run uncompiled: compiling again
            for other batch sizes, another mode and another precision costs more than it saves.
        metrics: of validation and test clips by name, see `score_clips`; None: macro F1 and top-5 accuracy.

    Raises:
        ArgumentError: an argument is invalid.

    Attributes:
        logits, targets, clips: float32 (n, C), int64 (n,) and int64 (n,) of the clips of the last test, in order of
            scoring; with several devices, in the order of the table.
        measure_gradient: compute `gradient_norm` in every training step.
        gradient_norm: float32 (), L2 norm of the gradient of the last step before clipping; always the same tensor.
    """

    class_weights: Tensor | None
    gradient_norm: Tensor

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        optimizer: Callable[[list[dict]], Optimizer],
        decay: str = "cosine",
        warmup: float = 0.05,
        label_smoothing: float = 0.0,
        loss: str = "cross_entropy",
        class_weights: Sequence[float] | None = None,
        frozen_stages: int = 0,
        layer_decay: float = 1.0,
        channels_last: bool = False,
        compile: str = "none",
        metrics: Mapping[str, Metric] | None = None,
    ) -> None:
        super().__init__()
        check_schedule(decay, warmup)
        if not 0 <= label_smoothing < 1:
            raise ArgumentError(f"`label_smoothing`={label_smoothing:g} must be at least 0 and below 1.")
        if loss not in LOSSES:
            raise ArgumentError(f"`loss`={loss} is unknown. Set one of {', '.join(LOSSES)}.")
        most = len(stages(network, "frozen_stages")) - 1 if frozen_stages else 0
        if not 0 <= frozen_stages <= most:
            raise ArgumentError(
                f"`frozen_stages`={frozen_stages} must be between 0 and {most}: the head is always trained."
            )
        if not 0 < layer_decay <= 1:
            raise ArgumentError(
                f"`layer_decay`={layer_decay:g} must be above 0 and at most 1 (the same learning rate everywhere)."
            )
        if layer_decay < 1:
            stages(network, "layer_decay")
        self.classes, self.optimizer = classes, optimizer
        self.decay, self.warmup, self.layer_decay = decay, warmup, layer_decay
        self.label_smoothing, self.loss_kind, self.frozen_stages = label_smoothing, loss, frozen_stages
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        # not part of checkpoints: the configuration and the fold determine it
        self.register_buffer("class_weights", weights, persistent=False)
        self.network = to_channels_last(network) if channels_last else network
        # a module, so checkpoints list its weights twice; files store them once
        self._training_network: Callable[[Tensor], Tensor] = compile_function(self.network, compile)
        for stage in self._frozen:
            stage.requires_grad_(False)
        self.metrics = default_metrics(classes) if metrics is None else dict(metrics)
        self.logits = torch.empty(0)
        self.targets = self.clips = torch.empty(0, dtype=torch.int64)
        self._scored: list[tuple[Tensor, Tensor, Tensor]] = []
        self.measure_gradient = False
        self.register_buffer("gradient_norm", torch.zeros(()), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, C) of images (B, 1, M, T)."""
        return self.network(image)

    def training_logits(self, image: Tensor) -> Tensor:
        """Return logits as `forward` does, from the compiled network."""
        return self._training_network(image)

    def training_step(self, batch: tuple, batch_idx: int) -> Tensor:
        image, target, _, *weight = batch
        logits = self.training_logits(image)
        loss = self.loss(logits, target)
        # a plain mean: the forward of a torchmetrics metric computes twice
        correct = logits.detach().argmax(dim=1) == (target.argmax(dim=1) if target.ndim == 2 else target)
        options = {"on_step": False, "prog_bar": True, **_epoch_mean(target)}
        self.log("train/loss", loss, **options)
        self.log("train/accuracy", correct.float().mean(), **options)
        # the weight corrects for micro-batches of unequal size
        return loss * weight[0] if weight and weight[0] != 1 else loss

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the training loss of logits (B, C), with hard targets smoothed: a mean over the clips.

        The binary loss is a sum over the classes, so that both kinds have gradients of a similar size.
        """
        if not self.label_smoothing and self.loss_kind == "cross_entropy":
            return self._cross_entropy(logits, target)
        soft = functional.one_hot(target, self.classes).float() if target.ndim == 1 else target
        if self.label_smoothing:
            is_hard = soft.amax(dim=1, keepdim=True) == 1
            smooth = torch.lerp(soft, torch.full_like(soft, 1 / self.classes), self.label_smoothing)
            soft = torch.where(is_hard, smooth, soft)
        if self.loss_kind == "cross_entropy":
            return self._cross_entropy(logits, soft)
        total = functional.binary_cross_entropy_with_logits(
            logits, soft, reduction="sum", pos_weight=self.class_weights
        )
        return total / len(logits)

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.class_weights is None:
            return functional.cross_entropy(logits, target)
        return functional.cross_entropy(logits, target, self.class_weights, reduction="none").mean()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Measure the gradient, then clip it as Lightning does, in bfloat16 also that of a fused optimizer.

        Lightning refuses the latter in every mixed precision, but only gradients in float16 are scaled.
        """
        if self.measure_gradient:
            gradients = [weight.grad for weight in self.network.parameters() if weight.grad is not None]
            # in place: a CUDA graph writes to the address that it was captured with
            self.gradient_norm.copy_(nn.utils.get_total_norm(gradients))
        plugin = self.trainer.precision_plugin
        if not isinstance(plugin, MixedPrecision) or plugin.scaler is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val and gradient_clip_algorithm == "value":
            plugin.clip_grad_by_value(optimizer, gradient_clip_val)
        elif gradient_clip_val:
            plugin.clip_grad_by_norm(optimizer, gradient_clip_val)

    def train(self, mode: bool = True) -> Classifier:
        """Set the mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        for stage in self._frozen:
            stage.eval()
        return self

    @property
    def _frozen(self) -> list[nn.Module]:
        # not cached: SyncBatchNorm replaces the network's norms
        return stages(self.network, "frozen_stages")[: self.frozen_stages] if self.frozen_stages else []

    def _clip_logits(self, image: Tensor, target: Tensor) -> Tensor:
        return clip_logits(self, image, per_clip=len(image) // len(target))

    def on_validation_epoch_start(self) -> None:
        self._scored.clear()

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        image, target, clip = batch
        logits = self._clip_logits(image, target)
        self._scored.append((logits, target, clip))
        self.log("val/loss", functional.cross_entropy(logits, target), prog_bar=True, **_epoch_mean(target))

    def on_validation_epoch_end(self) -> None:
        logits, targets, _ = self._gather_scored()
        self._log_scores("val", score_clips(self.metrics, logits, targets))

    def on_test_epoch_start(self) -> None:
        self._scored.clear()

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        image, target, clip = batch
        logits = self._clip_logits(image, target)
        self._scored.append((logits, target, clip))
        self.log("test/loss", functional.cross_entropy(logits, target), **_epoch_mean(target))

    def on_test_epoch_end(self) -> None:
        self.logits, self.targets, self.clips = self._gather_scored()
        self._log_scores("test", score_clips(self.metrics, self.logits, self.targets))

    def _gather_scored(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, targets and indices of the clips scored on all devices, in the memory of the host."""
        scored = [torch.cat(batches) for batches in zip(*self._scored, strict=True)]
        if self.trainer.world_size > 1:
            # unlike all_gather, it accepts ranks with different numbers of clips
            scored = [torch.cat(gather_all_tensors(values)) for values in scored]
            order = scored[-1].argsort()
            scored = [values[order] for values in scored]
        logits, targets, clips = (values.cpu() for values in scored)
        return logits, targets, clips

    def _log_scores(self, stage: str, scores: dict[str, float]) -> None:
        # every rank has the same values, of which sync_dist takes the mean
        for name, value in scores.items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "accuracy", sync_dist=True)

    def configure_optimizers(self) -> Any:
        units = [self.network] if self.layer_decay == 1 else stages(self.network, "layer_decay")
        optimizer = self.optimizer(parameter_groups(units, self.layer_decay))
        for group in optimizer.param_groups:
            group["lr"] *= group["lr_scale"]
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = warmup_and_decay(optimizer, steps, self.decay, self.warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _epoch_mean(target: Tensor) -> dict[str, Any]:
    """Return logging options that average a batch mean over the clips of an epoch on all devices."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    # Lightning divides the summed batch size by the number of devices, rounding down
    return {
        "on_epoch": True,
        "sync_dist": True,
        "batch_size": len(target) * (torch.distributed.get_world_size() if distributed else 1),
    }
