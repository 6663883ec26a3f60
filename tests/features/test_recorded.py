"""Background noise and impulse responses from folders, and filters, measured on sound."""

import dataclasses
import shutil

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from helpers.augmented import epoch, module, noise, to_meta
from helpers.tiny import overrides, render

from soundfold.config import compose_config
from soundfold.data.recordings import check_recordings
from soundfold.data.splits import Split
from soundfold.data.tables import ClipTable
from soundfold.errors import ArgumentError, InputError
from soundfold.experiment import build
from soundfold.experiment.setup import open_run
from soundfold.features.augment_params import ParamSampler
from soundfold.features.logmel import LogMel
from soundfold.features.recorded import BackgroundNoise, ImpulseResponse
from soundfold.features.recordings import Recordings
from soundfold.features.spectrum import Filter

RATE = 8000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def recordings(*waves: np.ndarray) -> Recordings:
    length = max(map(len, waves))
    samples = torch.tensor(np.stack([np.pad(wave, (0, length - len(wave))) for wave in waves]) * 32767).short()
    names = tuple(f"{i}.wav" for i in range(len(waves)))
    return Recordings(samples, torch.tensor([len(wave) for wave in waves]), names, names, "digest")


def write(folder, **waves) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name, wave in waves.items():
        soundfile.write(folder / f"{name}.wav", wave, RATE, subtype="FLOAT")
    return str(folder)


def front_end(folder, *options: str):
    return build.front_end(compose_config(*overrides(folder, folder, "augment=none", *options)))


@pytest.mark.parametrize("length", [1000, 4000, 20000])
def test_background_noise_has_the_drawn_ratio_and_the_spectrum_of_its_recording(length):
    """For recordings that are shorter than the clip, as long, and longer."""
    tones = [np.sin(2 * np.pi * f * np.arange(length) / RATE) * 0.3 for f in (400, 2000)]
    background = BackgroundNoise(recordings(*tones), 0.0, 20.0)
    wave = 0.1 * torch.randn(8, 4000, generator=torch.Generator().manual_seed(0))
    params = background.draw(ParamSampler(8, torch.Generator().manual_seed(1)))
    added = background(wave, params) - wave
    ratio = 10 * torch.log10(wave.square().mean(dim=1) / added.square().mean(dim=1))
    torch.testing.assert_close(ratio, params[0], atol=0.01, rtol=0)
    assert params[0].unique().numel() == 8
    peak = torch.fft.rfft(added).abs().argmax(dim=1) * RATE / 4000
    torch.testing.assert_close(peak, torch.tensor([400.0, 2000.0])[params[1]], atol=2.0, rtol=0)
    assert set(params[1].tolist()) == {0, 1}


def test_silence_gets_no_background_and_a_silent_recording_adds_none():
    loud, silent = np.full(4000, 0.1), np.zeros(4000)
    wave = torch.stack([torch.zeros(4000), torch.ones(4000)])
    background = BackgroundNoise(recordings(loud, silent), 0.0, 0.0)
    params = torch.zeros(2), torch.tensor([0, 1]), torch.zeros(2)
    assert torch.equal(background(wave, params), wave)


def test_a_long_recording_is_read_from_start_to_end_without_wrapping():
    ramp = np.arange(10000) / 10000
    background = BackgroundNoise(recordings(ramp), 0.0, 0.0)
    segments = background._segments(torch.zeros(2, dtype=torch.int64), torch.tensor([0.0, 0.9999]), 4000)
    assert float(segments[0, 0]) == 0.0
    assert float(segments[1, -1]) == pytest.approx(0.9999, abs=1e-3)
    assert (segments.diff(dim=1) > -1e-6).all()


@pytest.mark.parametrize("samples", [4000, 1500])
def test_a_response_convolves_as_scipy_from_its_peak_and_preserves_energy(samples):
    """Also crops, which are shorter than a clip, and a response that is longer than they are."""
    decay = rng(1).normal(size=3000) * np.exp(-np.arange(3000) / 400)
    decay[:40] *= 0.01
    decay[40] = 8.0
    response = 0.9 * decay / np.abs(decay).max()
    transform = ImpulseResponse(4000, recordings(response, np.r_[0.0, 0.5, 0.25]))
    wave = 0.1 * rng(2).normal(size=(2, samples)).astype(np.float32)
    wet = transform(torch.from_numpy(wave), torch.tensor([0, 1])).numpy()
    stored = transform.recordings.samples.numpy() / 32768
    for clip, direct in ((0, stored[0, 40:]), (1, stored[1, 1:3])):
        expected = scipy.signal.fftconvolve(wave[clip], direct)[:samples]
        expected *= np.sqrt(np.square(wave[clip]).sum() / np.square(expected).sum())
        np.testing.assert_allclose(wet[clip], expected, atol=1e-5)
    np.testing.assert_allclose(np.square(wet).sum(axis=1), np.square(wave).sum(axis=1), rtol=1e-4)


def test_a_click_stays_where_it_is_and_gets_a_tail():
    response = np.r_[np.zeros(500), 1.0, 0.5 * np.exp(-np.arange(2000) / 300)] * 0.9
    transform = ImpulseResponse(4000, recordings(response))
    wave = torch.zeros(2, 4000)
    wave[0, 1000] = 1.0
    wet = transform(wave, torch.zeros(2, dtype=torch.int64))
    assert wet[0].argmax() == 1000
    assert wet[0, :999].abs().max() < 1e-5
    assert wet[0, 1001:3000].min() > 0
    assert torch.equal(wet[1], wave[1])


def test_a_silent_response_is_refused():
    with pytest.raises(ArgumentError, match=r"`impulse_response\.folder` has 1\.wav, which is silent"):
        ImpulseResponse(4000, recordings(np.ones(10) * 0.5, np.zeros(10)))


FILTERS = {"low_pass": 900.0, "high_pass": 900.0, "band_pass": 1500.0}


def sections(kind: str, frequency: float) -> np.ndarray:
    """Return SciPy's Butterworth filter."""
    if kind != "band_pass":
        return scipy.signal.butter(Filter.ORDER, frequency, kind.split("_")[0], fs=RATE, output="sos")
    corners = scipy.signal.butter(Filter.ORDER, frequency * 2**0.5, "low", fs=RATE, output="sos")
    return np.concatenate(
        [corners, scipy.signal.butter(Filter.ORDER, frequency / 2**0.5, "high", fs=RATE, output="sos")]
    )


@pytest.mark.parametrize(("kind", "frequency"), FILTERS.items())
def test_a_filter_has_the_response_and_the_log_mel_of_scipys(kind, frequency):
    transform = Filter(kind, RATE, 512, frequency, frequency, **({"octaves": 1.0} if kind == "band_pass" else {}))
    sos = sections(kind, frequency)
    ours = transform.response(torch.tensor([frequency]))[0]
    bins = np.arange(257) * RATE / 512
    _, response = scipy.signal.sosfreqz(sos, bins, fs=RATE)
    np.testing.assert_allclose(ours, np.abs(response) ** 2, atol=1e-4)
    # filtering the power spectrum is as good as filtering the waveform
    logmel = LogMel(RATE, n_fft=512, hop_length=80, n_mels=32, f_min=0.0, f_max=4000.0, top_db=50.0)
    wave = rng().normal(size=(1, RATE)).astype(np.float32) * 0.1
    filtered = torch.from_numpy(scipy.signal.sosfilt(sos, wave).astype(np.float32))
    by_power = logmel.from_power(transform(logmel.power(torch.from_numpy(wave)), torch.tensor([frequency])))
    difference = (by_power - logmel(filtered))[..., 3:-3].abs()
    assert float(difference.median()) < 0.5
    assert float(difference.mean()) < 1.5


def test_frequencies_are_drawn_on_a_logarithmic_scale():
    drawn = Filter("low_pass", RATE, 512, 100.0, 3200.0).draw(ParamSampler(4000, torch.Generator().manual_seed(0)))
    assert 100 <= drawn.min() < drawn.max() <= 3200
    assert abs((drawn < 100 * 2**2.5).float().mean() - 0.5) < 0.03


def test_each_is_switched_on_by_one_key_and_applied_to_its_share(tmp_path):
    folder = write(tmp_path / "noise", hum=0.2 * rng().normal(size=9000))
    switches = {
        "background_noise": f"augment.background_noise.folder={folder}",
        "impulse_response": f"augment.impulse_response.folder={folder}",
        **{kind: f"augment.{kind}.p=0.5" for kind in FILTERS},
    }
    limits = ("augment.low_pass.high=3000", "augment.band_pass.high=3000")
    plain, wave = front_end(tmp_path)(noise(40)), noise(40)
    for name, switch in switches.items():
        front = front_end(tmp_path, switch, *limits)
        params = front.augmentation.draw(ParamSampler(40, torch.Generator().manual_seed(0)))
        assert set(params.values) == {"noise", name}
        changed = (front(wave, params) != plain).flatten(1).any(dim=1)
        assert torch.equal(changed, params[name][0])
        assert 10 <= int(changed.sum()) <= 30
    everything = front_end(tmp_path, *switches.values(), *limits)
    params = everything.augmentation.draw(ParamSampler(4, torch.Generator().manual_seed(0)))
    assert list(params.values) == [
        "noise",
        "impulse_response",
        "background_noise",
        "low_pass",
        "high_pass",
        "band_pass",
    ]
    # on an accelerator nothing is read, and everything is one graph
    meta, wave = everything.to("meta"), torch.zeros(4, 4000, dtype=torch.int16, device="meta")
    compiled = torch.compile(meta, backend="aot_eager", fullgraph=True)
    assert compiled(wave, to_meta(params)).shape == (4, 1, 16, 26)


def test_the_options_of_a_filter_may_refer_to_other_keys(tmp_path):
    references = ("augment.band_pass.p=${augment.high_pass.p}", "augment.band_pass.high=${features.f_max}")
    front = front_end(tmp_path, "augment.high_pass.p=0.5", *references)
    params = front.augmentation.draw(ParamSampler(40, torch.Generator().manual_seed(0)))
    assert 10 <= int(params["band_pass"][0].sum()) <= 30


def test_recordings_are_resampled_and_cut(tmp_path):
    folder = tmp_path / "noise"
    folder.mkdir()
    soundfile.write(folder / "tone.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(88200) / 44100), 44100)
    front = front_end(tmp_path, f"augment.background_noise.folder={folder}", "augment.background_noise.max_seconds=1.5")
    stored = front.augmentation.recordings["background_noise"]
    assert stored.samples.shape == (1, 12000)
    spectrum = torch.fft.rfft(stored.samples[0, 2000:10000].float()).abs()
    assert int(spectrum.argmax()) == 1000
    assert stored.files == ("tone.wav",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["augment.background_noise.folder=nowhere"], r"background_noise\.folder=nowhere is not a folder"),
        ([f"augment.background_noise.folder={300 * 'x'}"], r"background_noise\.folder=x+ is not a folder"),
        (["augment.impulse_response.folder={empty}"], "contains no file with an audio extension"),
        (
            ["augment.background_noise.folder={noise}", "augment.background_noise.low=40"],
            r"augment\.background_noise\.low=40 must be at most augment\.background_noise\.high=30",
        ),
        (
            ["augment.low_pass.p=0.5", "augment.low_pass.high=5000"],
            r"augment\.low_pass\.high=5000 must be between 1 and 4000",
        ),
        (["augment.band_pass.p=1", "augment.band_pass.octaves=0"], r"augment\.band_pass\.octaves=0 must be between"),
    ],
)
def test_invalid_values_are_refused_by_key(tmp_path, options, message):
    folders = {"noise": write(tmp_path / "noise", hum=np.ones(100)), "empty": write(tmp_path / "empty")}
    with pytest.raises(InputError, match=message):
        front_end(tmp_path, *(option.format(**folders) for option in options))


def with_recordings(tmp_path, **waves):
    return front_end(tmp_path, f"augment.background_noise.folder={write(tmp_path / 'noise', **waves)}")


def test_recordings_of_a_scored_clip_are_refused_and_others_train(tmp_path):
    """Clip 2 of 20 is in the test fold 1, and clip 12 is not; each recording is a copy under another name."""
    clips = noise(20).numpy() / 32768
    data = module(with_recordings(tmp_path / "a", other=clips[12], hum=clips[0] * 0.5))
    assert set(data.front_end.augmentation.recordings["background_noise"].hashes) < data.seen.hashes
    epoch(data)
    with pytest.raises(ArgumentError, match=r"The recording copy\.wav .* is the clip 2\.wav, .* fold 1 scores"):
        module(with_recordings(tmp_path / "b", copy=np.r_[clips[2], np.zeros(500)]))


@pytest.mark.parametrize("name", ["100032__user__thunder", "1-100032-A-0", "100032"])
def test_recordings_of_a_scored_source_are_refused_by_their_name(name):
    files = ("1-100032-B-0.wav", "1-200000-A-1.wav")
    table = ClipTable(files, np.array([1, 2]), np.array([0, 1]), ("100032", "12"), ("a", "b"))
    split = Split(train=np.array([1]), val=np.array([], dtype=np.int64), test=np.array([0]))
    background = dataclasses.replace(recordings(np.ones(3)), files=(f"{name}.wav",))
    with pytest.raises(ArgumentError, match=f"{name}.wav .* is the clip 1-100032-B-0.wav, or of its source"):
        check_recordings([background], table, split, ("x", "y"), 1)
    # a source that trains, and a short identifier in a name, are no leak
    for other in ("200000__rain", "take 12", "1000321"):
        check_recordings([dataclasses.replace(background, files=(f"{other}.wav",))], table, split, ("x", "y"), 1)


def test_the_content_of_a_folder_determines_the_run_and_a_scored_clip_stops_it(tmp_path):
    root = render(tmp_path / "tiny")

    def run(*options: str) -> str:
        return open_run(compose_config(*overrides(root, tmp_path, *options))).cv_id

    def with_noise(folder) -> str:
        return run(f"augment.background_noise.folder={folder}")

    hum = 0.2 * rng().normal(size=9000)
    one, moved, other = (write(tmp_path / name, hum=hum * gain) for name, gain in (("a", 1), ("b", 1), ("c", 0.9)))
    ids = [run(), with_noise(one), with_noise(moved), with_noise(other)]
    assert ids[1] == ids[2]
    assert len(set(ids)) == 3
    # a clip of fold 3, which would be scored last, is found before the first fold trains
    shutil.copy(root / "audio" / "5.wav", tmp_path / "c" / "street.wav")
    with pytest.raises(InputError, match=r"The recording street\.wav .* is the clip 5\.wav, .* which fold 3 scores"):
        with_noise(other)
    assert run(f"augment.background_noise.folder={other}", "fold=1")
    # its audio is compared as a clip's is, however little of it is used
    with pytest.raises(InputError, match=r"The recording street\.wav .* is the clip 5\.wav"):
        run(f"augment.background_noise.folder={other}", "augment.background_noise.max_seconds=0.1")
