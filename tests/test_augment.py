import librosa
import numpy as np
import pytest
import soundfile
import torch

from soundfold.data.metadata import read_table
from soundfold.errors import InputError
from soundfold.frontend.augment import Augmentation, mask, vary_waveform
from soundfold.frontend.logmel import LogMel
from soundfold.frontend.mixing import Mixup, mix

RATE = 44100
FRONT = LogMel(sample_rate=RATE, n_fft=2048, hop_length=441, n_mels=128, f_min=0.0, f_max=20000.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_identity_draws_change_nothing():
    wave = 0.1 * torch.randn(3, RATE, generator=generator())
    draw = Augmentation().draw(3, RATE, generator())
    torch.testing.assert_close(vary_waveform(wave, draw, generator()), wave)
    torch.testing.assert_close(FRONT(wave, torch.ones(3), torch.zeros(3)), FRONT(wave), atol=1e-4, rtol=0)


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


@pytest.mark.parametrize("change", ["stretch", "shift"])
def test_parity_with_a_phase_vocoder_on_real_clips(esc10, change):
    table = read_table(esc10 / "meta" / "esc50.csv")
    files = [table.files[int(np.flatnonzero(table.targets == c)[7])] for c in range(len(table.classes))]
    correlations = []
    for name, amount in zip(files, [0.8, 1.2] * 5 if change == "stretch" else [-2.0, 2.0] * 5, strict=True):
        wave, _ = soundfile.read(esc10 / "audio" / name, dtype="float32", frames=5 * RATE)
        if change == "stretch":
            theirs, ours = librosa.effects.time_stretch(wave, rate=amount), {"rate": torch.tensor([amount])}
        else:
            theirs = librosa.effects.pitch_shift(wave, sr=RATE, n_steps=amount)
            ours = {"semitones": torch.tensor([amount])}
        theirs = librosa.util.fix_length(theirs, size=len(wave))
        a = FRONT(torch.from_numpy(wave)[None], **ours).flatten()
        b = FRONT(torch.from_numpy(theirs)[None]).flatten()
        correlations.append(float(torch.corrcoef(torch.stack([a, b]))[0, 1]))
    assert np.median(correlations) >= 0.97
    assert min(correlations) >= 0.85


def test_waveform_draws_act_per_clip():
    wave = torch.zeros(2, 1000)
    wave[:, 0] = 1.0
    augmentation = Augmentation(gain_db=(-6.0, 6.0), roll=0.5, noise=(0.0, 0.0))
    draw = augmentation.draw(2, 1000, generator())
    varied = vary_waveform(wave, draw, generator())
    for clip in range(2):
        assert varied[clip].abs().argmax() == draw.roll[clip] % 1000
        torch.testing.assert_close(varied[clip].abs().max(), draw.gain[clip])
    assert draw.roll[0] != draw.roll[1]
    assert 10 ** (-6 / 20) <= draw.gain.min() < draw.gain.max() <= 10 ** (6 / 20)


def test_noise_has_the_drawn_deviation():
    draw = Augmentation(noise=(0.005, 0.02)).draw(4, RATE, generator())
    noise = vary_waveform(torch.zeros(4, RATE), draw, generator())
    torch.testing.assert_close(noise.std(dim=1), draw.noise, rtol=0.02, atol=0)


def test_masks_cover_their_fractions_and_nothing_else():
    augmentation = Augmentation(time_masks=1, time_width=0.5, frequency_masks=1, frequency_width=0.25)
    draw = augmentation.draw(50, RATE, generator())
    kept = mask(torch.ones(50, 1, 128, 100), draw)[:, 0]
    rows, columns = kept.amax(dim=2), kept.amax(dim=1)
    torch.testing.assert_close(kept, rows[:, :, None] * columns[:, None, :])
    assert rows.mean(dim=1).min() >= 0.75 - 1 / 128
    assert columns.mean(dim=1).min() >= 0.5 - 1 / 100
    assert rows.mean() < 0.95
    assert columns.mean() < 0.85


def test_probability_leaves_clips_alone():
    draw = Augmentation(stretch=(0.8, 0.9), probability=0.5).draw(400, RATE, generator())
    assert 150 < int((draw.rate == 1).sum()) < 250


def test_same_seed_same_draw():
    augmentation = Augmentation(stretch=(0.8, 1.2), semitones=(-2, 2), gain_db=(-6, 6))
    first, again, other = (augmentation.draw(8, RATE, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.rate, again.rate)
    assert torch.equal(first.semitones, again.semitones)
    assert not torch.equal(first.rate, other.rate)


def test_mixup_mixes_images_and_targets_alike():
    image, target = torch.randn(6, 1, 4, 5, generator=generator()), torch.arange(6) % 3
    draw = Mixup(alpha=1.0).draw(6, generator())
    mixed, soft = mix(image, target, 3, draw)
    for clip in range(6):
        share, partner = draw.weight[clip], draw.partner[clip]
        torch.testing.assert_close(mixed[clip], share * image[clip] + (1 - share) * image[partner])
        expected = torch.zeros(3)
        expected[target[clip]] += share
        expected[target[partner]] += 1 - share
        torch.testing.assert_close(soft[clip], expected)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(6))


def test_beta_weights_have_their_moments():
    weight = Mixup(alpha=0.4).draw(20000, generator()).weight
    assert abs(weight.mean() - 0.5) < 0.01
    assert abs(weight.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.005


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"stretch": (1.2, 0.8)}, "stretch"),
        ({"stretch": (0.0, 1.0)}, "stretch"),
        ({"noise": (-1.0, 0.0)}, "noise"),
        ({"roll": 2.0}, "roll"),
        ({"time_masks": -1}, "time_masks"),
    ],
)
def test_bad_values_are_refused_by_name(values, word):
    with pytest.raises(InputError, match=f"augment.{word}"):
        Augmentation(**values)
