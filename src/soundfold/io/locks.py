"""File locks between processes; a waiting process reports which process holds the lock."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout, UnixFileLock

from soundfold.io.console import console


@contextmanager
def exclusive_lock(path: Path, activity: str) -> Iterator[None]:
    """Hold an exclusive lock on a file; while another process holds it, print which one, and wait.

    The lock is the operating system's ``flock``: it ends with the process that holds it, and a leftover lock file locks
    nothing. On network file systems it works between machines with NFS 4 and with Lustre mounted with ``flock``, and
    only within one machine with ``localflock``. Writers also rename complete files into place, so a file system
    without locks leads to duplicate work or a failed process, never to a partial file.

    The file is removed when the work is complete, after which it is harmless if two processes enter. After an error it
    stays: without it, a process that has opened it and one that creates a new one could both work (filelock notices a
    removed file, but not on NFS, where it has another name until it is closed).

    Args:
        path: the lock file. The holder writes one line about itself into it.
        activity: the verb phrase of the message for waiting processes, such as ``is training fold 1``.
    """
    lock = FileLock(path)
    try:
        # a new holder needs a moment to write its line
        lock.acquire(timeout=0.2)
    except Timeout:
        console.print(f"{_holder(path)} {activity}; waiting for it.", soft_wrap=True)
        lock.acquire()
    try:
        # without flock, filelock uses the file's content itself
        if isinstance(lock, UnixFileLock):
            path.write_text(
                f"Process {os.getpid()} on {platform.node()}, since {time.strftime('%d %b %H:%M:%S')},",
                encoding="utf-8",
            )
        yield
        path.unlink(missing_ok=True)
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "Another process"
    except OSError:
        return "Another process"
