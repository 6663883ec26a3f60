import copy
import math

import librosa
import numpy as np
import pytest
import torch

from soundfold.errors import ArgumentError
from soundfold.features.augment import Augmentation
from soundfold.features.augment_params import AugmentParams, MaskSpec, ParamSampler, Uniform
from soundfold.features.logmel import LogMel, NormalizeAndResize
from soundfold.features.pipeline import FrontEnd
from soundfold.features.spectrum import Axes
from soundfold.features.waveform import noise_bank

RATE = 44100
LOGMEL = LogMel(sample_rate=RATE, n_fft=2048, hop_length=441, n_mels=128, f_min=0.0, f_max=20000.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waveform(augmentation: Augmentation, wave: torch.Tensor, params) -> torch.Tensor:
    return augmentation.transform_stage("waveform", wave, params)


def test_neutral_parameters_change_nothing():
    wave = 0.1 * torch.randn(3, RATE, generator=generator())
    augmentation = Augmentation(
        RATE, time_stretch=Uniform(1, 1), pitch_shift=Uniform(0, 0), noise_std=Uniform(0, 0), gain_db=Uniform(0, 0)
    )
    params = augmentation.draw(ParamSampler(3, generator()))
    augmented = LOGMEL(waveform(augmentation, wave, params), *augmentation.transform_stage("axes", Axes(), params))
    torch.testing.assert_close(augmented, LOGMEL(wave), atol=1e-4, rtol=0)
    assert waveform(Augmentation(RATE), wave, Augmentation(RATE).draw(ParamSampler(3, generator()))) is wave


@pytest.mark.parametrize("semitones", [-2.0, 2.0, 5.0])
def test_pitch_shift_moves_the_peak_of_a_tone(semitones):
    time = torch.arange(RATE) / RATE
    frequency = 1000.0
    log_mel = LOGMEL(torch.sin(2 * np.pi * frequency * time)[None], pitch_shift=torch.tensor([semitones]))[0, 0]
    expected = torch.sin(2 * np.pi * frequency * 2 ** (semitones / 12) * time)[None]
    assert log_mel[:, 50].argmax() == LOGMEL(expected)[0, 0, :, 50].argmax()
    # the shift preserves the energy of the tone
    assert abs(log_mel[:, 50].max() - LOGMEL(expected)[0, 0, :, 50].max()) < 3


@pytest.mark.parametrize("rate", [0.8, 1.2])
def test_time_stretch_moves_a_click(rate):
    wave = torch.zeros(1, RATE)
    wave[0, 22050] = 1.0
    loudness = LOGMEL(wave, time_stretch=torch.tensor([rate]))[0, 0].sum(dim=0)
    assert abs(loudness.argmax() * 441 / RATE - 0.5 / rate) <= 0.011
    # the rate of one clip does not affect another
    both = LOGMEL(wave.expand(2, -1), time_stretch=torch.tensor([rate, 1.0]))
    torch.testing.assert_close(both[1], LOGMEL(wave)[0], atol=1e-4, rtol=0)


def test_a_faster_clip_ends_in_silence():
    wave = 0.1 * torch.randn(1, RATE, generator=generator())
    log_mel = LOGMEL(wave, time_stretch=torch.tensor([1.25]))[0, 0]
    assert (log_mel[:, 82:] == log_mel.min()).all()
    assert (log_mel[:, :79] > log_mel.min()).all()


@pytest.mark.parametrize(
    ("rate", "semitones"),
    [
        (0.8, 0.0),
        pytest.param(1.2, 0.0, marks=pytest.mark.slow),
        pytest.param(1.0, -2.0, marks=pytest.mark.slow),
        (1.0, 2.0),
    ],
)
def test_parity_with_a_phase_vocoder(real_or_synthetic_clips, rate, semitones):
    """Four clips of each class: at least as close to librosa's vocoder as that vocoder is with a longer window."""
    targets = real_or_synthetic_clips.targets
    ours, theirs = [], []
    for number in np.concatenate([np.flatnonzero(targets == c)[[3, 13, 23, 33]] for c in range(10)]):
        wave = real_or_synthetic_clips.wave(number)[: 5 * RATE]
        vocoders = []
        for n_fft in (2048, 4096):
            if semitones:
                changed = librosa.effects.pitch_shift(wave, sr=RATE, n_steps=semitones, n_fft=n_fft)
            else:
                changed = librosa.effects.time_stretch(wave, rate=rate, n_fft=n_fft)
            changed = torch.from_numpy(librosa.util.fix_length(changed, size=len(wave)))
            vocoders.append(LOGMEL(changed[None]))
        image = LOGMEL(torch.from_numpy(wave)[None], torch.tensor([rate]), torch.tensor([semitones]))
        image, short, long = (log_mel.numpy().ravel() for log_mel in (image, *vocoders))
        ours.append(np.corrcoef(image, short)[0, 1])
        theirs.append(np.corrcoef(long, short)[0, 1])
    assert np.median(ours) >= 0.975
    assert min(ours) >= 0.85
    assert np.median(ours) >= np.median(theirs)


def test_time_shift_and_gain_act_per_clip():
    wave = torch.zeros(2, 1000)
    wave[:, 0] = 1.0
    augmentation = Augmentation(1000, gain_db=Uniform(-6, 6), time_shift=Uniform(-0.5, 0.5))
    params = augmentation.draw(ParamSampler(2, generator()))
    augmented = waveform(augmentation, wave, params)
    for clip in range(2):
        assert augmented[clip].argmax() == (1000 * params["time_shift"][clip]).long() % 1000
        torch.testing.assert_close(augmented[clip].max(), params["gain_db"][clip])
    assert params["time_shift"][0] != params["time_shift"][1]
    assert 10 ** (-6 / 20) <= params["gain_db"].min() < params["gain_db"].max() <= 10 ** (6 / 20)


def test_polarity_inverts_clips_with_its_probability():
    augmentation = Augmentation(10, polarity=0.25)
    sign = waveform(augmentation, torch.ones(2000, 10), augmentation.draw(ParamSampler(2000, generator()))).mean(dim=1)
    assert set(sign.tolist()) == {-1.0, 1.0}
    assert abs((sign < 0).float().mean() - 0.25) < 0.04


def test_noise_has_the_drawn_std():
    augmentation = Augmentation(RATE, noise_std=Uniform(0.005, 0.02))
    params = augmentation.draw(ParamSampler(4, generator()))
    noise = waveform(augmentation, torch.zeros(4, RATE), params)
    torch.testing.assert_close(noise.std(dim=1), params["noise"][0], rtol=1e-3, atol=0)


def test_noise_has_the_drawn_signal_to_noise_ratio():
    std = torch.tensor([1.0, 0.1, 0.01])[:, None]
    wave = std * torch.randn(3, RATE, generator=generator())
    augmentation = Augmentation(RATE, noise_snr_db=Uniform(0, 30), noise_colours=(0, 1, 2))
    params = augmentation.draw(ParamSampler(3, generator()))
    noise = waveform(augmentation, wave, params) - wave
    ratio = 10 * torch.log10(wave.square().mean(dim=1) / noise.square().mean(dim=1))
    torch.testing.assert_close(ratio, params["noise"][1], atol=0.01, rtol=0)
    assert params["noise"][1].unique().numel() == 3


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_noise_falls_with_frequency_by_its_color(colour):
    power = torch.fft.rfft(noise_bank([colour], 1 << 18)).abs().square()[0]
    octaves = torch.tensor([power[2**k : 2 ** (k + 1)].mean() for k in range(8, 16)])
    slope = torch.log2(octaves).diff().mean()
    assert abs(slope + colour) < 0.1


def test_masks_zero_rows_and_columns_up_to_their_width():
    augmentation = Augmentation(RATE, time_masks=MaskSpec(1, 0.5), frequency_masks=MaskSpec(1, 0.25))
    params = augmentation.draw(ParamSampler(50, generator()))
    masked = augmentation.transform_stage("image", torch.ones(50, 1, 128, 100), params)[:, 0]
    rows, columns = masked.amax(dim=2), masked.amax(dim=1)
    torch.testing.assert_close(masked, rows[:, :, None] * columns[:, None, :])
    assert rows.mean(dim=1).min() >= 0.75 - 1 / 128
    assert columns.mean(dim=1).min() >= 0.5 - 1 / 100
    assert rows.mean() < 0.95
    assert columns.mean() < 0.85


def test_probability_below_1_leaves_clips_unchanged():
    params = Augmentation(RATE, time_stretch=Uniform(0.8, 0.9, 0.5)).draw(ParamSampler(400, generator()))
    assert 150 < int((params["time_stretch"] == 1).sum()) < 250


def test_one_of_applies_at_most_one_transform_to_a_clip():
    augmentation = Augmentation(
        RATE, time_stretch=Uniform(0.8, 0.9, 0.5), pitch_shift=Uniform(-2, 2, 0.3, integer=True), one_of=True
    )
    params = augmentation.draw(ParamSampler(4000, generator(), augmented=torch.arange(4000) < 3000))
    stretched, shifted = params["time_stretch"] != 1, params["pitch_shift"] != 0
    assert not (stretched & shifted).any()
    assert not (stretched | shifted)[3000:].any()
    assert abs(stretched[:3000].float().mean() - 0.5) < 0.03
    # integers from -2 to 2 with equal probability: a fifth of them is no shift
    assert abs(shifted[:3000].float().mean() - 0.3 * 4 / 5) < 0.03
    assert params["pitch_shift"].unique().tolist() == [-2, -1, 0, 1, 2]


def test_equal_seeds_draw_equal_parameters():
    augmentation = Augmentation(RATE, time_stretch=Uniform(0.8, 1.2), pitch_shift=Uniform(-2, 2))
    first, again, other = (augmentation.draw(ParamSampler(8, generator(seed))) for seed in (1, 1, 2))
    assert torch.equal(first["time_stretch"], again["time_stretch"])
    assert torch.equal(first["pitch_shift"], again["pitch_shift"])
    assert not torch.equal(first["time_stretch"], other["time_stretch"])


def test_a_batch_equals_its_clips_one_by_one():
    """The parameters of a clip do not affect other clips, in the complete front end."""
    augmentation = Augmentation(
        RATE,
        time_stretch=Uniform(0.8, 1.2),
        pitch_shift=Uniform(-2, 2),
        noise_snr_db=Uniform(10, 20),
        time_shift=Uniform(0, 1),
    )
    front = FrontEnd(LOGMEL, augmentation=augmentation)
    wave = (3000 * torch.randn(4, RATE, generator=generator())).short()
    params = augmentation.draw(ParamSampler(4, generator()))
    one_by_one = torch.cat([front(wave[i : i + 1], params.rows(slice(i, i + 1))) for i in range(4)])
    torch.testing.assert_close(front._images(wave, params), one_by_one, atol=1e-3, rtol=0)


@pytest.mark.parametrize("per_band", [False, True])
def test_normalized_training_images_have_mean_0_and_deviation_1(per_band):
    """Over all cells, or in each band."""
    front = FrontEnd(LOGMEL, per_band=per_band)
    colored = (3000 * torch.randn(6, RATE, generator=generator())).cumsum(dim=1) / 50
    batches = [wave.clamp(-30_000, 30_000).short() for wave in colored.split(4)]
    front.fit(batches)
    image = torch.cat([front(batch) for batch in batches])
    std, mean = torch.std_mean(image, dim=(0, 1, 3) if per_band else (0, 1, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
    torch.testing.assert_close(std, torch.ones_like(std), atol=1e-4, rtol=0)
    assert front.mean.shape == ((128, 1) if per_band else ())


def test_an_image_is_not_normalized_twice():
    with pytest.raises(ArgumentError, match="`per_band` and `image`"):
        FrontEnd(LOGMEL, NormalizeAndResize(128, 100, 128), per_band=True)


def on_meta(value):
    return tuple(map(on_meta, value)) if isinstance(value, tuple) else value.to("meta")


def test_the_front_end_never_synchronizes_and_compiles_to_one_graph():
    """Meta tensors have no values, so reading one, which would synchronize an accelerator, is an error."""
    augmentation = Augmentation(
        RATE,
        time_stretch=Uniform(0.8, 1.2),
        pitch_shift=Uniform(-2, 2),
        noise_std=Uniform(0, 0.1),
        noise_snr_db=Uniform(0, 30),
        gain_db=Uniform(-6, 6),
        polarity=0.5,
        time_shift=Uniform(0, 1),
        time_masks=MaskSpec(2, 0.2),
        frequency_masks=MaskSpec(2, 0.2),
    )
    front = FrontEnd(LOGMEL, augmentation=augmentation)
    params = augmentation.draw(ParamSampler(4, generator()))
    front = copy.deepcopy(front).to("meta")
    params = AugmentParams({name: on_meta(value) for name, value in params.values.items()})
    wave = torch.zeros(4, RATE, dtype=torch.int16, device="meta")
    assert front(wave, params).shape == (4, 1, 128, 101)
    assert torch.compile(front, backend="aot_eager", fullgraph=True)(wave, params).shape == (4, 1, 128, 101)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"time_stretch": Uniform(1.2, 0.8)}, "^`time_stretch.low`=1.2 must be at most `time_stretch.high`=0.8"),
        ({"time_stretch": Uniform(0.0, 1.0)}, "^`time_stretch.low`=0 must be between 0.1 and 10"),
        ({"time_stretch": Uniform(math.nan, 1.0)}, "^`time_stretch.low`=nan must be between 0.1 and 10"),
        ({"noise_std": Uniform(-1.0, 0.0)}, "^`noise_std.low`=-1 must be between 0 and 10"),
        ({"gain_db": Uniform(0, 1, 1.5)}, "^`gain_db.p`=1.5 must be between 0 and 1"),
        ({"pitch_shift": Uniform(-1.5, 1, integer=True)}, "^`pitch_shift.integer`=true requires integers"),
        ({"polarity": 2.0}, "^`polarity`=2 must be between 0 and 1"),
        ({"time_masks": MaskSpec(0, 0.1)}, "^`time_masks.count`=0 must be between 1 and 100"),
        ({"frequency_masks": MaskSpec(1, 1.1)}, "^`frequency_masks.width`=1.1 must be between 0 and 1"),
        ({"noise_colours": ()}, "^`noise_colours` is empty"),
        ({"noise_colours": (5.0,)}, "^`noise_colours`=5 must be between -4 and 4"),
        (
            {"noise_colours": (0.0,) * 1000, "noise_std": Uniform(0, 1)},
            "^`noise_colours`: a noise bank of 1000 colors takes 0.7 GB",
        ),
        (
            {"time_stretch": Uniform(0.8, 1.2), "time_shift": Uniform(0, 1, 0.5), "one_of": True},
            "^`time_stretch.p`, `time_shift.p`: their sum 1.5 must not exceed 1, because `one_of`",
        ),
    ],
)
def test_invalid_values_are_refused_by_name(values, message):
    with pytest.raises(ArgumentError, match=message):
        Augmentation(RATE, **values)
