"""Special files, such as directories, pipes and devices, are refused by all readers without blocking."""

import os
from pathlib import Path

import pytest
from helpers.hostile import bounded

from soundfold.data.folder import read_folder
from soundfold.data.store import decode, open_store
from soundfold.data.tables import read_table
from soundfold.errors import InputError
from soundfold.inference.fold_models import read_models
from soundfold.io.audio import Recording
from soundfold.models.initial_weights import initialize
from soundfold.models.resnet import ResNet18


def special(folder: Path) -> dict[str, Path]:
    """Create paths that cannot be read as a file; return them by name."""
    (folder / "directory.wav").mkdir()
    os.mkfifo(folder / "fifo.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "dangling.wav").symlink_to("missing.wav")
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
    "weights": lambda path: initialize(ResNet18(2, width=16), 2, str(path)),
    "models": lambda path: read_models(path),
    "folder": lambda path: read_folder(path, path.parent / "cache"),
}


@pytest.mark.parametrize("reader", READERS)
def test_special_file_is_refused_without_blocking(reader, tmp_path):
    with bounded():
        for path in special(tmp_path).values():
            with pytest.raises(InputError):
                READERS[reader](path)
