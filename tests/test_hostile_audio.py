"""Hostile sound files are decoded to finite samples of the right shape, or refused with an InputError."""

import io
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.hostile import accepted, bounded, property_test
from hypothesis import strategies as st

from soundfold.data.resampling import resample_blocks
from soundfold.data.store import decode, to_int16
from soundfold.eda.checks import inspect_file
from soundfold.io.audio import Recording

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
EXTREME_FIELDS = [0, 1, 2, 255, 65_535, 44_099, 2**31 - 1, 2**31, 4_000_000_000, 2**32 - 1]


@st.composite
def sounds(draw: st.DrawFn) -> tuple[bytes, str, tuple[int, int] | None]:
    """Draw the bytes of a sound file, a suffix, and (frames, sample rate), or None if the file may be unreadable."""
    lossy = draw(st.sampled_from([False, False, False, True]))
    container = draw(st.sampled_from(sorted(LOSSY if lossy else LOSSLESS)))
    subtype = draw(st.sampled_from((LOSSY if lossy else LOSSLESS)[container]))
    common = st.sampled_from(RATES)
    # FLAC encoders do not support all rates
    rate = draw(common if container == "FLAC" else st.one_of(common, st.integers(8000, 192_000)))
    rate, max_channels = (48_000, 2) if subtype in ("OPUS", "MPEG_LAYER_III", "MS_ADPCM") else (rate, 8)
    shape = draw(st.sampled_from([0, 1, 2, 700, 5000])), draw(st.integers(1, max_channels))
    amplitude = draw(st.sampled_from([0.0, 0.5, 0.5, 1.0, 3.0, 1e9, 1e38, 1e300]))
    wave = amplitude * np.random.default_rng(draw(st.integers(0, 9))).uniform(-1, 1, shape)
    if (extreme := draw(st.sampled_from([None, None, None, np.nan, np.inf, 3e38]))) and shape[0]:
        wave[draw(st.integers(0, shape[0] - 1))] = extreme
    wave = wave if subtype in ("FLOAT", "DOUBLE") else np.clip(np.nan_to_num(wave), -1, 1)
    out = io.BytesIO()
    with np.errstate(over="ignore"):
        soundfile.write(out, wave if subtype == "DOUBLE" else wave.astype(np.float32), rate, subtype, format=container)
    content = bytearray(out.getvalue())
    edits = draw(st.lists(st.sampled_from(["truncate", "flip", "header", "header", "zero", "insert"]), max_size=3))
    for edit in edits if content else ():
        offset = draw(st.integers(0, len(content) - 1) if content else st.just(0))
        if edit == "truncate":
            del content[offset:]
        elif edit == "flip" and content:
            content[offset] ^= draw(st.integers(1, 255))
        elif edit == "header":
            offset = draw(st.integers(0, min(64, len(content))))
            value = draw(st.sampled_from(EXTREME_FIELDS))
            layout = draw(st.sampled_from(["<I", ">I", "<H", ">H"]))
            field = struct.pack(layout, value & (0xFFFFFFFF if layout[1] == "I" else 0xFFFF))
            content[offset : offset + len(field)] = field
        elif edit == "zero":
            content[offset : offset + 16] = bytes(len(content[offset : offset + 16]))
        elif edit == "insert":
            content[offset:offset] = draw(st.binary(max_size=20))
    suffix = draw(st.sampled_from([f".{container.lower()}"] * 3 + [".wav", ".mp3", ".raw", ".txt", ""]))
    readable = not (edits or lossy or suffix == ".raw") and shape[0] > 0 and bool((np.abs(wave) <= 1e10).all())
    return bytes(content), suffix, (shape[0], rate) if readable else None


PREFIXES = st.one_of(st.binary(max_size=100), st.just(b"RIFF"), st.just(b"fLaC" + bytes(40)))
NO_SOUNDS = st.tuples(PREFIXES, st.just(".wav"), st.none())
READ_OPTIONS = st.tuples(
    st.sampled_from([1000, 8000, 16_000, 44_099, 44_100, 192_000]), st.sampled_from([1, 500, 6000])
)


def float_wav(rate: int, channels: int = 1, value: float = 0.5, frames: int = 100) -> bytes:
    """Return a WAV file of constant float samples."""
    out = io.BytesIO()
    soundfile.write(out, np.full((frames, channels), value, dtype=np.float32), rate, "FLOAT", format="WAV")
    return out.getvalue()


def flac_with_header(frames: int) -> bytes:
    """Return a FLAC file of 100 frames and 8 channels whose header declares ``frames``."""
    out = io.BytesIO()
    soundfile.write(out, np.zeros((100, 8)), 8000, "PCM_16", format="FLAC")
    content = bytearray(out.getvalue())
    content[21:26] = ((content[21] & 0xF0) << 32 | frames).to_bytes(5, "big")
    return bytes(content)


# the comment is the failure before the fault was handled
KNOWN_SOUNDS = (
    ((float_wav(44_099), ".wav", (100, 44_099)), (44_100, 500)),  # a resampling kernel of gigabytes
    ((float_wav(8000, 8, 3e38), ".wav", None), (8000, 500)),  # the mean over channels overflows
    ((float_wav(8000, 1, 1e9), ".wav", (100, 8000)), (16_000, 500)),  # finite, although far above full scale
    ((flac_with_header(2**36 - 1), ".flac", None), (8000, 500)),  # MemoryError
    ((float_wav(8000), ".raw", None), (8000, 500)),  # TypeError
)


@property_test(
    st.tuples(st.one_of(sounds(), sounds(), sounds(), NO_SOUNDS), READ_OPTIONS),
    few=180,
    many=4000,
    examples=KNOWN_SOUNDS,
)
def test_decoded_audio_is_finite_and_in_shape_or_refused(case, tmp_path):
    (content, suffix, size), (rate, frames) = case
    path = tmp_path / f"sound{suffix}"
    path.write_bytes(content)
    mono = accepted(lambda: decode(path, rate, frames))
    streamed = accepted(lambda: stream(path, rate))
    inspection = inspect_file(tmp_path, path.name)
    # the file is so short that all three read it to its end
    assert (mono is None) == (streamed is None) == (inspection.fault is not None), inspection
    if size is not None:
        assert len(mono) == min(frames, -(-size[0] * rate // size[1]))
    if mono is None:
        return
    assert mono.dtype == streamed.dtype == np.float32
    assert mono.shape == (min(frames, len(streamed)),)
    assert mono.size
    assert np.isfinite(mono).all()
    assert np.isfinite(streamed).all()
    np.testing.assert_array_equal(mono, streamed[:frames])
    stored = to_int16(mono, frames)
    assert stored.dtype == np.int16
    assert stored.shape == (frames,)
    peak = np.abs(mono).max()
    assert np.abs(stored.astype(int)).max() == pytest.approx(min(32768, 32768 * peak), abs=1)


def stream(path: Path, rate: int) -> np.ndarray:
    """Read and resample a file in blocks."""
    recording = Recording.open(path)
    return np.concatenate(list(resample_blocks(recording.blocks(), recording.sample_rate, rate)))


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("seconds", [0.1, 0.5, 0.7, 70])
def test_decoded_start_equals_the_start_of_the_entire_file(rate, seconds, tmp_path):
    if seconds * rate > 4_000_000:
        rate = 11_025
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * rate), 2))
    soundfile.write(tmp_path / "a.wav", wave, rate, "PCM_24")
    entire = soundfile.read(tmp_path / "a.wav", dtype="float32")[0].mean(axis=1)
    entire = np.concatenate(list(resample_blocks([entire], rate, 44_100)))[:22_050]
    assert np.array_equal(decode(tmp_path / "a.wav", 44_100, 22_050), entire)


def test_only_the_start_of_a_long_file_is_decoded(tmp_path):
    path = tmp_path / "ten_hours.wav"
    path.write_bytes(float_wav(8000)[:-400])
    header = bytearray(path.read_bytes())
    size = 10 * 3600 * 8000 * 4
    offset = header.index(b"data") + 4
    header[offset : offset + 4] = struct.pack("<I", size)
    path.write_bytes(header)
    os.truncate(path, len(header) + size)  # a sparse file of zeros
    tracemalloc.start()
    with bounded():
        assert decode(path, 16_000, 80_000).shape == (80_000,)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6
