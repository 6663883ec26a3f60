"""Folders of offline W&B runs: one whole history per run, however often it was interrupted.

W&B cannot resume an offline run. A resumed process logs the history again, to a new folder; if both folders were
uploaded, rows would appear twice. So earlier folders are set aside in ``wandb/superseded``, where ``wandb sync`` does
not look, and all folders but one are deleted when the process ends. If the earlier folder was sent, the new one begins
where it ended.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

BLOCK, HEADER, FILE_HEADER = 32768, 7, 7  # bytes
SUPERSEDED = "superseded"


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of an offline run's file, up to where it was cut.

    It is a LevelDB log after a file header: records of a checksum, length and kind, split at blocks of 32 KiB.

    Source: https://github.com/google/leveldb/blob/main/doc/log_format.md

    Raises:
        google.protobuf.message.DecodeError: a record is damaged.
    """
    raw, offset, fragments = path.read_bytes(), FILE_HEADER, b""
    while offset + HEADER <= len(raw):
        remaining = BLOCK - offset % BLOCK
        if remaining < HEADER:  # padding
            offset += remaining
            continue
        length, kind = int.from_bytes(raw[offset + 4 : offset + 6], "little"), raw[offset + 6]
        end = offset + HEADER + length
        if end > len(raw):
            return
        fragments += raw[offset + HEADER : end]
        offset = end
        if kind in (1, 4):  # a complete record or the last fragment of one
            yield Record.FromString(fragments)
            fragments = b""


def steps(folder: Path) -> list[int]:
    """Return the steps of the history in an offline folder, up to where it is cut or damaged."""
    found: list[int] = []
    for path in folder.glob("run-*.wandb"):
        with suppress(DecodeError):
            found.extend(record.history.step.num for record in read_records(path) if record.HasField("history"))
    return found


def last_step(folder: Path) -> int:
    """Return the last step of the history in an offline folder; -1 if it has none, or cannot be read."""
    return max(steps(folder), default=-1)


def sent_marker(folder: Path) -> Path | None:
    """Return the path of the file by which ``wandb sync`` marks an offline folder as sent; None without its log."""
    log = next(folder.glob("run-*.wandb"), None)
    return log and log.with_suffix(".wandb.synced")


def is_sent(folder: Path) -> bool:
    """Return whether ``wandb sync`` has sent an offline folder."""
    marker = sent_marker(folder)
    return marker is not None and marker.exists()


def first_unsent_step(current: Path, run_id: str) -> int:
    """Return the first step that no earlier folder of a run has sent; within `superseding`.

    W&B appends the history of a folder to what its server has of the run.
    """
    earlier = offline_folders(current.parent / SUPERSEDED, run_id)
    return max((last_step(path) + 1 if is_sent(path) else min(steps(path), default=0) for path in earlier), default=0)


def offline_folders(folder: Path, run_id: str | None = None) -> list[Path]:
    """Return the offline folders in a ``wandb`` folder, oldest first; of one run, if it is named."""
    # offline-run-20261126_170628-ID
    found = [path for path in folder.glob("offline-run-*-*") if path.is_dir()]
    return sorted(path for path in found if run_id in (None, run_id_of(path)))


def run_id_of(folder: Path) -> str:
    """Return the run's id of an offline folder.

    W&B appends a number to the folder's name if there is one of the same second, so the name of the log counts.
    """
    log = next(folder.glob("run-*.wandb"), None)
    return log.stem.removeprefix("run-") if log else folder.name.split("-", 3)[3]


def fullest(folders: Sequence[Path]) -> Path:
    """Return the folder with the longest history; the newest of several."""
    return max(folders, key=lambda path: (last_step(path), path.name))


@contextmanager
def superseding(current: Path, run_id: str) -> Iterator[None]:
    """Set earlier offline folders of a run aside; when its process ends, only the one with the longest history remains.

    After a success that is the new one. After an error it may be an earlier one, for example if this process failed
    before it had logged the history again. If this process is killed, the next one decides. A run that continues online
    needs no earlier folder: an upload would replace the history on the server.

    Args:
        current: folder that this process writes, ``wandb/offline-run-...`` or ``wandb/run-...``.
        run_id: of the W&B run.
    """
    home, aside = current.parent, current.parent / SUPERSEDED
    earlier = [*offline_folders(aside, run_id), *offline_folders(home, run_id)]
    if earlier := [path for path in earlier if path != current]:
        earlier = [keep_fullest(earlier, aside)]
    try:
        yield
        for path in earlier:
            shutil.rmtree(path)
    except BaseException:
        if earlier and current in offline_folders(home):
            keep_fullest([*earlier, current], home)
        raise
    finally:
        if aside.is_dir() and not any(aside.iterdir()):
            aside.rmdir()


def keep_fullest(folders: Sequence[Path], home: Path) -> Path:
    """Delete all but the fullest folder, and move that one to ``home``."""
    kept = fullest(folders)
    for path in folders:
        if path != kept:
            shutil.rmtree(path)
    home.mkdir(exist_ok=True)
    return kept.rename(home / kept.name)
