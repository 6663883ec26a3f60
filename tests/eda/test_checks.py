import tracemalloc

import numpy as np
import pytest
import soundfile

from soundfold.data.tables import read_table
from soundfold.eda import checks
from soundfold.eda.checks import KINDS, FileReport, common_seconds, faults_by_kind, inspect

RATE = 16000


def noise(seconds: float, channels: int = 1) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal((round(seconds * RATE), channels))


def faulty_files(root, files) -> dict[str, list[str]]:
    return {
        kind: [files[i] for i in indices] for kind, indices in faults_by_kind(inspect(root, files)).items() if indices
    }


def test_each_file_has_exactly_its_fault(tmp_path):
    def write(name: str, wave: np.ndarray, **options) -> None:
        soundfile.write(tmp_path / name, wave, RATE, **options)

    for number in range(8):
        write(f"good{number}.wav", noise(1.0))
    write("stereo.flac", noise(1.02, channels=2))
    loud = noise(1.0)
    loud[3000:3003] = -1.2
    write("clipped.wav", np.clip(loud, -1, 1))
    write("clipped8.wav", np.clip(loud, -1, 1), subtype="PCM_U8")
    stereo = noise(1.0, channels=2)
    stereo[500:503, 1] = 1.0
    write("one_channel_clipped.wav", stereo)
    normalized = noise(1.0)
    normalized[100:102], normalized[200] = 1.0, -1.0  # two at most in a row
    write("normalized.wav", normalized)
    write("silent.wav", np.zeros(RATE))
    write("dithered.wav", np.full(RATE, 1e-6), subtype="FLOAT")  # zero in 16 bits
    write("quiet.wav", np.tile([0.0, 2 / 32768], RATE // 2))
    write("short.wav", noise(0.94))
    write("long.wav", noise(1.06))
    write("header_only.wav", noise(0.0))
    write("nan.wav", np.full(RATE, np.nan), subtype="FLOAT")
    (tmp_path / "no_bytes.ogg").write_bytes(b"")
    (tmp_path / "text.ogg").write_text("not audio")
    write("stopped.flac", noise(1.0))
    data = (tmp_path / "stopped.flac").read_bytes()
    (tmp_path / "stopped.flac").write_bytes(data[: len(data) // 2])
    files = [*sorted(path.name for path in tmp_path.iterdir()), "missing.wav"]
    got = faulty_files(tmp_path, files)
    assert got.pop("incomplete", []) in (
        [],
        ["stopped.flac"],
    )  # fewer samples or an error, depending on the version of libsndfile
    got = {kind: sorted(set(names) - {"stopped.flac"}) for kind, names in got.items()}
    assert got == {
        "unreadable": ["missing.wav", "text.ogg"],
        "empty": ["header_only.wav", "no_bytes.ogg"],
        "not finite": ["nan.wav"],
        "silent": ["dithered.wav", "silent.wav"],
        "clipped": ["clipped.wav", "clipped8.wav", "one_channel_clipped.wav"],
        "truncated": ["short.wav"],
        "too long": ["long.wav"],
    }
    damaged = inspect(tmp_path, ["stopped.flac"])[0]
    assert damaged.fault == "unreadable" or damaged.frames < damaged.declared_frames == RATE
    assert all(report.reason for report in inspect(tmp_path, files) if report.fault)


def test_properties_of_a_file(tmp_path):
    wave = noise(1.0, channels=2)
    wave[:1600] = 0  # 10 %
    wave[3200:3520] = 0  # 2 %
    wave[5000:5100] = 0  # too short to count
    wave[8000:9600, 0] = 0  # only one channel
    wave[-3200:] = 0  # 20 %
    wave[7000, 1] = 0.75
    soundfile.write(tmp_path / "a.flac", wave, RATE, subtype="PCM_24")
    (report,) = inspect(tmp_path, ["a.flac"])
    assert (report.rate, report.channels, report.subtype, report.frames) == (RATE, 2, "PCM_24", RATE)
    assert report.seconds == 1.0
    assert report.peak == pytest.approx(0.75, abs=1e-6)
    assert [report.leading, report.inner, report.trailing] == pytest.approx([0.1, 0.02, 0.2], abs=2e-4)


def test_properties_do_not_depend_on_the_size_of_blocks(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    files = [f"{number}.wav" for number in range(6)]
    for name in files:
        wave = noise(0.1, channels=3)
        for start, length in zip((0, *rng.integers(50, 1500, 6)), rng.integers(1, 250, 7), strict=True):
            wave[start : start + length] = 0
            wave[start + length // 2 :][: rng.integers(1, 9), rng.integers(3)] = rng.choice([-1, 1])
        wave[-rng.integers(1, 400) :] = 0
        soundfile.write(tmp_path / name, wave, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "silent.wav", np.zeros(80), RATE)  # 5 ms
    whole = inspect(tmp_path, [*files, "silent.wav"])
    for size in (15, 1000):
        monkeypatch.setattr(checks, "BLOCK_SIZE", size)
        assert inspect(tmp_path, [*files, "silent.wav"]) == whole
    assert whole[-1].leading == 1
    for name in ("leading", "inner", "trailing", "clipped"):
        assert any(getattr(report, name) for report in whole[:-1])


def test_memory_does_not_grow_with_the_length_of_a_file(tmp_path):
    """A minute of eight silent channels is 92 MB of samples and 0.05 MB of FLAC."""
    soundfile.write(tmp_path / "a.flac", np.zeros((60 * 48_000, 8), dtype=np.int16), 48_000)
    tracemalloc.start()
    (report,) = inspect(tmp_path, ["a.flac"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (report.seconds, report.leading) == (60, 1)
    assert peak < 5e6


def test_silence_survives_a_lossy_coder(tmp_path):
    wave = noise(2.0)
    wave[RATE:] = 0
    soundfile.write(tmp_path / "a.ogg", wave, RATE)
    (report,) = inspect(tmp_path, ["a.ogg"])
    assert 0.4 < report.trailing <= 0.5


def test_lengths_without_a_common_one_are_not_faults():
    ragged = [
        FileReport("x", rate=100, frames=frames, declared_frames=frames, peak=0.5) for frames in range(100, 400, 10)
    ]
    assert common_seconds(ragged) is None
    assert not any(faults_by_kind(ragged).values())
    assert common_seconds([]) is None
    assert set(faults_by_kind([])) == set(KINDS)


def test_real_clips(esc10):
    """In ESC-10, 380 clips have 220,544 frames; six of the other 20 differ by more than 50 ms."""
    table = read_table(esc10 / "meta" / "esc50.csv")
    reports = inspect(esc10 / "audio", table.files)
    assert common_seconds(reports) == pytest.approx(220544 / 44100, abs=1e-3)
    faults = faults_by_kind(reports)
    assert sum(report.frames != 220544 for report in reports) == 20
    assert [reports[i].frames for i in faults["truncated"]] == [160704]
    assert sorted(reports[i].frames for i in faults["too long"]) == [223808, 224960, 226688, 308736, 319296]
    assert not any(faults[kind] for kind in ("unreadable", "empty", "not finite", "silent", "incomplete"))
    # the loudest of crackling fires: its peaks were cut before it was coded
    assert "5-186924-A-12.ogg" in [table.files[i] for i in faults["clipped"]]
    assert len(faults["clipped"]) < 10
    silence = {
        name: np.mean([r.silence for r, t in zip(reports, table.targets, strict=True) if t == k])
        for k, name in enumerate(table.classes)
    }
    assert silence["rooster"] > 0.3 > 0.01 > silence["rain"]
