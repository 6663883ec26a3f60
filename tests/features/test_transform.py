"""The contract of an augmentation, with augmentations of a user."""

import random

import numpy as np
import pytest
import torch
from helpers.augmented import epoch, module, noise, to_meta
from helpers.tiny import overrides
from omegaconf import OmegaConf

from soundfold.config import compose_config, cv_id, flatten
from soundfold.data.copies import OfflineCopies
from soundfold.eda.augmentation_gallery import augmentation_gallery
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.features.augment_params import ParamSampler, Uniform
from soundfold.features.mixing import Mixing
from soundfold.features.transform import Transform

DIGESTS = {"table": "t", "audio": "a", "weights": "none"}


class Louder(Transform):
    """A user's augmentation of any stage: multiply by a drawn factor."""

    stage = "waveform"

    def __init__(self, low: float = 2.0, high: float = 4.0, sample_rate: int = 0, samples: int = 0) -> None:
        super().__init__()
        self.factor, self.sample_rate, self.samples = Uniform(low, high), sample_rate, samples

    def draw(self, sampler):
        return sampler.value(self.factor)

    def forward(self, x, factor):
        return x * factor.view(-1, *[1] * (x.ndim - 1))


class LouderSpectrum(Louder):
    stage = "spectrum"


class LouderImage(Louder):
    stage = "image"


class Smooth(Louder):
    """Mixes targets with the uniform distribution."""

    stage = "targets"

    def forward(self, target, share):
        return torch.lerp(target, torch.full_like(target, 1 / target.shape[1]), share[:, None])


class WrongStage(Louder):
    stage = "wave"


class AnotherShape(Louder):
    def forward(self, wave, factor):
        return wave[:, ::2]


class AnotherType(Louder):
    def forward(self, wave, factor):
        return super().forward(wave, factor).double()


class NotFinite(Louder):
    def forward(self, wave, factor):
        return (wave - 10).log()


class NoTensor(Louder):
    def forward(self, wave, factor):
        return wave.numpy()


class InPlace(Louder):
    def forward(self, wave, factor):
        return wave.mul_(factor[:, None])


class RandomForward(Louder):
    def forward(self, wave, factor):
        return wave * torch.rand(len(wave), 1)


class MixesClips(Louder):
    def forward(self, wave, factor):
        return wave - wave.mean(dim=0)


class DrawsElsewhere(Louder):
    def draw(self, sampler):
        return sampler.value(self.factor) * random.random()


class DrawsOneRow(Louder):
    def draw(self, sampler):
        return sampler.value(self.factor)[:1]


class Fails(Louder):
    def forward(self, wave, factor):
        return wave @ factor


def front_end(folder, *options: str):
    return build.front_end(compose_config(*overrides(folder, folder, *options)))


def entry(name: str, **options) -> str:
    values = "".join(f", {key}: {value}" for key, value in options.items())
    return f"augment.extra.{name.lower()}={{_target_: {__name__}.{name}{values}}}"


@pytest.mark.parametrize(("name", "power"), [("Louder", 2), ("LouderSpectrum", 1)])
def test_a_users_augmentation_changes_its_share_of_the_clips(tmp_path, name, power):
    front, wave = front_end(tmp_path, "augment=none", entry(name, p=0.5)), noise(40)
    params = front.augmentation.draw(ParamSampler(40, torch.Generator().manual_seed(0)))
    hit, factor = params[f"extra.{name.lower()}"]
    assert 10 < int(hit.sum()) < 30
    gain = (front(wave, params) - front(wave)).mean(dim=(1, 2, 3))
    torch.testing.assert_close(gain, torch.where(hit, 10 * power * factor.log10(), 0.0), atol=1e-3, rtol=0)
    # the clips that are left out have the same bits
    assert torch.equal(front(wave, params)[~hit], front(wave)[~hit])


def test_an_augmentation_of_images_acts_after_the_masks_of_this_package(tmp_path):
    front, wave = front_end(tmp_path, "augment=none", entry("LouderImage")), noise()
    params = front.augmentation.draw(ParamSampler(4, torch.Generator().manual_seed(0)))
    factor = params["extra.louderimage"][1][:, None, None, None]
    torch.testing.assert_close(front(wave, params), factor * front(wave))


def test_constructors_get_their_options_the_rate_and_the_length(tmp_path):
    front = front_end(tmp_path, entry("Louder", low=3.0))
    mine = front.augmentation.transforms[-1].transform
    assert (mine.factor, mine.sample_rate, mine.samples) == (Uniform(3.0, 4.0), 8000, 4000)


def test_an_entry_changes_neither_other_draws_nor_other_runs(tmp_path):
    plain, more = (front_end(tmp_path, "augment=strong", *extra) for extra in ((), (entry("Louder"),)))
    first, second = (
        front.augmentation.draw(ParamSampler(8, torch.Generator().manual_seed(0))) for front in (plain, more)
    )
    for name, value in first.values.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)
    configurations = [
        compose_config(*overrides(tmp_path, tmp_path, *extra)) for extra in ((), (entry("Louder"),), (entry("Smooth"),))
    ]
    assert len({cv_id(cfg, DIGESTS) for cfg in configurations}) == 3


def test_results_are_the_same_on_any_number_of_devices_and_after_resuming(tmp_path):
    options = ("augment=strong", entry("Louder", p=0.7), entry("LouderSpectrum"), entry("Smooth", low=0.1, high=0.3))
    mixing = Mixing(mixup=0.4, time_cutmix=0.3, between_class=0.5, mixstyle=0.3)
    whole = epoch(module(front_end(tmp_path, *options), mixing=mixing), 1)
    # epoch 1 in a new process has the same bits, without epoch 0
    data = module(front_end(tmp_path, *options), mixing=mixing)
    epoch(data, 0)
    for clip, (image, target) in epoch(data, 1).items():
        assert torch.equal(image, whole[clip][0])
        assert torch.equal(target, whole[clip][1])
    parts: dict[int, tuple] = {}
    for rank in range(2):
        parts |= epoch(module(front_end(tmp_path, *options), (rank, 2, 2), mixing=mixing), 1)
    assert parts.keys() == whole.keys()
    for clip, (image, target) in parts.items():
        torch.testing.assert_close(image, whole[clip][0], atol=1e-4, rtol=0)
        torch.testing.assert_close(target, whole[clip][1])


def test_augmented_targets_are_distributions_of_training_clips_only(tmp_path):
    front = front_end(tmp_path, "augment=none", entry("Smooth", low=0.2, high=0.2))
    targets = torch.stack([target for _, target in epoch(module(front)).values()])
    torch.testing.assert_close(targets.sort().values, torch.tensor([[0.1, 0.9]]).expand(15, -1))
    data = module(front)
    data.trainer.training = False
    assert all(data.on_after_batch_transfer(batch, 0)[1].dtype == torch.int64 for batch in data.test_dataloader())


def test_copies_are_augmented_once_and_their_clips_never(tmp_path):
    data = module(
        front_end(tmp_path, "augment=none", entry("Louder"), entry("Smooth", low=0.2, high=0.2)),
        copies=OfflineCopies(1, 1),
    )
    plain = module(front_end(tmp_path, "augment=none"))
    first, second, clips = epoch(data, 0), epoch(data, 1), epoch(plain)
    assert len(first) == 30
    for index, (image, target) in first.items():
        assert torch.equal(image, second[index][0])
        is_copy = index >= 20
        clip = int(data._clip_of[index])
        assert torch.equal(image, clips[clip][0]) != is_copy
        assert float(target.max()) == pytest.approx(0.9 if is_copy else 1.0)


def test_the_gallery_finds_every_augmentation(tmp_path):
    front = front_end(tmp_path, "augment=none", entry("Louder", p=0.1), entry("Smooth"))
    items = augmentation_gallery(front, noise()[0])
    assert [item.name for item in items[1:3]] == ["louder, example 1", "louder, example 2"]
    assert len(items) == 1 + 2 + 2
    gain = (items[1].log_mel - items[0].log_mel).mean()
    assert 20 * np.log10(2) - 1e-3 <= gain <= 20 * np.log10(4) + 1e-3


def test_training_images_with_a_users_augmentation_compile_to_one_graph(tmp_path):
    front = front_end(tmp_path, "augment=strong", entry("Louder"), entry("LouderSpectrum"), entry("LouderImage"))
    params = front.augmentation.draw(ParamSampler(4, torch.Generator().manual_seed(0)))
    front, params = front.to("meta"), to_meta(params)
    wave = torch.zeros(4, 4000, dtype=torch.int16, device="meta")
    compiled = torch.compile(front, backend="aot_eager", fullgraph=True)
    assert compiled(wave, params).shape == front(wave, params).shape


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WrongStage", "has stage='wave', which must be one of waveform, spectrum, image, targets"),
        ("AnotherShape", r"returns the shape \(3, 2000\) instead of \(3, 4000\), on a batch of stage waveform"),
        ("AnotherType", "returns the dtype torch.float64 instead of torch.float32"),
        ("NotFinite", "returns values that are not finite"),
        ("NoTensor", "returns a ndarray, not a tensor"),
        ("InPlace", "modifies the input of `forward`"),
        ("RandomForward", "returns different results for the same parameters"),
        ("MixesClips", "transforms a clip differently by itself and in a batch"),
        ("DrawsElsewhere", "draws other parameters from a generator of the same state"),
        ("DrawsOneRow", r"draws a Tensor of shape \(1,\) for 3 clips"),
        ("Fails", r"fails on a batch of stage waveform, \(3, 4000\): RuntimeError"),
    ],
)
def test_a_class_that_breaks_the_contract_is_refused(tmp_path, name, message):
    with pytest.raises(InputError, match=rf"^augment\.extra\.{name.lower()}: {__name__}\.{name} {message}"):
        front_end(tmp_path, entry(name))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("augment.extra.mine={p: 0.5}", r"augment\.extra\.mine requires _target_"),
        ("augment.extra.mine=loud", r"augment\.extra\.mine requires _target_"),
        ("augment.extra.mine={_target_: torch.nn.Linear}", r"mine\._target_=torch\.nn\.Linear is not a .*Transform"),
        ("augment.extra.mine={_target_: nowhere.Mine}", r"mine\._target_=nowhere\.Mine cannot be imported"),
        (entry("Louder", volume=1), "rejects its options"),
        (entry("Louder", p=1.5), r"augment\.extra\.louder\.p=1\.5 must be between 0 and 1"),
        (entry("Louder", p="often"), r"augment\.extra\.louder\.p=often must be between 0 and 1"),
    ],
)
def test_an_invalid_entry_is_refused_by_its_key(tmp_path, override, message):
    with pytest.raises(InputError, match=message):
        front_end(tmp_path, override)


def test_prediction_does_not_need_the_class(tmp_path):
    """A model file that names a class, of which prediction makes no use, loads without importing it."""
    cfg = compose_config(*overrides(tmp_path, tmp_path, "augment.extra.mine={_target_: nowhere.Mine, depth: 2}"))
    stored = OmegaConf.to_container(cfg, resolve=True)
    assert flatten(stored)["augment.extra.mine.depth"] == 2
    assert build.front_end(build.stored_sections(stored), augmented=False).augmentation is None
