"""The random numbers of an epoch: drawn at once, handed out in order, of the distributions that transforms ask for."""

from itertools import combinations

import pytest
import torch
from helpers.augmented import epoch, module
from helpers.tiny import overrides

from soundfold.config import compose_config
from soundfold.experiment import build
from soundfold.features.augment_params import MaskSpec, ParamSampler, Uniform
from soundfold.features.crops import Crops
from soundfold.features.mixing import Mixing
from soundfold.features.transform import Transform

CLIPS = 20_000
# of a mean of CLIPS uniform numbers: five standard errors
NEAR = 5 * (1 / 12) ** 0.5 / CLIPS**0.5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=[0, 100], ids=["from the generator", "from numbers"])
def sampler(request):
    return ParamSampler(CLIPS, generator(), numbers=torch.rand(request.param * CLIPS, generator=generator(1)))


class Varying(Transform):
    """A user's augmentation that draws more numbers in some batches, and modifies the drawn tensor in place."""

    stage = "waveform"

    def draw(self, sampler):
        more = int(4 * sampler.uniform()[0])
        return sampler.uniform(more + 1).mul_(0.5).sum(dim=1), sampler.value(Uniform(0, 1))

    def forward(self, wave, params):
        return wave * (params[0] * params[1])[:, None]


def front_end(folder, *options: str):
    return build.front_end(compose_config(*overrides(folder, folder, *options)))


def test_parameters_have_their_distributions(sampler):
    value = sampler.value(Uniform(-2.0, 6.0))
    assert -2 <= value.min() < -1.99
    assert 5.99 < value.max() <= 6
    assert abs(value.mean() - 2) < 8 * NEAR
    neutral = sampler.value(Uniform(1.0, 2.0, p=0.3), 7.0) == 7
    assert abs(neutral.float().mean() - 0.7) < 5 * (0.3 * 0.7 / CLIPS) ** 0.5
    counts = sampler.value(Uniform(-2, 2, integer=True)).long().add(2).bincount()
    assert len(counts) == 5
    assert (counts / CLIPS - 0.2).abs().max() < 5 * (0.2 * 0.8 / CLIPS) ** 0.5
    assert torch.equal(sampler.index(3).unique(), torch.arange(3))
    assert torch.equal(sampler.partners().sort().values, torch.arange(CLIPS))


def test_masks_have_their_probability_and_width(sampler):
    start, end = sampler.masks(MaskSpec(2, 0.4, p=0.25)).unbind(dim=-1)
    width = (end - start)[end > start]
    assert abs(len(width) / (2 * CLIPS) - 0.25) < 0.02
    assert abs(width.mean() - 0.2) < 0.01
    assert start.min() >= 0
    assert end.max() <= 1 + 1e-6
    # the position within what is left is uniform
    assert abs((start / (1 - (end - start))).mean() - 0.5) < 0.01


def test_draws_are_independent_of_each_other(sampler):
    drawn = [sampler.uniform(), *sampler.uniform(3).unbind(dim=1), sampler.value(Uniform(0, 1)), sampler.uniform()]
    for a, b in combinations(drawn, 2):
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 5 / CLIPS**0.5


@pytest.mark.parametrize("augmented", [None, torch.arange(CLIPS) < CLIPS // 2])
def test_at_most_one_value_of_a_context_applies_to_a_clip(augmented):
    sampler = ParamSampler(CLIPS, generator(), augmented, torch.rand(10 * CLIPS, generator=generator(1)))
    with sampler.one_of():
        first, second = sampler.value(Uniform(1, 2, p=0.5)), sampler.value(Uniform(1, 2, p=0.5))
    assert not ((first != 0) & (second != 0)).any()
    assert torch.equal((first != 0) | (second != 0), torch.ones(CLIPS, dtype=bool) if augmented is None else augmented)
    after = sampler.value(Uniform(1, 2))
    assert bool((after != 0).all()) == (augmented is None)


def test_numbers_are_handed_out_once_and_then_the_generator_draws():
    numbers = torch.rand(10, generator=generator(1))
    sampler = ParamSampler(2, generator(), numbers=numbers)
    handed = [sampler.uniform(), sampler.uniform(3)]
    assert torch.equal(torch.cat([value.flatten() for value in handed]), numbers[:8])
    assert all(value.is_contiguous() for value in handed)
    assert torch.equal(sampler.uniform(2), torch.rand(2, 2, generator=generator()))
    assert sampler.taken == 12


def test_a_batch_draws_uniform_numbers_of_its_own_row_only(tmp_path):
    """The generator is called once an epoch, however many parameters there are; also for a smaller last batch."""
    mixing, crops = Mixing(between_class=0.5), Crops(4000, 3200)
    data = module(front_end(tmp_path, "augment=strong"), mixing=mixing, crops=crops)
    batches = list(data.train_dataloader())
    assert len({batch[3].data_ptr() for batch in batches}) == len(batches)
    assert all(len(batch[3]) == data._numbers > 16 * 10 for batch in batches)
    rows = torch.stack([batch[3] for batch in batches])
    assert len(rows.unique()) > 0.99 * rows.numel()
    before = data.generator.get_state()
    images = [data.augment(*batch)[0] for batch in batches]
    assert torch.equal(data.generator.get_state(), before)
    assert [len(image) for image in images] == [len(batch[0]) for batch in batches]


def test_the_numbers_of_steps_and_epochs_are_independent(tmp_path):
    data = module(front_end(tmp_path, "augment=strong"))
    batches = data.train_dataloader()
    rows = []
    for number in range(3):
        batches.set_epoch(number)
        rows += [batch[3] for batch in batches]
    bound = 5 / len(rows[0]) ** 0.5
    assert all(abs(torch.corrcoef(torch.stack(pair))[0, 1]) < bound for pair in combinations(rows, 2))


@pytest.mark.parametrize("shard", [(0, 1, 1), (0, 1, 2)])
def test_a_transform_may_draw_more_in_one_batch_than_in_another(tmp_path, shard):
    """A resumed epoch has the same bits, also with parts of a batch, which draw the same numbers again."""
    options = ("augment=none", f"augment.extra.mine={{_target_: {__name__}.Varying}}")
    data = module(front_end(tmp_path, *options), shard, mixing=Mixing(mixup=0.5))
    first = epoch(data, 1)
    assert len(first) == 15
    second = epoch(data, 1)
    for clip, (image, target) in first.items():
        assert torch.equal(image, second[clip][0])
        assert torch.equal(target, second[clip][1])


def test_numbers_that_a_part_of_a_batch_changes_are_restored_for_the_next(tmp_path):
    batches = iter(module(front_end(tmp_path, "augment=strong"), (0, 1, 2)).train_dataloader())
    numbers = next(batches)[3]
    before = numbers.clone()
    numbers.zero_()
    assert torch.equal(next(batches)[3], before)
