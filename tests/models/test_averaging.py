"""Weight averaging of a small network over a few batches."""

from functools import partial
from unittest.mock import patch

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from soundfold.errors import ArgumentError
from soundfold.models.averaging import Averaging, update_bn
from soundfold.models.classifier import Classifier

STEPS = 6


class Network(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )


class Images(pl.LightningDataModule):
    """Three fixed batches per epoch."""

    def __init__(self):
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.image = 2 + 3 * torch.randn(12, 1, 8, 8, generator=rng)
        self.rows = [(image, torch.tensor(i % 3), torch.tensor(i)) for i, image in enumerate(self.image)]

    def train_dataloader(self):
        return DataLoader(self.rows, batch_size=4)

    val_dataloader = test_dataloader = train_dataloader

    def training_images(self):
        return iter(self.image.split(6))


class WeightRecorder(pl.Callback):
    """First weights of the network after each step and in each validation."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.steps.append(module.network[0].weight.detach().clone())

    def on_validation_batch_start(self, trainer, module, *_):
        self.validated.append(module.network[0].weight.detach().clone())


def fit(averaging, epochs: int = STEPS // 3, **options):
    torch.manual_seed(0)
    model, recorder, data = (
        Classifier(Network(), 3, partial(torch.optim.SGD, lr=0.3), warmup=0.0),
        WeightRecorder(),
        Images(),
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[averaging, recorder],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(model, data)
    return model, recorder, data, trainer


def ema(steps, decay):
    average = steps[0]
    for weight in steps[1:]:
        average = decay * average + (1 - decay) * weight
    return average


def test_ema_equals_the_recursion(tmp_path):
    model, recorder, *_ = fit(Averaging("ema", decay=0.7), default_root_dir=tmp_path)
    assert len(recorder.steps) == STEPS
    torch.testing.assert_close(model.network[0].weight, ema(recorder.steps, 0.7))


def test_an_accumulated_batch_is_one_step_of_the_average(tmp_path):
    options = {"accumulate_grad_batches": 3, "epochs": 4, "default_root_dir": tmp_path}
    model, recorder, *_ = fit(Averaging("ema", decay=0.7), **options)
    assert len(recorder.steps) == 12
    torch.testing.assert_close(model.network[0].weight, ema(recorder.steps[2::3], 0.7))


def test_swa_equals_the_mean_after_its_start(tmp_path):
    model, recorder, *_ = fit(Averaging("swa", start=0.5), default_root_dir=tmp_path)
    torch.testing.assert_close(model.network[0].weight, torch.stack(recorder.steps[3:]).mean(dim=0))


def test_validation_uses_the_average_and_training_does_not(tmp_path):
    _, recorder, *_ = fit(Averaging("ema", decay=0.7), default_root_dir=tmp_path)
    torch.testing.assert_close(recorder.validated[0], ema(recorder.steps[:3], 0.7))
    _, plain, *_ = fit(WeightRecorder(), default_root_dir=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(recorder.steps, plain.steps, strict=True))


def test_validation_before_the_start_uses_the_network(tmp_path):
    _, recorder, *_ = fit(Averaging("ema", decay=0.7, start=0.5), default_root_dir=tmp_path)
    assert torch.equal(recorder.validated[0], recorder.steps[2])
    torch.testing.assert_close(recorder.validated[-1], ema(recorder.steps[3:], 0.7))


def test_batch_norm_statistics_are_those_of_the_average(tmp_path):
    model, _, data, trainer = fit(Averaging("ema", decay=0.7), default_root_dir=tmp_path)
    means = torch.stack([model.network[0](image).mean(dim=(0, 2, 3)) for image in data.training_images()])
    torch.testing.assert_close(model.network[1].running_mean, means.mean(dim=0).detach())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.test(model, data, verbose=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_images_are_computed_in_float32(tmp_path):
    images = []

    def training_images(self):
        # mixed precision would round the product
        for image in self.image.split(6):
            images.append(image @ torch.eye(8))
            yield images[-1]

    with patch.object(Images, "training_images", training_images):
        fit(Averaging(), precision="bf16-mixed", default_root_dir=tmp_path)
    assert {image.dtype for image in images} == {torch.float32}


def test_update_bn_preserves_frozen_norms_and_momentum():
    network = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1))
    network[0].eval()
    network[0].train = lambda mode=True: network[0]
    update_bn(network.eval(), [torch.full((4, 1, 2, 2), 5.0)], network)
    assert network[0].running_mean == 0
    assert network[1].running_mean == pytest.approx(5, rel=1e-4)
    assert network[1].momentum == 0.1
    assert not network[1].training


@pytest.mark.parametrize(("args", "name"), [(("mean",), "kind"), (("ema", 1.0), "decay"), (("ema", 0.9, 1.0), "start")])
def test_invalid_arguments_are_refused(args, name):
    with pytest.raises(ArgumentError, match=f"`{name}`="):
        Averaging(*args)
