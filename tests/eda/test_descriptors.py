import librosa
import numpy as np
import pytest
import torch

from soundfold.eda.descriptors import LOWEST_DB, Descriptors, describe
from soundfold.features.logmel import LogMel

RATE = 44100
LOGMEL = {"sample_rate": RATE, "n_fft": 2048, "hop_length": 441, "n_mels": 64, "f_min": 0.0, "f_max": 20000.0}


def batch(waves: list[np.ndarray], **changes) -> Descriptors:
    """Describe one batch; shorter clips are padded with zeros."""
    lengths = torch.tensor([len(wave) for wave in waves])
    padded = torch.zeros(len(waves), int(lengths.max()))
    for row, wave in zip(padded, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    return describe(padded, lengths, LogMel(**{**LOGMEL, **changes}))


def reference(wave: np.ndarray, hop: int) -> dict[str, float]:
    """librosa's features, averaged over frames that are not digital silence; the RMS over all frames."""
    rms = librosa.feature.rms(y=wave, frame_length=2048, hop_length=hop)[0]
    options = {"y": wave, "sr": RATE, "n_fft": 2048, "hop_length": hop}
    frames = {
        "centroid": librosa.feature.spectral_centroid(**options),
        "bandwidth": librosa.feature.spectral_bandwidth(**options),
        "rolloff": librosa.feature.spectral_rolloff(**options, roll_percent=0.85),
        "crossing_rate": librosa.feature.zero_crossing_rate(wave, frame_length=2048, hop_length=hop, threshold=0),
    }
    means = {name: float(values[0][rms > 0].mean()) for name, values in frames.items()}
    return {"rms_db": 20 * np.log10(rms.mean()), **means}


@pytest.fixture(scope="module")
def clips(real_or_synthetic_clips) -> list[np.ndarray]:
    """Every 57th clip as stored in the packed store, of different lengths, many with digital silence."""
    waves = [real_or_synthetic_clips.wave(i) for i in range(0, 400, 57)]
    return [wave[: len(wave) - 5003 * (i % 3)] for i, wave in enumerate(waves)]


@pytest.mark.parametrize("hop", [441, 512])
def test_descriptors_match_librosa(clips, hop):
    assert any((wave[-4096:] == 0).all() for wave in clips)
    got = batch(clips, hop_length=hop)
    for i, wave in enumerate(clips):
        for name, value in reference(wave, hop).items():
            assert float(getattr(got, name)[i]) == pytest.approx(value, rel=2e-4), (i, name)


def test_log_mel_statistics_exclude_padding(clips):
    got = batch(clips, hop_length=441)
    for i, wave in enumerate(clips):
        mel = librosa.feature.melspectrogram(
            y=wave, sr=RATE, n_fft=2048, hop_length=441, n_mels=64, fmin=0.0, fmax=20000.0, pad_mode="constant"
        )
        log_mel = librosa.power_to_db(mel)
        np.testing.assert_allclose(got.band_mean[i], log_mel.mean(axis=1), atol=0.02)
        np.testing.assert_allclose(got.band_std[i], log_mel.std(axis=1), atol=0.02)


def test_a_clip_does_not_depend_on_its_batch(clips):
    together = batch(clips[:4])
    for i, wave in enumerate(clips[:4]):
        single = batch([wave])
        for name, value in vars(single).items():
            torch.testing.assert_close(getattr(together, name)[i], value[0], rtol=1e-4, atol=1e-4, msg=name)


def test_silence_after_a_tone_changes_only_its_energy():
    tone = (0.5 * np.sin(2 * np.pi * 3000 * np.arange(RATE) / RATE)).astype(np.float32)
    got = batch([tone, np.concatenate([tone, np.zeros(RATE, np.float32)])])
    assert float(got.rms_db[0]) == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.2)
    assert got.rms_db[0] - got.rms_db[1] == pytest.approx(20 * np.log10(2), abs=0.2)
    assert got.centroid.tolist() == pytest.approx([3000, 3000], rel=0.02)
    assert got.crossing_rate.tolist() == pytest.approx([6000 / RATE] * 2, rel=0.05)


def test_descriptors_of_silence():
    got = batch([np.zeros(RATE, np.float32), np.ones(RATE // 2, np.float32)])
    assert float(got.rms_db[0]) == LOWEST_DB
    assert [float(x[0]) for x in (got.centroid, got.bandwidth, got.rolloff, got.crossing_rate)] == [0, 0, 0, 0]
    assert all(torch.isfinite(values).all() for values in vars(got).values())
