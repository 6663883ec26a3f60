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

from soundfold.model.schedule import parameter_groups, warm_up_and_decay

# of `torch.compile`; a graph is of one shape, so a last, smaller batch has one of its own
COMPILATIONS: dict[str, dict[str, Any]] = {
    "default": {"mode": "default"},
    "graphs": {"mode": "reduce-overhead", "dynamic": False},
}


class Classifier(pl.LightningModule):
    """Cross entropy on images (B, 1, M, T), with hard targets int64 (B,) or soft ones (B, C).

    Args:
        network: images -> logits (B, C).
        classes: C.
        optimizer: from parameter groups to an optimiser, such as ``partial(torch.optim.AdamW, lr=1e-3)``.
        decay, warmup: see `warm_up_and_decay`.
        label_smoothing: in [0, 1); applies to training only.
        channels_last: memory format of network and images.
        compile: the network as it is (``none``), compiled (``default``), or compiled and replayed as CUDA graphs
            (``graphs``), which leave out the cost of starting kernels one by one.

    Attributes:
        logits, clips: float32 (n, C) and int64 (n,) of the clips scored by the last test, in order of scoring.
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
        channels_last: bool = False,
        compile: str = "none",
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last) if channels_last else network
        self._run: Callable[[Tensor], Tensor] = self.network
        if compile != "none":
            self._run = torch.compile(self.network, **COMPILATIONS[compile])
        self.optimizer, self.decay, self.warmup = optimizer, decay, warmup
        self.label_smoothing, self.channels_last = label_smoothing, channels_last
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
        if self.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        return self._run(image)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        image, target, _ = batch
        logits = self(image)
        loss = functional.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        # sums on the device: a metric's own step would compute, and reset, twice over
        hits = logits.detach().argmax(dim=1) == (target.argmax(dim=1) if target.ndim == 2 else target)
        size = len(image)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        self.log("train/accuracy", hits.float().mean(), on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        image, target, _ = batch
        logits = self(image)
        self.val_metrics.update(logits, target)
        loss = functional.cross_entropy(logits, target)
        self.log("val/loss", loss, on_epoch=True, prog_bar=True, batch_size=len(image))

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.val_metrics.compute(), prog_bar=True)
        self.val_metrics.reset()

    def on_test_epoch_start(self) -> None:
        self._scored.clear()
        self.test_metrics.reset()
        self.confusion.reset()

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        image, target, clip = batch
        logits = self(image).float()
        self.test_metrics.update(logits, target)
        self.confusion.update(logits, target)
        self._scored.append((logits, clip))
        self.log("test/loss", functional.cross_entropy(logits, target), on_epoch=True, batch_size=len(image))

    def on_test_epoch_end(self) -> None:
        self.log_dict(self.test_metrics.compute())
        self.logits = torch.cat([logits for logits, _ in self._scored]).cpu()
        self.clips = torch.cat([clip for _, clip in self._scored]).cpu()

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(parameter_groups(self.network))
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = warm_up_and_decay(optimizer, steps, self.decay, self.warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
