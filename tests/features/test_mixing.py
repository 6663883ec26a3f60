import pytest
import torch
from torch.nn.functional import one_hot

from soundfold.errors import ArgumentError
from soundfold.features.augment_params import ParamSampler
from soundfold.features.mixing import (
    BetweenClass,
    ImageMixing,
    Mixing,
    MixStyle,
    StyleMixParams,
    WaveMixParams,
    mix_targets,
)

# applies drawn parameters, whatever it would draw itself
MIXUP = ImageMixing(1.0, 1.0, 0.0, 0.0)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def images() -> torch.Tensor:
    """Each image is filled with its index, so that the source of each cell is known."""
    return torch.arange(200.0)[:, None, None, None].expand(-1, 1, 20, 30)


def test_mixup_mixes_images_and_targets_by_the_same_share():
    params = Mixing(alpha=1.0, mixup=1.0).images.draw(ParamSampler(200, generator()))
    clip, partner = torch.arange(200.0), params.partner.float()
    expected = params.share * clip + (1 - params.share) * partner
    mixed = MIXUP.forward(images(), images()[params.partner], params)
    torch.testing.assert_close(mixed, expected[:, None, None, None].expand(-1, 1, 20, 30))
    target = torch.arange(200) % 3
    share = params.share[:, None]
    soft = share * one_hot(target, 3) + (1 - share) * one_hot(target[params.partner], 3)
    torch.testing.assert_close(mix_targets(target, 3, params), soft)


@pytest.mark.parametrize("axis", ["time", "frequency"])
def test_cutmix_takes_a_stripe_of_the_partner(axis):
    cutmix = Mixing(alpha=1.0, **{f"{axis}_cutmix": 1.0}).images
    params = cutmix.draw(ParamSampler(200, generator()))
    mixed = cutmix.forward(images(), images()[params.partner], params)[:, 0]
    clip = torch.arange(200.0)[:, None, None]
    different = params.partner != torch.arange(200)
    unchanged = (mixed == clip).float()[different]
    assert ((mixed == clip) | (mixed == params.partner[:, None, None])).all()
    # entire rows or columns, in proportion to the share of the target, up to the width of a cell
    line = unchanged.mean(dim=1 if axis == "time" else 2)
    assert set(line.unique().tolist()) == {0.0, 1.0}
    assert (line.mean(dim=1) - params.share[different]).abs().max() <= 1 / line.shape[1]


def test_probabilities_hold_and_exclude_each_other():
    params = Mixing(alpha=1.0, mixup=0.2, time_cutmix=0.3, frequency_cutmix=0.1).images.draw(
        ParamSampler(5000, generator())
    )
    mixup, time = params.weight < 1, params.time[:, 1] > params.time[:, 0]
    frequency = params.frequency[:, 1] > params.frequency[:, 0]
    for drawn, probability in ((mixup, 0.2), (time, 0.3), (frequency, 0.1)):
        assert abs(drawn.float().mean() - probability) < 0.03
    assert (mixup.int() + time.int() + frequency.int()).max() == 1
    assert (params.share[~(mixup | time | frequency)] == 1).all()


def test_between_class_mixing_weights_by_loudness_and_preserves_energy():
    noise = torch.randn(2, 100_000, generator=generator())
    wave = noise * torch.tensor([[1.0], [0.01]])
    params = WaveMixParams(share=torch.tensor([0.5, 1.0]), partner=torch.tensor([1, 0]))
    mixed = BetweenClass(1.0).forward(wave, params)
    # at a share of one half both are equally loud, although one is 40 dB softer
    clip, partner = (float((mixed[0] * noise[i]).mean()) for i in (0, 1))
    assert clip == pytest.approx(partner, rel=0.05)
    torch.testing.assert_close(mixed[1], wave[1])
    equal = BetweenClass(1.0).forward(
        noise, WaveMixParams(share=torch.tensor([0.3, 0.7]), partner=torch.tensor([1, 0]))
    )
    assert equal.square().mean() == pytest.approx(1.0, rel=0.02)


def test_targets_mixed_twice_are_distributions():
    mixing = Mixing(alpha=1.0, mixup=1.0, between_class=1.0)
    soft = mix_targets(torch.arange(8) % 4, 4, mixing.waves.draw(ParamSampler(8, generator())))
    soft = mix_targets(soft, 4, mixing.images.draw(ParamSampler(8, generator())))
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(8))
    assert (soft >= 0).all()


def test_shares_have_the_moments_of_the_beta_distribution():
    share = Mixing(alpha=0.4, mixup=1.0).images.draw(ParamSampler(20000, generator())).share
    assert abs(share.mean() - 0.5) < 0.01
    assert abs(share.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.005


def test_disabled_mixing_draws_nothing():
    assert Mixing().images is None
    assert Mixing().waves is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"alpha": 0.0}, "^`alpha`=0 must be above 0"),
        ({"alpha": 2000.0}, "^`alpha`=2000 must be above 0 and at most 1000"),
        ({"mixup": 1.5}, "^`mixup`=1.5 must be between 0 and 1"),
        ({"between_class": -0.1}, "^`between_class`=-0.1 must be between 0 and 1"),
        (
            {"mixup": 0.6, "time_cutmix": 0.6},
            "^`mixup`, `time_cutmix`, `frequency_cutmix`: their sum 1.2 must not exceed 1, because a clip",
        ),
    ],
)
def test_invalid_values_are_refused_by_name(values, message):
    with pytest.raises(ArgumentError, match=message):
        Mixing(**values)


def test_mixstyle_replaces_the_statistics_of_each_band_and_nothing_else():
    image = torch.randn(4, 1, 5, 300, generator=generator()) * torch.arange(1, 5.0)[:, None, None, None]
    image += torch.arange(5.0)[:, None] * torch.tensor([0.0, 1.0, -2.0, 5.0])[:, None, None, None]
    params = StyleMixParams(share=torch.tensor([1.0, 0.0, 0.25, 0.5]), partner=torch.tensor([1, 0, 3, 2]))
    mixed = MixStyle(1.0, 1.0).forward(image, params)
    torch.testing.assert_close(mixed[0], image[0])
    for clip, other, share in ((1, 0, 0.0), (2, 3, 0.25), (3, 2, 0.5)):
        mean, std = mixed[clip].mean(dim=-1), mixed[clip].std(dim=-1, correction=0)
        torch.testing.assert_close(mean, share * image[clip].mean(dim=-1) + (1 - share) * image[other].mean(dim=-1))
        own, partner = (image[i].std(dim=-1, correction=0) for i in (clip, other))
        torch.testing.assert_close(std, share * own + (1 - share) * partner, rtol=1e-4, atol=1e-4)
        # the pattern within a band stays
        pairs = torch.stack([mixed[clip].flatten(0, 1), image[clip].flatten(0, 1)], dim=1)
        assert all(torch.corrcoef(pair)[0, 1] > 0.9999 for pair in pairs)


def test_mixstyle_is_drawn_for_its_share_of_the_clips():
    mixing = Mixing(alpha=1.0, mixstyle=0.3)
    params = mixing.styles.draw(ParamSampler(20_000, generator()))
    assert abs((params.share < 1).float().mean() - 0.3) < 0.02
    assert Mixing().styles is None
    assert mixing.images is None
    assert mixing.waves is None
