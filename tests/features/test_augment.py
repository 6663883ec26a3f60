import copy
from dataclasses import fields

import librosa
import numpy as np
import pytest
import soundfile
import torch

from soundfold.data.tables import read_table
from soundfold.errors import InputError
from soundfold.features.augment import Augmentation, AugmentParams, MaskSpec, Uniform, apply_masks, noise_bank
from soundfold.features.logmel import LogMel
from soundfold.features.pipeline import FrontEnd

RATE = 44100
FRONT = LogMel(sample_rate=RATE, n_fft=2048, hop_length=441, n_mels=128, f_min=0.0, f_max=20000.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_identity_draws_change_nothing():
    wave = 0.1 * torch.randn(3, RATE, generator=generator())
    augmentation = Augmentation(
        RATE, time_stretch=Uniform(1, 1), pitch_shift=Uniform(0, 0), noise_std=Uniform(0, 0), gain_db=Uniform(0, 0)
    )
    draw = augmentation.draw(3, generator())
    varied = FRONT(augmentation.apply_to_wave(wave, draw), draw.time_stretch, draw.pitch_shift)
    torch.testing.assert_close(varied, FRONT(wave), atol=1e-4, rtol=0)
    assert Augmentation(RATE).apply_to_wave(wave, Augmentation(RATE).draw(3, generator())) is wave


@pytest.mark.parametrize("semitones", [-2.0, 2.0, 5.0])
def test_shifted_tone_peaks_in_its_band(semitones):
    time = torch.arange(RATE) / RATE
    frequency = 1000.0
    level = FRONT(torch.sin(2 * np.pi * frequency * time)[None], semitones=torch.tensor([semitones]))[0, 0]
    expected = torch.sin(2 * np.pi * frequency * 2 ** (semitones / 12) * time)[None]
    assert level[:, 50].argmax() == FRONT(expected)[0, 0, :, 50].argmax()
    # the tone keeps its energy
    assert abs(level[:, 50].max() - FRONT(expected)[0, 0, :, 50].max()) < 3


@pytest.mark.parametrize("rate", [0.8, 1.2])
def test_stretched_clicks_move(rate):
    wave = torch.zeros(1, RATE)
    wave[0, 22050] = 1.0
    loudness = FRONT(wave, rate=torch.tensor([rate]))[0, 0].sum(dim=0)
    assert abs(loudness.argmax() * 441 / RATE - 0.5 / rate) <= 0.011
    # one clip's rate does not touch its neighbour
    both = FRONT(wave.expand(2, -1), rate=torch.tensor([rate, 1.0]))
    torch.testing.assert_close(both[1], FRONT(wave)[0], atol=1e-4, rtol=0)


def test_a_faster_clip_ends_in_silence():
    wave = 0.1 * torch.randn(1, RATE, generator=generator())
    level = FRONT(wave, rate=torch.tensor([1.25]))[0, 0]
    assert (level[:, 82:] == level.min()).all()
    assert (level[:, :79] > level.min()).all()


@pytest.mark.parametrize(("rate", "semitones"), [(0.8, 0.0), (1.2, 0.0), (1.0, -2.0), (1.0, 2.0)])
def test_parity_with_a_phase_vocoder_on_real_clips(esc10, rate, semitones):
    """Forty clips, four of each class: as near to librosa's vocoder as that is to itself with a longer window."""
    table = read_table(esc10 / "meta" / "esc50.csv")
    ours, theirs = [], []
    for clip in np.concatenate([np.flatnonzero(table.targets == c)[[3, 13, 23, 33]] for c in range(10)]):
        wave, _ = soundfile.read(esc10 / "audio" / table.files[clip], dtype="float32", frames=5 * RATE)
        vocoders = []
        for n_fft in (2048, 4096):
            if semitones:
                changed = librosa.effects.pitch_shift(wave, sr=RATE, n_steps=semitones, n_fft=n_fft)
            else:
                changed = librosa.effects.time_stretch(wave, rate=rate, n_fft=n_fft)
            changed = torch.from_numpy(librosa.util.fix_length(changed, size=len(wave)))
            vocoders.append(FRONT(changed[None]))
        image = FRONT(torch.from_numpy(wave)[None], torch.tensor([rate]), torch.tensor([semitones]))
        image, short, long = (level.numpy().ravel() for level in (image, *vocoders))
        ours.append(np.corrcoef(image, short)[0, 1])
        theirs.append(np.corrcoef(long, short)[0, 1])
    assert np.median(ours) >= 0.975
    assert min(ours) >= 0.85
    assert np.median(ours) >= np.median(theirs)


def test_waveform_draws_act_per_clip():
    wave = torch.zeros(2, 1000)
    wave[:, 0] = 1.0
    augmentation = Augmentation(1000, gain_db=Uniform(-6, 6), time_shift=Uniform(-0.5, 0.5))
    draw = augmentation.draw(2, generator())
    varied = augmentation.apply_to_wave(wave, draw)
    for clip in range(2):
        assert varied[clip].argmax() == (1000 * draw.time_shift[clip]).long() % 1000
        torch.testing.assert_close(varied[clip].max(), draw.gain[clip])
    assert draw.time_shift[0] != draw.time_shift[1]
    assert 10 ** (-6 / 20) <= draw.gain.min() < draw.gain.max() <= 10 ** (6 / 20)


def test_polarity_turns_its_share_of_clips():
    augmentation = Augmentation(10, polarity=0.25)
    sign = augmentation.apply_to_wave(torch.ones(2000, 10), augmentation.draw(2000, generator())).mean(dim=1)
    assert set(sign.tolist()) == {-1.0, 1.0}
    assert abs((sign < 0).float().mean() - 0.25) < 0.04


def test_noise_has_the_drawn_deviation():
    augmentation = Augmentation(RATE, noise_std=Uniform(0.005, 0.02))
    draw = augmentation.draw(4, generator())
    noise = augmentation.apply_to_wave(torch.zeros(4, RATE), draw)
    torch.testing.assert_close(noise.std(dim=1), draw.noise_std, rtol=1e-3, atol=0)


def test_noise_lies_the_drawn_ratio_below_each_clip():
    level = torch.tensor([1.0, 0.1, 0.01])[:, None]
    wave = level * torch.randn(3, RATE, generator=generator())
    augmentation = Augmentation(RATE, noise_snr_db=Uniform(0, 30), noise_colours=(0, 1, 2))
    draw = augmentation.draw(3, generator())
    noise = augmentation.apply_to_wave(wave, draw) - wave
    ratio = 10 * torch.log10(wave.square().mean(dim=1) / noise.square().mean(dim=1))
    torch.testing.assert_close(ratio, draw.noise_snr, atol=0.01, rtol=0)
    assert draw.noise_snr.unique().numel() == 3


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_noise_has_its_colour(colour):
    power = torch.fft.rfft(noise_bank([colour], 1 << 18)).abs().square()[0]
    octaves = torch.tensor([power[2**k : 2 ** (k + 1)].mean() for k in range(8, 16)])
    fall = torch.log2(octaves).diff().mean()
    assert abs(fall + colour) < 0.1


def test_masks_cover_their_fractions_and_nothing_else():
    augmentation = Augmentation(RATE, time_masks=MaskSpec(1, 0.5), frequency_masks=MaskSpec(1, 0.25))
    draw = augmentation.draw(50, generator())
    kept = apply_masks(torch.ones(50, 1, 128, 100), draw)[:, 0]
    rows, columns = kept.amax(dim=2), kept.amax(dim=1)
    torch.testing.assert_close(kept, rows[:, :, None] * columns[:, None, :])
    assert rows.mean(dim=1).min() >= 0.75 - 1 / 128
    assert columns.mean(dim=1).min() >= 0.5 - 1 / 100
    assert rows.mean() < 0.95
    assert columns.mean() < 0.85


def test_probability_leaves_clips_alone():
    draw = Augmentation(RATE, time_stretch=Uniform(0.8, 0.9, 0.5)).draw(400, generator())
    assert 150 < int((draw.time_stretch == 1).sum()) < 250


def test_one_of_varies_each_clip_by_one_thing():
    augmentation = Augmentation(
        RATE, time_stretch=Uniform(0.8, 0.9, 0.5), pitch_shift=Uniform(-2, 2, 0.3, integer=True), one_of=True
    )
    draw = augmentation.draw(4000, generator(), varied=torch.arange(4000) < 3000)
    stretched, shifted = draw.time_stretch != 1, draw.pitch_shift != 0
    assert not (stretched & shifted).any()
    assert not (stretched | shifted)[3000:].any()
    assert abs(stretched[:3000].float().mean() - 0.5) < 0.03
    # whole numbers from -2 to 2, each as likely: a fifth of them is no shift
    assert abs(shifted[:3000].float().mean() - 0.3 * 4 / 5) < 0.03
    assert draw.pitch_shift.unique().tolist() == [-2, -1, 0, 1, 2]


def test_same_seed_same_draw():
    augmentation = Augmentation(RATE, time_stretch=Uniform(0.8, 1.2), pitch_shift=Uniform(-2, 2))
    first, again, other = (augmentation.draw(8, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.time_stretch, again.time_stretch)
    assert torch.equal(first.pitch_shift, again.pitch_shift)
    assert not torch.equal(first.time_stretch, other.time_stretch)


def test_a_batch_is_its_clips_one_by_one():
    """The whole front end: what a clip draws does not touch its neighbours."""
    augmentation = Augmentation(
        RATE,
        time_stretch=Uniform(0.8, 1.2),
        pitch_shift=Uniform(-2, 2),
        noise_snr_db=Uniform(10, 20),
        time_shift=Uniform(0, 1),
    )
    front = FrontEnd(FRONT, augmentation=augmentation)
    wave = (3000 * torch.randn(4, RATE, generator=generator())).short()
    draw = augmentation.draw(4, generator())
    alone = torch.cat([front(wave[i : i + 1], draw.rows(slice(i, i + 1))) for i in range(4)])
    torch.testing.assert_close(front._images(wave, draw), alone, atol=1e-3, rtol=0)


def test_an_accelerator_is_never_waited_for():
    """On the meta device a tensor has no values: reading one, as a synchronisation does, is an error. Traced whole, the
    front end has no branch on a value either, so it compiles in one piece."""
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
    front = FrontEnd(FRONT, augmentation=augmentation)
    draw = augmentation.draw(4, generator())
    front = copy.deepcopy(front).to("meta")
    draw = AugmentParams(**{f.name: getattr(draw, f.name).to("meta") for f in fields(AugmentParams)})
    wave = torch.zeros(4, RATE, dtype=torch.int16, device="meta")
    assert front(wave, draw).shape == (4, 1, 128, 101)
    assert torch.compile(front, backend="aot_eager", fullgraph=True)(wave, draw).shape == (4, 1, 128, 101)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"time_stretch": Uniform(1.2, 0.8)}, "time_stretch: low"),
        ({"time_stretch": Uniform(0.0, 1.0)}, r"time_stretch\.low"),
        ({"noise_std": Uniform(-1.0, 0.0)}, r"noise_std\.low"),
        ({"gain_db": Uniform(0, 1, 1.5)}, "gain_db"),
        ({"polarity": 2.0}, "polarity"),
        ({"time_masks": MaskSpec(0, 0.1)}, r"time_masks\.count"),
        ({"frequency_masks": MaskSpec(1, 1.1)}, r"frequency_masks\.width"),
        ({"noise_colours": ()}, "noise_colours"),
        ({"time_stretch": Uniform(0.8, 1.2), "time_shift": Uniform(0, 1, 0.5), "one_of": True}, "one_of"),
    ],
)
def test_bad_values_are_refused_by_name(values, word):
    with pytest.raises(InputError, match=f"augment.{word}"):
        Augmentation(RATE, **values)
