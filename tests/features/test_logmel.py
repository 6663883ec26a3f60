import librosa
import numpy as np
import pytest
import torch

from soundfold.errors import ArgumentError
from soundfold.features.logmel import LogMel, NormalizeAndResize, area_weights, mel_bank
from soundfold.features.pipeline import FrontEnd
from soundfold.io.pcm import pcm_to_float

RATE = 44100
LOGMEL = {"sample_rate": RATE, "n_fft": 2048, "hop_length": 441, "n_mels": 128, "f_min": 0.0, "f_max": 20000.0}
SEED = {**LOGMEL, "hop_length": 512, "f_max": 22050.0, "relative": True}


def synthetic() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    time = np.arange(2 * RATE) / RATE
    chirp = np.sin(2 * np.pi * (200 * time + 2000 * time**2))
    clicks = (np.arange(2 * RATE) % 5000 == 0).astype(float)
    return [a.astype(np.float32) for a in (0.5 * chirp, 0.1 * rng.standard_normal(2 * RATE), clicks)]


@pytest.fixture(params=["chirp, noise and clicks", "real or synthetic"])
def clips(request, real_or_synthetic_clips) -> list[np.ndarray]:
    if request.param == "chirp, noise and clicks":
        return synthetic()
    return [real_or_synthetic_clips.wave(number) for number in range(0, 400, 40)]


def reference(wave: np.ndarray, *, hop_length: int, f_max: float, ref) -> np.ndarray:
    mel = librosa.feature.melspectrogram(
        y=wave, sr=RATE, n_fft=2048, hop_length=hop_length, n_mels=128, fmin=0.0, fmax=f_max, pad_mode="constant"
    )
    return librosa.power_to_db(mel, ref=ref)


def test_mel_bank_equals_librosa():
    ours = LogMel(**{**LOGMEL, "f_min": 20.0, "f_max": 16000.0}).bank.numpy()
    theirs = librosa.filters.mel(sr=RATE, n_fft=2048, n_mels=128, fmin=20.0, fmax=16000.0)
    np.testing.assert_allclose(ours, theirs, atol=1e-7)


@pytest.mark.parametrize(("values", "ref"), [(LOGMEL, 1.0), (SEED, np.max)])
def test_parity_with_librosa(clips, values, ref):
    front = LogMel(**values)
    for wave in clips:
        ours = front(torch.from_numpy(wave)[None])[0, 0].numpy()
        theirs = reference(wave, hop_length=values["hop_length"], f_max=values["f_max"], ref=ref)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).mean() < 0.05


@pytest.mark.parametrize(("win_length", "n_fft"), [(743, 1024), (744, 1024), (100, 2048)])
def test_a_window_shorter_than_the_transform_is_librosas(clips, win_length, n_fft):
    sizes = {"n_fft": n_fft, "hop_length": 160, "win_length": win_length}
    logmel = LogMel(16000, n_mels=40, f_min=0.0, f_max=8000.0, **sizes)
    for wave in clips:
        ours = logmel(torch.from_numpy(wave)[None])[0, 0].numpy()
        mel = librosa.feature.melspectrogram(y=wave, sr=16000, n_mels=40, fmax=8000.0, pad_mode="constant", **sizes)
        assert np.abs(ours - librosa.power_to_db(mel)).mean() < 0.05


def exact_area(image: np.ndarray, size: int) -> np.ndarray:
    """Average by area with differences of the running integral: exact, and independent of the tested code."""
    for axis in (0, 1):
        n = image.shape[axis]
        integral = np.insert(image.cumsum(axis=axis), 0, 0.0, axis=axis)
        ends = np.linspace(0, n, size + 1)
        at_ends = np.apply_along_axis(
            lambda line, n=n, ends=ends: np.interp(ends, np.arange(n + 1), line), axis, integral
        )
        image = np.diff(at_ends, axis=axis) * size / n
    return image


def test_parity_with_the_published_notebook_image(clips):
    front, resize = LogMel(**SEED), NormalizeAndResize(n_mels=128, frames=500, size=128)
    for wave in clips:
        wave = wave[: 5 * RATE]
        ours = resize(front(torch.from_numpy(wave)[None]))[0, 0].numpy()
        image = reference(wave, hop_length=512, f_max=22050.0, ref=np.max)
        image = (image - image.mean()) / image.std()
        image = np.pad(image, ((0, 0), (0, 500 - image.shape[1])))
        assert ours.shape == (128, 128)
        assert np.abs(ours - exact_area(image, 128)).mean() < 0.01


def test_area_weights_of_a_hand_computed_case():
    np.testing.assert_allclose(area_weights(3, 2).numpy(), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], rtol=1e-6)


def test_floor_is_per_clip():
    loud, soft = torch.from_numpy(synthetic()[0]), torch.from_numpy(synthetic()[1] * 1e-3)
    front = LogMel(**LOGMEL)
    batch, single = front(torch.stack([loud, soft])), front(soft[None])
    torch.testing.assert_close(batch[1], single[0])


@pytest.mark.parametrize("seconds", [0.3, 1, 1.5])
def test_an_image_is_normalized_padded_or_cut_and_averaged(seconds):
    """As in that order, by a front end that scales the log-mel only once."""
    front, resize = LogMel(**SEED), NormalizeAndResize(n_mels=128, frames=87, size=32)
    wave = torch.from_numpy(synthetic()[1])[None, : round(seconds * RATE)]
    log_mel = front(wave)[0, 0]
    image = (log_mel - log_mel.mean()) / log_mel.std(correction=0)
    image = torch.nn.functional.pad(image, (0, 87 - image.shape[1]))
    expected = area_weights(128, 32) @ image @ area_weights(87, 32).T
    torch.testing.assert_close(resize(front(wave))[0, 0], expected, atol=1e-4, rtol=0)
    ours = FrontEnd(front, resize)((wave * 32768).round().short())[0, 0]
    torch.testing.assert_close(ours, expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("per_band", [False, True])
@pytest.mark.parametrize("values", [LOGMEL, SEED])
def test_images_are_log_mels_normalized_by_the_statistics(values, per_band):
    """The scale of the decibel, the mean and the deviation are applied at once."""
    front = FrontEnd(LogMel(**values), per_band=per_band)
    wave = (torch.from_numpy(np.stack(synthetic()[:2])) * 32768).round().clamp(-32768, 32767).short()
    front.fit([wave])
    log_mel = front.logmel(pcm_to_float(wave))
    expected = (log_mel - front.mean) / front.std
    torch.testing.assert_close(front.normalize(log_mel), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(front(wave), expected, atol=1e-5, rtol=0)


def test_silence_is_finite():
    front, resize = LogMel(**SEED), NormalizeAndResize(n_mels=128, frames=500, size=128)
    assert torch.isfinite(resize(front(torch.zeros(1, 5 * RATE)))).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"f_max": 23000.0}, "^`f_max`=23000 Hz is above half of `sample_rate`=44100 Hz"),
        ({"f_min": 30000.0}, "^`f_min`=30000.0 must be at least 0 and below `f_max`"),
        ({"n_fft": 512}, "of `n_mels`=128 bands contain no frequency bin of `n_fft`=512"),
        ({"n_fft": 0}, "^`n_fft`=0 must be between 2 and 32768"),
        ({"n_fft": 1}, "^`n_fft`=1 must be between 2 and 32768"),
        ({"win_length": 2049}, "^`win_length`=2049 must be between 1 and `n_fft`=2048"),
        ({"top_db": 0.0}, "^`top_db`=0 must be above 0"),
        ({"top_db": -80.0}, "^`top_db`=-80 must be above 0"),
        ({"top_db": float("nan")}, "^`top_db`=nan must be above 0"),
    ],
)
def test_invalid_values_are_refused_by_name(change, message):
    with pytest.raises(ArgumentError, match=message):
        LogMel(**{**LOGMEL, **change})


def test_the_mel_product_on_a_cpu_equals_the_dense_product():
    """The product by groups of bands skips only zeros of the bank, for any pitch shifts of the batch."""
    front = LogMel(**{**LOGMEL, "n_mels": 90})
    wave = torch.from_numpy(np.stack([synthetic()[1]] * 3))
    semitones = torch.tensor([-24.0, 0.0, 7.5])
    bank = mel_bank(front.edges, front.frequencies * torch.exp2(semitones[:, None] / 12))
    dense = front.to_db(bank @ front.power(wave))
    torch.testing.assert_close(front(wave, pitch_shift=semitones), dense, atol=1e-3, rtol=0)
