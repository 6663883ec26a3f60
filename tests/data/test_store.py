import json
import multiprocessing
import os
import platform
import resource
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.killable import server

from soundfold.data import store, store_build
from soundfold.data.tables import read_table
from soundfold.errors import InputError
from soundfold.io.atomic import loads_with_checksum


def tone(seconds: float, rate: int, frequency: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "audio"
    folder.mkdir()
    soundfile.write(folder / "short.wav", tone(0.5, 16000), 16000)
    soundfile.write(folder / "long.flac", tone(1.5, 16000), 16000)
    soundfile.write(folder / "fast.wav", tone(1.0, 44100), 44100)
    stereo = np.stack([tone(1.0, 16000), np.zeros(16000)], axis=1)
    soundfile.write(folder / "stereo.ogg", stereo, 16000)
    return folder


FILES = ["short.wav", "long.flac", "fast.wav", "stereo.ogg"]


def load(root: Path, files=FILES, **changes):
    return store.open_store(
        root, files, **{"seconds": 1.0, "sample_rate": 16000, "cache": root.parent / "cache", **changes}
    )


def test_lengths_rates_and_channels(root):
    store = load(root)
    assert store.samples.shape == (4, 16000)
    assert store.samples.dtype == np.int16
    assert store.lengths.tolist() == [8000, 16000, 16000, 16000]
    assert not store.samples[0, 8000:].any()
    expected = tone(1.0, 16000) * 32768
    np.testing.assert_allclose(store.samples[1], expected, atol=1)
    middle = slice(200, -200)  # the resampler rings at the ends
    np.testing.assert_allclose(store.samples[2][middle], expected[middle], atol=50)
    np.testing.assert_allclose(np.abs(store.samples[3]).max(), 0.25 * 32768, rtol=0.05)


def test_second_opening_decodes_nothing(root, monkeypatch):
    first = load(root)

    def refuse(*_args):
        raise AssertionError("decoded again")

    monkeypatch.setattr(store, "decode", refuse)
    second = load(root)
    assert second.digest == first.digest
    np.testing.assert_array_equal(second.samples, first.samples)


def test_store_depends_on_content_and_parameters(root):
    before = load(root)
    soundfile.write(root / "short.wav", tone(0.5, 16000, 880), 16000)
    after = load(root)
    assert after.digest != before.digest
    assert (after.samples[0] != before.samples[0]).any()
    assert load(root, seconds=0.25).samples.shape == (4, 4000)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_file_replaced_between_hashing_and_decoding_is_not_stored_under_its_old_hash(root, monkeypatch, moment):
    old = store.decode(root / "short.wav", 16000, 16000)
    decode = store.decode

    def replace(path, *args):
        if path.name != "short.wav":
            return decode(path, *args)
        decoded = decode(path, *args) if moment == "after" else None
        soundfile.write(path.with_suffix(".part"), tone(0.5, 16000, 880), 16000, format="WAV")
        path.with_suffix(".part").replace(path)
        return decode(path, *args) if decoded is None else decoded

    with monkeypatch.context() as patch:
        patch.setattr(store, "decode", replace)
        with pytest.raises(InputError, match=r"short\.wav changed while it was decoded\. Wait until"):
            load(root)
    assert not list((root.parent / "cache").glob("*/"))
    new = load(root).samples[0].copy()
    soundfile.write(root / "short.wav", tone(0.5, 16000), 16000)
    assert (load(root).samples[0, :8000] == store.to_int16(old, 8000)).all()
    assert (load(root).samples[0] != new).any()


def test_channels_in_antiphase_are_reported_once(root, capsys):
    wave = tone(1.0, 16000)
    soundfile.write(root / "antiphase.wav", np.stack([wave, -wave], axis=1), 16000)
    soundfile.write(root / "silent.wav", np.zeros((16000, 2)), 16000)
    # only the part that is stored counts
    soundfile.write(root / "late.wav", np.concatenate([np.zeros((16000, 2)), np.stack([wave, wave], axis=1)]), 16000)
    assert not load(root, [*FILES, "antiphase.wav", "silent.wav", "late.wav"]).samples[4].any()
    note = " ".join(capsys.readouterr().err.split())
    assert "The channels of 1 of 7 files cancel when they are averaged (antiphase), the first is antiphase.wav" in note
    load(root)
    assert "antiphase" not in capsys.readouterr().err


def test_data_root_is_never_written(root):
    before = sorted(root.iterdir())
    load(root)
    assert sorted(root.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.wav", None, "no such file"),
        ("text.wav", b"hello", "is not audio that can be read"),
        ("zero.wav", b"", "is not audio that can be read"),
    ],
)
def test_unreadable_files_are_refused_and_leave_no_store(root, name, content, message):
    if content is not None:
        (root / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load(root, [*FILES, name])
    assert name in str(caught.value)
    cache = root.parent / "cache"
    assert not cache.exists() or [p for p in cache.iterdir() if p.suffix != ".lock"] == []


def test_empty_and_non_finite_audio(root):
    soundfile.write(root / "empty.wav", np.zeros(0), 16000)
    with pytest.raises(InputError, match=r"empty\.wav holds no samples"):
        load(root, ["empty.wav"])
    soundfile.write(root / "nan.wav", np.full(100, np.nan, dtype=np.float32), 16000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"nan\.wav holds samples that are not numbers"):
        load(root, ["nan.wav"])


def test_unwritable_cache_names_the_remedy(root):
    (root.parent / "file").write_text("")
    with pytest.raises(InputError, match="set `cache`"):
        load(root, cache=root.parent / "file" / "cache")


def test_full_disk_leaves_no_store_and_names_the_remedy(root):
    handler, (soft, hard) = signal.getsignal(signal.SIGXFSZ), resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(InputError, match=r"requires 0\.1 MB\. Free some space, or set `cache`"):
            load(root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert [p.suffix for p in (root.parent / "cache").iterdir()] in ([".lock"], [])
    assert load(root).samples.shape == (4, 16000)


def flip(path: Path, at: float) -> None:
    """Flip one bit of a file, at a fraction of its length."""
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


def remove_checksum(manifest: Path) -> None:
    manifest.write_text(json.dumps(loads_with_checksum(manifest.read_text())))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("samples.npy", lambda path: flip(path, 0.4)),
        # the padding is not hashed
        ("samples.npy", lambda path: flip(path, 0.24)),
        ("samples.npy", lambda path: path.write_bytes(path.read_bytes()[:-2])),
        ("samples.npy", Path.unlink),
        ("samples.npy", lambda path: path.write_bytes(b"")),
        # a syntax error in the header, which NumPy reads with Python's parser
        ("samples.npy", lambda path: path.write_bytes(path.read_bytes().replace(b"}", b"{", 1))),
        ("manifest.json", lambda path: path.write_text("{")),
        ("manifest.json", lambda path: path.write_text(path.read_text().replace("16000", "8000"))),
        ("manifest.json", lambda path: path.write_bytes(bytes(len(path.read_bytes())))),
        ("manifest.json", remove_checksum),
    ],
    ids=["bit", "padding", "truncated", "missing", "empty", "header", "no json", "edited", "zeros", "no checksum"],
)
def test_a_damaged_store_is_rebuilt_with_one_note(root, capsys, name, damage):
    first = load(root)
    before = first.samples.copy()
    (path,) = (root.parent / "cache").glob(f"*/{name}")
    damage(path)
    again = load(root)
    np.testing.assert_array_equal(again.samples, before)
    assert (again.lengths.tolist(), again.hashes) == (first.lengths.tolist(), first.hashes)
    note = capsys.readouterr().err
    assert note.count("is damaged") == 1
    assert str(path.parent) in note
    load(root)
    assert "damaged" not in capsys.readouterr().err


def test_a_mapped_store_stays_readable_while_it_is_rebuilt(root):
    first = load(root)
    before = first.samples.copy()
    (manifest,) = (root.parent / "cache").glob("*/manifest.json")
    manifest.unlink()
    load(root)
    np.testing.assert_array_equal(first.samples, before)


def test_files_of_a_killed_builder_are_removed_by_the_next(root):
    cache = root.parent / "cache"
    load(root)
    (store_folder,) = cache.glob("*/")
    stale, other = cache / f"{store_folder.name}.123.part", cache / "feedbeef.123.part"
    store_folder.rename(stale)
    other.mkdir()
    load(root)
    assert not stale.exists()
    # of another store, which may be under construction
    assert other.exists()


def _build_in_process(root: Path, barrier, results) -> None:
    barrier.wait()
    built = []
    store = load(root, progress=lambda items, total: (built.append(total), items)[1])
    results.put((bool(built), int(store.samples.astype(np.int64).sum())))


def in_processes(count: int, target, *arguments) -> list[multiprocessing.Process]:
    workers = [server().Process(target=target, args=arguments) for _ in range(count)]
    for worker in workers:
        worker.start()
    return workers


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [False, True])
def test_eight_processes_build_the_store_once(root, damaged):
    if damaged:
        load(root)
        flip(next((root.parent / "cache").glob("*/samples.npy")), 0.4)
    context = server()
    barrier, results = context.Barrier(8), context.Queue()
    workers = in_processes(8, _build_in_process, root, barrier, results)
    outcomes = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(built for built, _ in outcomes) == [False] * 7 + [True]
    assert len({total for _, total in outcomes}) == 1
    assert sorted(path.suffix for path in (root.parent / "cache").iterdir()) == [""]


def _die_while_building(root: Path, building) -> None:
    store_build.GROUP_CLIPS = store_build.THREADS = 1

    def wait(items, total):
        for number, item in enumerate(items):
            if number == 2:
                building.set()
                time.sleep(60)
            yield item

    load(root, progress=wait)


def test_a_killed_builder_blocks_nobody_and_its_clips_are_reused(root, capsys, monkeypatch):
    monkeypatch.setattr(store_build, "GROUP_CLIPS", 1)
    decoded, decode = [], store.decode
    monkeypatch.setattr(store, "decode", lambda path, *args: (decoded.append(path.name), decode(path, *args))[1])
    building = server().Event()
    (builder,) = in_processes(1, _die_while_building, root, building)
    assert building.wait(60)
    timer = threading.Timer(0.5, builder.kill)
    timer.start()
    # starts to wait while the builder is alive
    assert load(root).samples.shape == (4, 16000)
    assert decoded == ["stereo.ogg"]
    builder.join()
    assert builder.exitcode == -signal.SIGKILL
    assert f"Process {builder.pid} on {platform.node()}, since" in capsys.readouterr().err
    assert not list((root.parent / "cache").glob("*.part"))


def test_real_clips(esc10, tmp_path):
    table = read_table(esc10 / "meta" / "esc50.csv")
    waves = store.open_store(esc10 / "audio", table.files, seconds=5.0, sample_rate=44100, cache=tmp_path)
    assert waves.samples.shape == (400, 220500)
    assert waves.lengths.min() == 160704
    wave, _ = soundfile.read(esc10 / "audio" / table.files[7])
    np.testing.assert_allclose(waves.samples[7] / 32768, wave[:220500], atol=1 / 32768)


def test_a_file_name_need_not_be_utf8(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    soundfile.write(tmp_path / "plain.wav", np.full(800, 0.1), 8000)
    (tmp_path / "plain.wav").rename(tmp_path / name)
    waves = store.open_store(tmp_path, [name], seconds=0.1, sample_rate=8000, cache=tmp_path / "cache")
    assert waves.samples.shape == (1, 800)
