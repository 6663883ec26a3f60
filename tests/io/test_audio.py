import errno
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundfold.errors import InputError
from soundfold.io.audio import Recording, audio_files


def decode(path) -> np.ndarray:
    return np.concatenate(list(Recording.open(path).blocks()))


def test_channels_are_averaged_and_blocks_cover_the_file(tmp_path):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (300_000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 22_050, subtype="FLOAT")
    recording = Recording.open(tmp_path / "a.wav")
    assert (recording.sample_rate, recording.channels, recording.header_frames) == (22_050, 2, 300_000)
    assert len(list(recording.blocks())) > 1
    assert np.array_equal(decode(tmp_path / "a.wav"), wave.mean(axis=1))


def wav_header(claimed: int, rate: int = 44_100) -> bytes:
    form = struct.pack("<HHIIHH", 1, 1, rate, min(2 * rate, 2**32 - 1), 2, 16)
    head = b"RIFF" + struct.pack("<I", claimed + 36) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", claimed)


def au_header(claimed: int) -> bytes:
    return b".snd" + struct.pack(">IIIII", 24, claimed, 3, 44_100, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
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
def test_unreadable_files_are_refused_in_one_paragraph(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError, match=message) as refused:
        decode(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)
    # the length that the header claims is not allocated
    assert peak < 20e6


def test_a_nan_is_reported_with_its_time(tmp_path):
    wave = np.zeros(20_000, dtype=np.float32)
    wave[15_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", wave, 8000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"nan\.wav holds samples that are not numbers, the first at 1\.875 s"):
        decode(tmp_path / "nan.wav")


def test_a_truncated_file_is_reported_with_its_readable_length(tmp_path):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 400_000)
    soundfile.write(tmp_path / "complete.flac", wave, 8000)
    content = (tmp_path / "complete.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be decoded after") as refused:
        decode(tmp_path / "cut.flac")
    # half of its 50 s, less one block
    assert 15 < float(str(refused.value).split("after ")[1].split(" s")[0]) < 26


def test_audio_files_lists_folders_and_takes_files_as_given(tmp_path):
    for name in ("b.wav", "sub/a.FLAC", "notes.txt", ".hidden/c.wav", ".d.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert audio_files([tmp_path, tmp_path / "notes.txt"]) == [
        tmp_path / "b.wav",
        tmp_path / "sub" / "a.FLAC",
        tmp_path / "notes.txt",
    ]
    (tmp_path / "empty").mkdir()
    # a folder is read once, through whichever link; what cannot be read is listed, and reported when it is opened
    folder = tmp_path / "links"
    (folder / "x.wav").mkdir(parents=True)
    (folder / "x.wav" / "loop").symlink_to(folder)
    (folder / "sub").symlink_to(tmp_path / "sub")
    (folder / "again").symlink_to(tmp_path / "sub")
    (folder / "broken.wav").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.wav")
    assert audio_files([folder]) == [folder / "again" / "a.FLAC", folder / "broken.wav", folder / "pipe.wav"]
    for path in ("broken.wav", "pipe.wav"):
        with pytest.raises(InputError, match="There is no audio file"):
            Recording.open(folder / path)
    with pytest.raises(InputError, match=r"contains no file with an audio extension \(\.wav"):
        audio_files([tmp_path / "empty"])
    with pytest.raises(InputError, match="There is no audio file"):
        Recording.open(tmp_path / "absent.wav")


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    """Root reads every folder, so the error is simulated."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.wav").touch()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"closed cannot be read \(Permission denied\), so its files would be missing"):
        audio_files([tmp_path])
