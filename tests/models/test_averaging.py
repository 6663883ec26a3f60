"""Averages of weights, on a small network and a few batches."""

from functools import partial
from unittest.mock import patch

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from soundfold.errors import InputError
from soundfold.models.averaging import Averaging, update_bn
from soundfold.models.classifier import Classifier

STEPS = 6


class Network(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
        )


class Images(pl.LightningDataModule):
    """Three batches an epoch, the same each time."""

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


class Watch(pl.Callback):
    """The network's first weights after every step, and those that were validated."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, module, *_):
        self.steps.append(module.network[0].weight.detach().clone())

    def on_validation_batch_start(self, trainer, module, *_):
        self.validated.append(module.network[0].weight.detach().clone())


def fit(averaging, epochs: int = STEPS // 3, **options):
    torch.manual_seed(0)
    model, watch, data = Classifier(Network(), 3, partial(torch.optim.SGD, lr=0.3), warmup=0.0), Watch(), Images()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[averaging, watch],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(model, data)
    return model, watch, data, trainer


def ema(steps, decay):
    average = steps[0]
    for weight in steps[1:]:
        average = decay * average + (1 - decay) * weight
    return average


def test_an_exponential_average_is_the_recursion(tmp_path):
    model, watch, *_ = fit(Averaging("ema", decay=0.7), default_root_dir=tmp_path)
    assert len(watch.steps) == STEPS
    torch.testing.assert_close(model.network[0].weight, ema(watch.steps, 0.7))


def test_an_average_over_the_last_part_is_its_mean(tmp_path):
    model, watch, *_ = fit(Averaging("swa", start=0.5), default_root_dir=tmp_path)
    torch.testing.assert_close(model.network[0].weight, torch.stack(watch.steps[3:]).mean(dim=0))


def test_what_is_validated_is_the_average_and_what_is_trained_is_not(tmp_path):
    _, watch, *_ = fit(Averaging("ema", decay=0.7), default_root_dir=tmp_path)
    torch.testing.assert_close(watch.validated[0], ema(watch.steps[:3], 0.7))
    _, plain, *_ = fit(Watch(), default_root_dir=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(watch.steps, plain.steps, strict=True))


def test_before_it_begins_the_network_itself_is_validated(tmp_path):
    _, watch, *_ = fit(Averaging("ema", decay=0.7, start=0.5), default_root_dir=tmp_path)
    assert torch.equal(watch.validated[0], watch.steps[2])
    torch.testing.assert_close(watch.validated[-1], ema(watch.steps[3:], 0.7))


def test_batch_statistics_are_those_of_the_average(tmp_path):
    model, _, data, trainer = fit(Averaging("ema", decay=0.7), default_root_dir=tmp_path)
    seen = torch.stack([model.network[0](image).mean(dim=(0, 2, 3)) for image in data.training_images()])
    torch.testing.assert_close(model.network[1].running_mean, seen.mean(dim=0).detach())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer.test(model, data, verbose=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_images_are_made_outside_of_mixed_precision(tmp_path):
    made = []

    def training_images(self):
        # a product, which mixed precision would round
        for image in self.image.split(6):
            made.append(image @ torch.eye(8))
            yield made[-1]

    with patch.object(Images, "training_images", training_images):
        fit(Averaging(), precision="bf16-mixed", default_root_dir=tmp_path)
    assert {image.dtype for image in made} == {torch.float32}


def test_settling_leaves_frozen_norms_and_momentum_alone():
    network = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1))
    network[0].eval()
    network[0].train = lambda mode=True: network[0]
    update_bn(network.eval(), [torch.full((4, 1, 2, 2), 5.0)], network)
    assert network[0].running_mean == 0
    assert network[1].running_mean == pytest.approx(5, rel=1e-4)
    assert network[1].momentum == 0.1
    assert not network[1].training


@pytest.mark.parametrize(
    ("values", "word"), [(("mean",), "kind"), (("ema", 1.0), "decay"), (("ema", 0.9, 1.0), "start")]
)
def test_bad_values_are_refused(values, word):
    with pytest.raises(InputError, match=rf"average\.{word}"):
        Averaging(*values)
