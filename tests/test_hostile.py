"""Hostile input: whatever is read is either accepted, and then finite and in shape, or refused in a paragraph of ours.

Each property is written once, over cases that hypothesis draws: few in the normal suite, the same each time, and many
in the slow one, anew each time. No case may hang or ask for gigabytes.
"""

import copy
import faulthandler
import functools
import io
import math
import ntpath
import os
import posixpath
import resource
import signal
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers.shared import SHARED
from helpers.tiny import overrides, train
from hydra.errors import HydraException
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from soundfold.config import compose_config, known_keys
from soundfold.data.folder import read_folder
from soundfold.data.resampling import resample_blocks
from soundfold.data.splits import BENCHMARK, make_split
from soundfold.data.store import decode, open_store, to_int16
from soundfold.data.tables import ESC50, URBANSOUND8K, ClipTable, read_table
from soundfold.eda.checks import inspect_file
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.experiment.setup import open_run
from soundfold.features.batch_transform import BatchTransform
from soundfold.inference.fold_models import read_models
from soundfold.io.audio import Recording
from soundfold.models.resnet import single_channel_resnet18

SECONDS = 30
MEMORY = 3 << 30


class Hang(BaseException):
    """Not an error that the code under test could take for its own."""


@contextmanager
def bounded() -> Iterator[None]:
    """What runs inside ends in time and takes no more memory than it may, or fails."""

    def hang(*_args: Any) -> None:
        raise Hang(f"not done after {SECONDS} s")

    before, (soft, hard) = signal.signal(signal.SIGALRM, hang), resource.getrlimit(resource.RLIMIT_AS)
    held = Path("/proc/self/statm")  # Linux only; elsewhere memory goes unwatched
    if held.exists():
        now = int(held.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, hard))
    signal.alarm(SECONDS)
    faulthandler.dump_traceback_later(2 * SECONDS, exit=True)  # where a library never returns to Python
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def holds(cases: st.SearchStrategy, few: int, many: int, examples: tuple = ()) -> Callable:
    """Have a test ``(case, tmp_path)`` hold for what was found once, and for ``few`` or ``many`` cases drawn."""

    def over(check: Callable[[Any, Path], None]) -> Callable:
        def test(number: int, tmp_path: Path) -> None:
            @settings(
                max_examples=number,
                derandomize=number == few,
                deadline=None,
                database=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(cases)
            def tried(case: Any) -> None:
                with bounded():
                    check(case, tmp_path)

            for found in examples:
                tried = example(found)(tried)
            tried()

        test.__name__ = check.__name__
        sizes = [few, pytest.param(many, marks=pytest.mark.slow)]
        return pytest.mark.parametrize("number", sizes, ids=["few", "many"])(test)

    return over


def accepted(work: Callable[[], Any]) -> Any:
    """What the work gives, or None where it is refused; any other exception passes through, and fails the test."""
    try:
        return work()
    except InputError:
        return None


# tables of clips

HEADER = "filename,fold,target,category,esc10,src_file"
SYNTHETIC = [f"{i}.wav,{i % 5 + 1},{i % 3},class {i % 3},{i % 2 == 0},source {i}" for i in range(15)]
OFFICIAL = SHARED / "esc50" / "meta" / "esc50.csv"
SEEDS = [[HEADER, *SYNTHETIC]]
if OFFICIAL.is_file():
    SEEDS.append(OFFICIAL.read_text().splitlines()[:20])
NUMBERS = ["-1", "0", "2", "1.0", "nan", "1e3", "9" * 19, "-" + "9" * 30, "9" * 5000, "٣", "1_0"]
PLACES = ["..", "../a.wav", "a/../../b.wav", "/dev/zero", "C:\\a.wav", "C:a.wav", "..\\a.wav", "\\\\host\\a.wav"]
FILES = [".", "./0.wav", "a//b.wav", "CON", '"a\nb.wav"', "a,b.wav", 'a"b', "a\0b.wav", "x" * 300, "y" * 140_000]
OTHER = ["", " ", "True", "maybe", "\ufeff", "fold", "filename", "src_file", "esc10"]
CELLS = st.one_of(*map(st.sampled_from, (NUMBERS, PLACES, FILES, OTHER)), st.text(max_size=5))
READINGS = st.fixed_dictionaries(
    {
        "subset": st.sampled_from([None, None, None, "esc10", "take", "filename", ""]),
        "classes": st.one_of(st.none(), st.none(), st.lists(st.sampled_from(["class 0", "class 1", "dog", "x"]))),
        "columns": st.sampled_from([ESC50, ESC50, URBANSOUND8K]),
    }
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """Bytes of a valid table with cells, rows and bytes changed, and how it is read."""
    rows = [line.split(",") for line in draw(st.sampled_from(SEEDS))]
    reading = draw(READINGS)
    if reading["columns"] is URBANSOUND8K:
        rows[0] = ["slice_file_name", "fold", "classID", "class", "esc10", "fsID", *rows[0][6:]]
    for _ in range(draw(st.integers(0, 3))):
        row = rows[draw(st.integers(0, len(rows) - 1))]
        at = draw(st.integers(0, len(row)))
        keep, drop = draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (0, 1), (1, 0), (0, 99)]))
        row[at : at + drop] = [draw(CELLS)] * keep
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"]))
    content = end.join(map(",".join, rows)).encode(draw(st.sampled_from(["utf-8"] * 4 + ["utf-8-sig", "utf-16"])))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 5]))):
        at = draw(st.integers(0, len(content)))
        content = content[:at] + draw(st.binary(max_size=3)) + content[at + draw(st.integers(0, 2)) :]
    return content, reading


def check_table(table: ClipTable) -> None:
    assert len(table) == len(table.folds) == len(table.targets) == len(table.sources) > 1
    assert table.folds.dtype == table.targets.dtype == np.int64
    assert table.folds.min() >= 1
    assert np.array_equal(np.unique(table.targets), np.arange(len(table.classes)))
    assert len(set(table.classes)) == len(table.classes) > 1
    assert all(text.strip() for text in (*table.sources, *table.classes))
    for system, root in ((posixpath, "/audio/"), (ntpath, "C:\\audio\\")):
        places = [system.normpath(system.join(root, file)) for file in table.files]
        assert all(place.startswith(root) and len(place) > len(root) for place in places)
        assert len(set(places)) == len(table)
    assert not any("\0" in file for file in table.files)
    for fold in table.fold_numbers:
        split = accepted(lambda fold=fold: make_split(table, BENCHMARK, fold))
        assert (split is None) == (len(table.fold_numbers) < 2)


def lines(*rows: str, header: str = HEADER) -> bytes:
    return "\n".join([header, "a.wav,1,0,x,True,s", "b.wav,2,1,y,False,t", *rows]).encode()


TABLES = (
    (lines(f"c.wav,{'9' * 30},0,x,True,s"), {}),  # no 64 bits: OverflowError
    (lines("c.wav,1,0,x"), {"subset": "esc10"}),  # no mark: AttributeError
    (lines("c.wav,1,0,x,perhaps,s"), {"subset": "esc10"}),  # was taken for False
    (lines("a\0.wav,1,0,x,True,s"), {}),  # opened later: ValueError
    (lines("..\\c.wav,1,0,x,True,s"), {}),  # leaves the folder on Windows
    (lines("0:/c.wav,1,0,x,True,s"), {}),  # another drive on Windows
    (lines(".,1,0,x,True,s"), {}),  # is the folder
    (lines("./a.wav,2,0,x,True,s"), {}),  # one clip in two folds
    (lines("c, d.wav,1,0,x,True,s"), {}),  # a comma that moves the cells
    (lines(header=HEADER + ",fold"), {}),  # the last of two columns counted
)


@holds(st.one_of(tables(), st.tuples(st.binary(max_size=200), READINGS)), few=150, many=4000, examples=TABLES)
def test_a_table_is_consistent_and_inside_its_folder_or_refused(case, tmp_path):
    content, reading = case
    path = tmp_path / "esc50.csv"
    path.write_bytes(content)
    table = accepted(lambda: read_table(path, **reading))
    if table is not None:
        check_table(table)


@pytest.mark.parametrize(("content", "reading"), TABLES)
def test_a_table_with_a_known_fault_is_refused(content, reading, tmp_path):
    (tmp_path / "esc50.csv").write_bytes(content)
    with pytest.raises(InputError, match="esc50.csv"):
        read_table(tmp_path / "esc50.csv", **reading)


def test_thousands_of_classes_are_read(tmp_path):
    rows = [f"{i}.wav,{i % 5 + 1},{-i * 10**14},class {i},True,{i}" for i in range(20_000)]
    (tmp_path / "esc50.csv").write_bytes("\n".join([HEADER, *rows]).encode())
    with bounded():
        table = read_table(tmp_path / "esc50.csv")
    check_table(table)
    assert table.classes[0] == "class 19999"


ODD = ["a", "dog", " dog", "dog ", "a\nb", "a\rb", "a,b", 'a"b', "a\\b", "C:", "CON", "..a", "\udcff", "é", "x" * 200]
NAMES = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=4),
)
PATTERNS = [None, None, "a", "(", "x*", "(?P<source>.)", "a{99999999999}", "(" * 500 + ")" * 500, "[^/]*"]
SUFFIXES = [".wav", ".FLAC", ".ogg", ".txt"]
TREES = st.tuples(
    st.lists(st.tuples(NAMES, NAMES, st.sampled_from(SUFFIXES)), min_size=2, max_size=12),
    st.sampled_from(PATTERNS),
    st.integers(1, 3),
)
KNOWN_TREES = (
    ([("\udcff", "a", ".wav"), ("b", "a", ".wav")], None, 1),  # no UTF-8: UnicodeEncodeError
    ([(" a", "a", ".wav"), ("b", "a", ".wav")], None, 1),  # read back without its blank, and not found
    ([("0:", "a", ".wav"), ("b", "a", ".wav")], None, 1),  # another drive on Windows
    ([("a", "a", ".wav"), ("b", "a", ".wav")], "a{99999999999}", 1),  # OverflowError
    ([("a", "a", ".wav"), ("b", "a", ".wav")], "x*", 1),  # a source of no letters
)


@holds(TREES, few=40, many=1000, examples=KNOWN_TREES)
def test_a_folder_gives_a_table_of_files_that_are_there_or_is_refused(case, tmp_path):
    tree, pattern, folds = case
    with TemporaryDirectory(dir=tmp_path) as made:
        root = Path(made) / "root"
        for category, name, suffix in tree:
            try:
                (root / category).mkdir(parents=True, exist_ok=True)
                (root / category / (name + suffix)).touch()
            except (OSError, ValueError):
                continue  # no such name here
        table = accepted(lambda: read_folder(root, Path(made) / "cache", folds, pattern))
        if table is not None:
            check_table(table)
            assert all((root / file).is_file() for file in table.files)


# audio

LOSSLESS = {
    "WAV": ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"],
    "FLAC": ["PCM_S8", "PCM_16", "PCM_24"],
    "AIFF": ["PCM_16", "PCM_24", "PCM_32", "FLOAT"],
    "AU": ["PCM_16", "FLOAT"],
    "CAF": ["PCM_32", "ALAC_16"],
    "W64": ["PCM_24"],
}
LOSSY = {"WAV": ["ALAW", "MS_ADPCM"], "OGG": ["VORBIS", "OPUS"], "MP3": ["MPEG_LAYER_III"]}
RATES = [8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]
ABSURD = [0, 1, 2, 255, 65_535, 44_099, 2**31 - 1, 2**31, 4_000_000_000, 2**32 - 1]


@st.composite
def sounds(draw: st.DrawFn) -> tuple[bytes, str, int | None]:
    """Bytes of a sound file, a suffix, and how many frames of how many Hz are surely in it."""
    lossy = draw(st.sampled_from([False, False, False, True]))
    container = draw(st.sampled_from(sorted(LOSSY if lossy else LOSSLESS)))
    subtype = draw(st.sampled_from((LOSSY if lossy else LOSSLESS)[container]))
    usual = st.sampled_from(RATES)
    # no coder of FLAC takes every rate
    rate = draw(usual if container == "FLAC" else st.one_of(usual, st.integers(8000, 192_000)))
    rate, most = (48_000, 2) if subtype in ("OPUS", "MPEG_LAYER_III", "MS_ADPCM") else (rate, 8)
    shape = draw(st.sampled_from([0, 1, 2, 700, 5000])), draw(st.integers(1, most))
    loud = draw(st.sampled_from([0.0, 0.5, 0.5, 1.0, 3.0, 1e9, 1e38, 1e300]))
    wave = loud * np.random.default_rng(draw(st.integers(0, 9))).uniform(-1, 1, shape)
    if (odd := draw(st.sampled_from([None, None, None, np.nan, np.inf, 3e38]))) and shape[0]:
        wave[draw(st.integers(0, shape[0] - 1))] = odd
    wave = wave if subtype in ("FLOAT", "DOUBLE") else np.clip(np.nan_to_num(wave), -1, 1)
    out = io.BytesIO()
    with np.errstate(over="ignore"):
        soundfile.write(out, wave if subtype == "DOUBLE" else wave.astype(np.float32), rate, subtype, format=container)
    content = bytearray(out.getvalue())
    damages = draw(st.lists(st.sampled_from(["cut", "flip", "header", "header", "zero", "more"]), max_size=3))
    for damage in damages if content else ():
        at = draw(st.integers(0, len(content) - 1) if content else st.just(0))
        if damage == "cut":
            del content[at:]
        elif damage == "flip" and content:
            content[at] ^= draw(st.integers(1, 255))
        elif damage == "header":
            at = draw(st.integers(0, min(64, len(content))))
            value = draw(st.sampled_from(ABSURD))
            field = draw(st.sampled_from(["<I", ">I", "<H", ">H"]))
            field = struct.pack(field, value & (0xFFFFFFFF if field[1] == "I" else 0xFFFF))
            content[at : at + len(field)] = field
        elif damage == "zero":
            content[at : at + 16] = bytes(len(content[at : at + 16]))
        elif damage == "more":
            content[at:at] = draw(st.binary(max_size=20))
    suffix = draw(st.sampled_from([f".{container.lower()}"] * 3 + [".wav", ".mp3", ".raw", ".txt", ""]))
    sure = not (damages or lossy or suffix == ".raw") and shape[0] > 0 and bool((np.abs(wave) <= 1e10).all())
    return bytes(content), suffix, (shape[0], rate) if sure else None


BEGINNINGS = st.one_of(st.binary(max_size=100), st.just(b"RIFF"), st.just(b"fLaC" + bytes(40)))
TEXTS = st.tuples(BEGINNINGS, st.just(".wav"), st.none())
READ_AS = st.tuples(st.sampled_from([1000, 8000, 16_000, 44_099, 44_100, 192_000]), st.sampled_from([1, 500, 6000]))


def pcm(rate: int, channels: int = 1, value: float = 0.5, frames: int = 100) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.full((frames, channels), value, dtype=np.float32), rate, "FLOAT", format="WAV")
    return out.getvalue()


def flac_claiming(frames: int) -> bytes:
    """A sound of 8 channels whose header speaks of as many frames as it can."""
    out = io.BytesIO()
    soundfile.write(out, np.zeros((100, 8)), 8000, "PCM_16", format="FLAC")
    content = bytearray(out.getvalue())
    content[21:26] = ((content[21] & 0xF0) << 32 | frames).to_bytes(5, "big")
    return bytes(content)


SOUNDS = (
    ((pcm(44_099), ".wav", (100, 44_099)), (44_100, 500)),  # a kernel of gigabytes
    ((pcm(8000, 8, 3e38), ".wav", None), (8000, 500)),  # a mean that overflows
    ((pcm(8000, 1, 1e9), ".wav", (100, 8000)), (16_000, 500)),  # far above full scale, and a number
    ((flac_claiming(2**36 - 1), ".flac", None), (8000, 500)),  # MemoryError
    ((pcm(8000), ".raw", None), (8000, 500)),  # TypeError
)


@holds(st.tuples(st.one_of(sounds(), sounds(), sounds(), TEXTS), READ_AS), few=180, many=4000, examples=SOUNDS)
def test_a_sound_is_finite_and_in_shape_or_refused(case, tmp_path):
    (content, suffix, sure), (rate, frames) = case
    path = tmp_path / f"sound{suffix}"
    path.write_bytes(content)
    mono = accepted(lambda: decode(path, rate, frames))
    heard = accepted(lambda: stream(path, rate))
    found = inspect_file(tmp_path, path.name)
    # all three read such a short file to its end
    assert (mono is None) == (heard is None) == (found.fault is not None), found
    if sure is not None:
        assert len(mono) == min(frames, -(-sure[0] * rate // sure[1]))
    if mono is None:
        return
    assert mono.dtype == heard.dtype == np.float32
    assert mono.shape == (min(frames, len(heard)),)
    assert mono.size
    assert np.isfinite(mono).all()
    assert np.isfinite(heard).all()
    np.testing.assert_array_equal(mono, heard[:frames])
    stored = to_int16(mono, frames)
    assert stored.dtype == np.int16
    assert stored.shape == (frames,)
    peak = np.abs(mono).max()
    assert np.abs(stored.astype(int)).max() == pytest.approx(min(32768, 32768 * peak), abs=1)


def stream(path: Path, rate: int) -> np.ndarray:
    recording = Recording.open(path)
    return np.concatenate(list(resample_blocks(recording.blocks(), recording.sample_rate, rate)))


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("seconds", [0.1, 0.5, 0.7, 70])
def test_the_start_of_a_file_is_what_it_was_when_files_were_decoded_whole(rate, seconds, tmp_path):
    if seconds * rate > 4_000_000:
        rate = 11_025
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * rate), 2))
    soundfile.write(tmp_path / "a.wav", wave, rate, "PCM_24")
    whole = soundfile.read(tmp_path / "a.wav", dtype="float32")[0].mean(axis=1)
    whole = np.concatenate(list(resample_blocks([whole], rate, 44_100)))[:22_050]
    assert np.array_equal(decode(tmp_path / "a.wav", 44_100, 22_050), whole)


def test_of_ten_hours_only_the_start_is_decoded(tmp_path):
    path = tmp_path / "day.wav"
    path.write_bytes(pcm(8000)[:-400])
    header = bytearray(path.read_bytes())
    size = 10 * 3600 * 8000 * 4
    at = header.index(b"data") + 4
    header[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(header)
    os.truncate(path, len(header) + size)  # zeros that take no room on the disk
    tracemalloc.start()
    with bounded():
        assert decode(path, 16_000, 80_000).shape == (80_000,)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 300e6


def special(folder: Path) -> dict[str, Path]:
    """Paths that are no file, or no readable one."""
    (folder / "directory.wav").mkdir()
    os.mkfifo(folder / "fifo.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    (folder / "endless.wav").symlink_to("/dev/zero")
    (folder / "empty.wav").touch()
    names = ("directory", "fifo", "loop", "dangling", "endless", "empty", "x" * 300, "nul\0", "a/b")
    return {name: folder / f"{name}.wav" for name in names}


READERS = {
    "table": lambda path: read_table(path),
    "decode": lambda path: decode(path, 8000, 100),
    "recording": lambda path: list(Recording.open(path).blocks()),
    "store": lambda path: open_store(
        path.parent, [path.name], seconds=0.1, sample_rate=8000, cache=path.parent / "cache"
    ),
    "weights": lambda path: single_channel_resnet18(2, str(path), width=16),
    "models": lambda path: read_models(path),
    "folder": lambda path: read_folder(path, path.parent / "cache"),
}


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused_and_never_waited_for(reader, tmp_path):
    with bounded():
        read = [name for name, path in special(tmp_path).items() if accepted(lambda path=path: READERS[reader](path))]
    assert read == []


# values of the configuration

BASES = {
    "plain": ["augment=noise_stretch_pitch"],
    "rich": ["augment=strong", "crops.seconds=0.3", "crops.trim=true", "crops.test=3", "average=ema", "split=nested"],
    "leaky": ["augment=seed_copies", "schedule=constant", "split=random_clips", "allow_leakage=true"],
    "image": ["features=seed_128x128", "optim=sgd", "average=swa"],
    "search": ["search=lr_wd", "logger=wandb"],
}
# what is fetched or read is not drawn
LEAVES = [key for key in sorted(known_keys()) if not any(other.startswith(f"{key}.") for other in known_keys())]
KEYS = [key for key in LEAVES if key != "data.root" and not key.startswith("search.space")]
WORDS = "none all default graphs ema swa cosine steps nested benchmark gpu 16-mixed last full val/accuracy folder sum"
WHOLE = [0, 1, 2, 3, -1, 16, 64, 1000, 10**6, 10**9, 2**40, 2**63, -(2**63), 10**30]
REAL = [0.0, 0.1, 0.5, 1.0, 1.5, -0.5, 100.0, 1e-300, 1e-6, 1e6, 1e38, 1e300, math.nan, math.inf, -math.inf]
TEXT = ["", " ", "???", "${seed}", "${nowhere}", "${name}", "${oc.env:NOWHERE}", "${optim}", "${", "a\0b", "\udcff"]
NESTED = [[], [0.0], [1, 2], [math.nan], ["a", None], [0.0] * 50, {}, {"low": 0.0, "high": 1.0}, {"a": 1}]
VALUES = st.one_of(
    *map(st.sampled_from, (WHOLE, REAL, TEXT, NESTED)),
    st.sampled_from([None, True, False, "../x", "/", "x" * 300, "1", "1e3", "true", "null", *WORDS.split()]),
    st.floats(),
    st.floats(0, 4),
    st.integers(-3, 5000),
    st.text(max_size=6),
)
CHANGES = st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=3)


@functools.cache
def base(name: str) -> DictConfig:
    nowhere = Path("nowhere")
    return compose_config(*overrides(nowhere / "clips", nowhere / "outputs", *BASES[name]))


def check_images(cfg: DictConfig) -> None:
    """Make images as a training step would, of noise, of silence and of full scale."""
    front_end, crops = build.front_end(cfg), build.crops(cfg)
    generator = torch.Generator().manual_seed(0)
    samples = round(cfg.data.seconds * cfg.data.sample_rate)
    noise = torch.randint(-3000, 3000, (samples,), generator=generator)
    wave = torch.stack([noise, torch.zeros_like(noise), torch.full_like(noise, -32768)]).short()
    front_end.fit([wave if crops is None else crops.crop_at(wave, crops.draw(len(wave), generator))])
    variation = BatchTransform(front_end, 3, crops, build.mixing(cfg))
    image, target = variation(wave, torch.arange(3), variation.draw(3, generator))
    assert image.shape[:2] == (3, 1)
    assert image.isfinite().all()
    assert target.isfinite().all()


CONFIGS = (
    ("plain", [("features.n_fft", 2**40)]),  # terabytes
    ("plain", [("features.n_mels", 10**9)]),
    ("plain", [("features.f_max", 1e-300)]),  # bands of no width: a bank of nan
    ("plain", [("features.hop", 1.25e-4), ("data.seconds", 300.0)]),
    ("image", [("features.image.size", 10**9)]),
    ("plain", [("data.seconds", math.nan)]),
    ("plain", [("data.seconds", 1e9)]),
    ("plain", [("data.seconds", 1e-9)]),  # a clip of no samples
    ("plain", [("augment.time_stretch.low", math.nan)]),
    ("plain", [("augment.time_stretch.high", math.inf)]),
    ("rich", [("augment.gain_db.high", 1e6)]),  # beyond float32
    ("plain", [("augment.pitch_shift.high", 1e9)]),
    ("rich", [("augment.noise_colours", [100.0])]),
    ("rich", [("augment.time_masks.count", 10**9)]),
    ("rich", [("augment.mixing.alpha", math.nan)]),
    ("rich", [("augment.polarity", "${nowhere}")]),  # was not resolved, and compared as text
    ("rich", [("augment.time_shift.low", "???")]),  # missing, and compared as text
    ("leaky", [("augment.copies.high", 10**9)]),
    ("rich", [("crops.test", 10**9)]),
    ("plain", [("model.width", 2**40)]),
    ("plain", [("optim.lr", math.inf)]),
    ("plain", [("optim.lr", math.nan)]),
    ("plain", [("optim.betas", [2.0, 0.5])]),  # told by PyTorch when training began
    ("plain", [("optim.betas", [0.0])]),
    ("image", [("optim.momentum", 0.0)]),  # which Nesterov's cannot do without
    ("plain", [("name", "../x")]),  # leaves the folder of outputs
    ("plain", [("name", "\udcff")]),  # no UTF-8: UnicodeEncodeError
    ("plain", [("paths.cache", "a\0b")]),
    ("plain", [("seed", 2**70)]),
    ("plain", [("trainer.gradient_clip_val", math.nan)]),
    ("search", [("model.weights", "/dev/zero")]),  # read for ever
)


@holds(st.tuples(st.sampled_from(sorted(BASES)), CHANGES), few=150, many=3000, examples=CONFIGS)
def test_a_configuration_makes_finite_images_or_is_refused_before_any_work(case, tmp_path):
    open_or_refuse(*case)


@pytest.mark.parametrize("case", CONFIGS, ids=lambda case: f"{case[1][0][0]}={case[1][0][1]!r:.12}")
def test_a_configuration_with_a_known_fault_is_refused(case):
    assert not open_or_refuse(*case)


def open_or_refuse(name: str, changes: list[tuple[str, Any]]) -> bool:
    """Whether the configuration passes all that refuses one; if so, its images are finite."""
    cfg = copy.deepcopy(base(name))
    try:
        for key, value in changes:
            OmegaConf.update(cfg, key, value)
        # the last thing that is asked for is the clips, and they are not there
        open_run(cfg)
    except (HydraException, OmegaConfBaseException):
        return False  # the command line tells them in a paragraph, as ours
    except AssertionError as error:
        if "Unexpected type for root" not in str(error):  # and this one
            raise
        return False
    except InputError as error:
        if not str(error).startswith(("There is no table of clips", "There is no folder")):
            return False
    if cfg.data.seconds * cfg.data.sample_rate <= 50_000 and cfg.features.window / cfg.features.hop <= 100:
        check_images(cfg)
    return True


HUGE = "1" + 400 * "0"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (f"optim.lr={HUGE}", "optim.lr: the number is too large"),
        (f"augment.noise_colours=[{HUGE}]", "augment.noise_colours[0]: the number is too large"),
        (f"seed={20 * HUGE}", "A value cannot be read: Exceeds the limit (4300 digits)"),
        ("features.image={frames: 60, size: 32}", "sets a value in a section that is switched off"),
    ],
    ids=["float", "list", "digits", "section"],
)
def test_the_command_line_tells_what_no_type_can_hold(word, told):
    done = train(word, "data.root=nowhere", "data.download=null")
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
