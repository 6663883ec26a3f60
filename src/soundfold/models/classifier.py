"""The training, validation and test steps of a classifier of images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score
from torchmetrics.utilities.distributed import gather_all_tensors

from soundfold.errors import InputError
from soundfold.models.compilation import compile_function
from soundfold.models.optim import check_schedule, parameter_groups, warmup_and_decay
from soundfold.models.resnet import STAGES


class Classifier(pl.LightningModule):
    """Cross entropy on images (B, 1, M, T), with hard targets int64 (B,) or soft ones (B, C).

    A clip that is validated or scored may be K images, one after the other: its logits are their mean. Of several
    devices each trains and scores its share of the clips; figures are of all of them. See `SoundDataModule`.

    Args:
        network: images -> logits (B, C).
        classes: C.
        optimizer: from parameter groups to an optimiser, such as ``partial(torch.optim.AdamW, lr=1e-3)``.
        decay, warmup: see `warmup_and_decay`.
        label_smoothing: in [0, 1); of training clips that are not mixed, whose targets are certain.
        frozen_stages: so many of the network's `stages`, from the stem on, keep their weights and batch statistics.
        layer_decay: see `parameter_groups`; a part is one of the network's `stages`.
        channels_last: memory format of network and images.
        compile: how the network is trained, see `compile_function`. Validation and scoring run uncompiled:
            compiling again for other batch sizes, another mode and another precision costs more than it gains.

    Raises:
        InputError: a value outside its rule.

    Attributes:
        logits, clips: float32 (n, C) and int64 (n,) of the clips scored by the last test, in order of scoring; where
            several devices scored them, in the table's order.
        test_metrics: accuracy, macro F1, top-5 accuracy and confusion matrix (rows are true classes) of the last test.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        optimizer: Callable[[list[dict]], Optimizer],
        decay: str = "cosine",
        warmup: float = 0.05,
        label_smoothing: float = 0.0,
        frozen_stages: int = 0,
        layer_decay: float = 1.0,
        channels_last: bool = False,
        compile: str = "none",
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last) if channels_last else network
        self.compile_kind = compile
        self._trained: Callable[[Tensor], Tensor] = compile_function(self.network, compile)
        self.optimizer, self.decay, self.warmup = optimizer, decay, warmup
        self.label_smoothing, self.channels_last, self.layer_decay = label_smoothing, channels_last, layer_decay
        if not 0 <= frozen_stages < STAGES:
            raise InputError(
                f"model.frozen_stages={frozen_stages} must be 0 to {STAGES - 1}: the head is always trained."
            )
        if not 0 < layer_decay <= 1:
            raise InputError(f"model.layer_decay={layer_decay:g} must be above 0 and at most 1 (one rate for all).")
        check_schedule(decay, warmup)
        if not 0 <= label_smoothing < 1:
            raise InputError(f"model.label_smoothing={label_smoothing:g} must be at least 0 and below 1.")
        self.frozen_stages = frozen_stages
        for part in self._frozen:
            part.requires_grad_(False)
        self.classes = classes
        # every class counts, seen or not: a fold may lack one
        scores: dict[str, Metric | MetricCollection] = {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "f1": MulticlassF1Score(classes, average="macro"),
        }
        top5 = MulticlassAccuracy(classes, average="micro", top_k=min(5, classes))
        # without compute groups: torchmetrics merges those whose states are equal after the first batch, and accuracy
        # and top-5 are equal wherever that batch is all right
        self.val_metrics = MetricCollection(scores, prefix="val/", compute_groups=False).clone()
        self.test_metrics = MetricCollection({**scores, "top5": top5}, prefix="test/", compute_groups=False)
        self.confusion = MulticlassConfusionMatrix(classes)
        self.logits, self.clips = torch.empty(0), torch.empty(0, dtype=torch.int64)
        self._scored: list[tuple[Tensor, Tensor]] = []

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, C) of images (B, 1, M, T)."""
        return self.network(self._laid_out(image))

    def training_logits(self, image: Tensor) -> Tensor:
        """As `forward`, by the network as it was compiled."""
        return self._trained(self._laid_out(image))

    def _laid_out(self, image: Tensor) -> Tensor:
        return image.contiguous(memory_format=torch.channels_last) if self.channels_last else image

    def training_step(self, batch: tuple, batch_idx: int) -> Tensor:
        image, target, _, *weight = batch
        logits = self.training_logits(image)
        loss = self.loss(logits, target)
        # sums on the device: a metric's own step would compute, and reset, twice over
        hits = logits.detach().argmax(dim=1) == (target.argmax(dim=1) if target.ndim == 2 else target)
        shown = {"on_step": False, "prog_bar": True, **_of_all_devices(target)}
        self.log("train/loss", loss, **shown)
        self.log("train/accuracy", hits.float().mean(), **shown)
        return loss * weight[0] if weight and weight[0] != 1 else loss  # of an uneven share of a batch

    def on_train_batch_end(self, *_: Any) -> None:
        if self.compile_kind == "graphs":
            # what a graph wrote may not be read once another is replayed, and Lightning moves gradients off the device
            # wherever a fit ends
            self.zero_grad(set_to_none=True)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """What training minimises, of logits (B, C): the mean cross entropy, targets that are certain smoothed."""
        if not self.label_smoothing:
            return functional.cross_entropy(logits, target)
        soft = functional.one_hot(target, self.classes).float() if target.ndim == 1 else target
        certain = soft.amax(dim=1, keepdim=True) == 1
        smooth = torch.lerp(soft, torch.full_like(soft, 1 / self.classes), self.label_smoothing)
        return functional.cross_entropy(logits, torch.where(certain, smooth, soft))

    def _clips(self, image: Tensor, target: Tensor) -> Tensor:
        """Logits (B, C) of clips of which each is one or several images (B * K, 1, M, T): their mean.

        In float32 whatever training's precision: a model scores as it will predict.
        """
        with torch.autocast(image.device.type, enabled=False):
            return self(image).view(len(target), -1, self.classes).mean(dim=1)

    def train(self, mode: bool = True) -> Classifier:
        """What is frozen stays as in evaluation."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    @property
    def _frozen(self) -> list[nn.Module]:
        # asked for anew: norms that several devices synchronise take the place of the network's own
        return self.network.stages()[: self.frozen_stages] if self.frozen_stages else []  # type: ignore[operator]

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        image, target, _ = batch
        logits = self._clips(image, target)
        self.val_metrics.update(logits, target)
        loss = functional.cross_entropy(logits, target)
        self.log("val/loss", loss, prog_bar=True, **_of_all_devices(target))

    def on_validation_epoch_end(self) -> None:
        # the metrics gather what all devices have seen; each has the same figures then
        self.log_dict(self.val_metrics.compute(), prog_bar=True, sync_dist=True)
        self.val_metrics.reset()

    def on_test_epoch_start(self) -> None:
        self._scored.clear()
        self.test_metrics.reset()
        self.confusion.reset()

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        image, target, clip = batch
        logits = self._clips(image, target)
        self.test_metrics.update(logits, target)
        self.confusion.update(logits, target)
        self._scored.append((logits, clip))
        self.log("test/loss", functional.cross_entropy(logits, target), **_of_all_devices(target))

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.test_metrics.compute(), sync_dist=True)
        logits, clips = (torch.cat(parts) for parts in zip(*self._scored, strict=True))
        if self.trainer.world_size > 1:
            # ranks may have different numbers of clips
            logits, clips = torch.cat(gather_all_tensors(logits)), torch.cat(gather_all_tensors(clips))
            order = clips.argsort()
            logits, clips = logits[order], clips[order]
        self.logits, self.clips = logits.cpu(), clips.cpu()

    def configure_optimizers(self) -> Any:
        parts = [self.network] if self.layer_decay == 1 else self.network.stages()  # type: ignore[operator]
        optimizer = self.optimizer(parameter_groups(parts, self.layer_decay))
        for group in optimizer.param_groups:
            group["lr"] *= group["rate"]
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = warmup_and_decay(optimizer, steps, self.decay, self.warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _of_all_devices(target: Tensor) -> dict[str, Any]:
    """How a batch's mean is logged, so that an epoch's is that of the clips of all devices."""
    grouped = torch.distributed.is_available() and torch.distributed.is_initialized()
    # Lightning divides the sum of clips by the number of devices, and drops what is left over
    return {
        "on_epoch": True,
        "sync_dist": True,
        "batch_size": len(target) * (torch.distributed.get_world_size() if grouped else 1),
    }
