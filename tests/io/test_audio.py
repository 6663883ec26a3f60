import struct
import tracemalloc

import numpy as np
import pytest
import soundfile

from soundfold.errors import InputError
from soundfold.io.audio import Recording, audio_files


def listen(path) -> np.ndarray:
    return np.concatenate(list(Recording.open(path).blocks()))


def test_channels_are_averaged_and_blocks_are_the_whole(tmp_path):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (300_000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 22_050, subtype="FLOAT")
    recording = Recording.open(tmp_path / "a.wav")
    assert (recording.sample_rate, recording.channels, recording.header_frames) == (22_050, 2, 300_000)
    assert len(list(recording.blocks())) > 1
    assert np.array_equal(listen(tmp_path / "a.wav"), wave.mean(axis=1))


def wav_header(claimed: int, rate: int = 44_100) -> bytes:
    form = struct.pack("<HHIIHH", 1, 1, rate, min(2 * rate, 2**32 - 1), 2, 16)
    head = b"RIFF" + struct.pack("<I", claimed + 36) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", claimed)


def au_header(claimed: int) -> bytes:
    return b".snd" + struct.pack(">IIIII", 24, claimed, 3, 44_100, 1)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.wav", b"hello", "not audio"),
        ("nothing.wav", b"", "not audio"),
        ("zero.wav", wav_header(0), "holds no samples"),
        ("claims.wav", wav_header(3_000_000_000), "holds no samples"),
        ("claims.au", au_header(3_000_000_000), "holds no samples"),
        ("rate.wav", wav_header(4, rate=2**31 - 1) + b"\0" * 4, "sample rate is 2147483647 Hz"),
        ("headless.raw", b"\0" * 100, "not audio"),
    ],
)
def test_what_is_no_sound_is_refused_in_a_paragraph(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError, match=words) as refused:
        listen(tmp_path / name)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
    # nothing is allocated because a header says so
    assert most < 20e6


def test_a_sample_that_is_no_number_is_named_by_its_time(tmp_path):
    wave = np.zeros(20_000, dtype=np.float32)
    wave[15_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", wave, 8000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"nan\.wav holds samples that are not numbers, the first at 1\.875 s"):
        listen(tmp_path / "nan.wav")


def test_a_file_that_is_cut_off_says_where_it_breaks(tmp_path):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 400_000)
    soundfile.write(tmp_path / "whole.flac", wave, 8000)
    content = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be decoded after") as refused:
        listen(tmp_path / "cut.flac")
    # half of its 50 s, less one block
    assert 15 < float(str(refused.value).split("after ")[1].split(" s")[0]) < 26


def test_folders_are_searched_and_files_taken_as_they_are_named(tmp_path):
    for name in ("b.wav", "sub/a.FLAC", "notes.txt", ".hidden/c.wav", ".d.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert audio_files([tmp_path, tmp_path / "notes.txt"]) == [
        tmp_path / "b.wav",
        tmp_path / "sub" / "a.FLAC",
        tmp_path / "notes.txt",
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file whose name ends as audio"):
        audio_files([tmp_path / "empty"])
    with pytest.raises(InputError, match="There is no audio file"):
        Recording.open(tmp_path / "absent.wav")
