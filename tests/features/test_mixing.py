import pytest
import torch
from torch.nn.functional import one_hot

from soundfold.errors import InputError
from soundfold.features.mixing import Mixing, WaveMixParams, mix_images, mix_targets, mix_waves


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def images() -> torch.Tensor:
    """Each image is its own number, so that a mixed cell tells whose it is."""
    return torch.arange(200.0)[:, None, None, None].expand(-1, 1, 20, 30)


def test_mixup_mixes_images_and_targets_alike():
    draw = Mixing(alpha=1.0, mixup=1.0).draw_images(200, generator())
    own, other = torch.arange(200.0), draw.partner.float()
    expected = draw.share * own + (1 - draw.share) * other
    mixed = mix_images(images(), images()[draw.partner], draw)
    torch.testing.assert_close(mixed, expected[:, None, None, None].expand(-1, 1, 20, 30))
    target = torch.arange(200) % 3
    share = draw.share[:, None]
    soft = share * one_hot(target, 3) + (1 - share) * one_hot(target[draw.partner], 3)
    torch.testing.assert_close(mix_targets(target, 3, draw), soft)


@pytest.mark.parametrize("axis", ["time", "frequency"])
def test_cutmix_takes_a_stripe_of_the_partner(axis):
    draw = Mixing(alpha=1.0, **{f"{axis}_cutmix": 1.0}).draw_images(200, generator())
    mixed = mix_images(images(), images()[draw.partner], draw)[:, 0]
    own = torch.arange(200.0)[:, None, None]
    different = draw.partner != torch.arange(200)
    kept = (mixed == own).float()[different]
    assert ((mixed == own) | (mixed == draw.partner[:, None, None])).all()
    # whole rows or whole columns, in the share that the target says, to the width of a cell
    line = kept.mean(dim=1 if axis == "time" else 2)
    assert set(line.unique().tolist()) == {0.0, 1.0}
    assert (line.mean(dim=1) - draw.share[different]).abs().max() <= 1 / line.shape[1]


def test_chances_are_kept_and_exclude_each_other():
    draw = Mixing(alpha=1.0, mixup=0.2, time_cutmix=0.3, frequency_cutmix=0.1).draw_images(5000, generator())
    mixup, time = draw.weight < 1, draw.time[:, 1] > draw.time[:, 0]
    frequency = draw.frequency[:, 1] > draw.frequency[:, 0]
    for got, chance in ((mixup, 0.2), (time, 0.3), (frequency, 0.1)):
        assert abs(got.float().mean() - chance) < 0.03
    assert (mixup.int() + time.int() + frequency.int()).max() == 1
    assert (draw.share[~(mixup | time | frequency)] == 1).all()


def test_between_class_weights_by_loudness_and_keeps_energy():
    noise = torch.randn(2, 100_000, generator=generator())
    wave = noise * torch.tensor([[1.0], [0.01]])
    draw = WaveMixParams(share=torch.tensor([0.5, 1.0]), partner=torch.tensor([1, 0]))
    mixed = mix_waves(wave, draw)
    # at a half share both are heard alike, although one is 40 dB softer
    own, other = (float((mixed[0] * noise[i]).mean()) for i in (0, 1))
    assert own == pytest.approx(other, rel=0.05)
    torch.testing.assert_close(mixed[1], wave[1])
    equal = mix_waves(noise, WaveMixParams(share=torch.tensor([0.3, 0.7]), partner=torch.tensor([1, 0])))
    assert equal.square().mean() == pytest.approx(1.0, rel=0.02)


def test_mixing_of_mixed_targets_stays_a_distribution():
    mixing = Mixing(alpha=1.0, mixup=1.0, between_class=1.0)
    soft = mix_targets(torch.arange(8) % 4, 4, mixing.draw_waves(8, generator()))
    soft = mix_targets(soft, 4, mixing.draw_images(8, generator()))
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(8))
    assert (soft >= 0).all()


def test_beta_shares_have_their_moments():
    share = Mixing(alpha=0.4, mixup=1.0).draw_images(20000, generator()).share
    assert abs(share.mean() - 0.5) < 0.01
    assert abs(share.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.005


def test_nothing_is_drawn_where_nothing_has_a_chance():
    assert Mixing().draw_images(4, generator()) is None
    assert Mixing().draw_waves(4, generator()) is None


@pytest.mark.parametrize(
    ("values", "word"),
    [({"alpha": 0.0}, "alpha"), ({"mixup": 1.5}, "mixup"), ({"mixup": 0.6, "time_cutmix": 0.6}, "at most one")],
)
def test_bad_values_are_refused_by_name(values, word):
    with pytest.raises(InputError, match=word):
        Mixing(**values)
