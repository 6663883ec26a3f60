import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from soundfold.data import store, store_build
from soundfold.errors import ArgumentError, InputError

RATE, CLIPS = 8000, 7
FILES = [f"{i}.wav" for i in range(CLIPS)]


class Interrupted(BaseException):
    pass


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Seven files of different lengths; a group has two clips."""
    monkeypatch.setattr(store_build, "GROUP_CLIPS", 2)
    # a group is in the journal before the next one is decoded
    monkeypatch.setattr(store_build, "THREADS", 1)
    folder = tmp_path / "audio"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, name in enumerate(FILES):
        channels = 0.1 * rng.standard_normal((300 + 20 * i, 1)) @ np.array([[1.0, -1.0 if i == 1 else 1.0]])
        soundfile.write(folder / name, channels, RATE)
    return folder


def load(root: Path, **changes):
    return store.open_store(
        root, FILES, **{"seconds": 0.05, "sample_rate": RATE, "cache": root.parent / "cache", **changes}
    )


def contents(cache: Path) -> dict[str, str]:
    return {str(p.relative_to(cache)): hashlib.sha256(p.read_bytes()).hexdigest() for p in cache.rglob("*.*")}


def interrupt_after(clips: int):
    def progress(items, total):
        for number, item in enumerate(items):
            if number == clips:
                raise Interrupted
            yield item

    return progress


def interrupted(root: Path, clips: int, **changes) -> Path:
    """Interrupt a build after some clips, and return its folder."""
    with pytest.raises(Interrupted):
        load(root, progress=interrupt_after(clips), **changes)
    (part,) = (root.parent / "cache").glob("*.part")
    return part


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the files that are decoded, as they are."""
    names: list[str] = []
    decode = store.decode
    monkeypatch.setattr(store, "decode", lambda path, *args: (names.append(path.name), decode(path, *args))[1])
    return names


def test_an_interrupted_build_is_continued_to_the_same_bytes(root, decoded, capsys):
    load(root, cache=root.parent / "other")
    expected = contents(root.parent / "other")
    note = capsys.readouterr().err
    assert "1 of 7 files cancel" in note
    for clips in (3, 5):
        interrupted(root, clips)
    decoded.clear()
    shown = []
    load(root, progress=lambda items, total: (shown.append(item) or item for item in items))
    assert "0.wav" not in decoded
    assert "3.wav" not in decoded
    assert "6.wav" in decoded
    assert len(shown) == CLIPS
    assert contents(root.parent / "cache") == expected
    assert capsys.readouterr().err == note
    assert not list((root.parent / "cache").glob("*.part"))


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(content)


# 128 bytes of header, then 400 samples a clip; the first clip has 300
@pytest.mark.parametrize(
    ("damage", "trusted"),
    [
        (lambda part: overwrite(part / "samples.npy", 128 + 50, b"\1\2"), "23"),
        (lambda part: overwrite(part / "samples.npy", 128 + 700, b"\1"), "23"),
        (lambda part: overwrite(part / "samples.npy", 128 + 3 * 800 + 9, b"\1\2"), "01"),
        (lambda part: overwrite(part / "samples.npy", 128 + 4 * 800, b"\1\2"), "0123"),
        (lambda part: overwrite(part / "samples.npy", 20, b"\1"), ""),
        (lambda part: (part / "samples.npy").write_bytes((part / "samples.npy").read_bytes()[:2000]), ""),
        (lambda part: (part / "samples.npy").unlink(), ""),
        (lambda part: cut(part / "journal.jsonl", 20), "01"),
        (lambda part: overwrite(part / "journal.jsonl", 0, bytes(40)), "23"),
        (lambda part: overwrite(part / "journal.jsonl", 0, b"\xff\xff"), ""),
        (lambda part: swap_starts(part / "journal.jsonl"), ""),
        (lambda part: (part / "journal.jsonl").write_text('{"start": 0}\n[]\n7\n'), ""),
        (lambda part: shutil.copy(part / "journal.jsonl", part / "manifest.json"), "0123"),
    ],
    ids=[
        "bit",
        "padding",
        "second group",
        "unrecorded",
        "header",
        "cut off",
        "no samples",
        "torn line",
        "zeros",
        "no text",
        "moved",
        "foreign",
        "torn manifest",
    ],
)
def test_only_groups_that_match_their_hashes_are_reused(root, decoded, damage, trusted):
    load(root, cache=root.parent / "other")
    # the interruption comes after two groups
    damage(interrupted(root, 3))
    decoded.clear()
    load(root)
    assert sorted(decoded) == [name for name in FILES if name[0] not in trusted]
    assert contents(root.parent / "cache") == contents(root.parent / "other")


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def swap_starts(journal: Path) -> None:
    text = journal.read_text()
    journal.write_text(text.replace('"start": 0', '"start": X').replace('"start": 2', '"start": 0').replace("X", "2"))


def test_the_store_does_not_depend_on_threads_and_groups(root, monkeypatch):
    load(root)
    monkeypatch.setattr(store_build, "GROUP_CLIPS", 3)
    monkeypatch.setattr(store_build, "THREADS", 8)
    load(root, cache=root.parent / "other")
    assert contents(root.parent / "cache") == contents(root.parent / "other")


def test_a_faulty_file_or_a_full_disk_leaves_no_part(root, monkeypatch):
    cache = root.parent / "cache"
    (root / "6.wav").write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"6\.wav is not audio"):
        load(root)
    assert not list(cache.glob("*.part"))
    soundfile.write(root / "6.wav", np.zeros(100), RATE)
    with monkeypatch.context() as patch:
        patch.setattr(store_build.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(ArgumentError, match=r"No space left.*requires 0\.0 MB\. Free some space, or set `cache`"):
            load(root)
        assert not list(cache.glob("*.part"))
    # the space that an interrupted build takes is its own
    part = interrupted(root, 5)
    needed = (part / "samples.npy").stat()
    free = needed.st_size - 512 * needed.st_blocks
    # decoded groups are kept if the disk is still full
    if free > 0:
        with monkeypatch.context() as patch:
            patch.setattr(store_build.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
            with pytest.raises(ArgumentError, match="No space left"):
                load(root)
        assert (part / "journal.jsonl").is_file()
    monkeypatch.setattr(store_build.shutil, "disk_usage", lambda path: SimpleNamespace(free=max(0, free)))
    assert load(root).samples.shape == (CLIPS, 400)
