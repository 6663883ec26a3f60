"""One process at a time, and for the others to see which."""

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
def exclusive_lock(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock of a file; where another process has it, say which, and wait.

    The lock is the operating system's (``flock``): it ends with its holder, however that dies, and the file that stays
    behind locks nothing. Over a network it is as good as the file system's own: NFS since version 4 and Lustre mounted
    with ``flock`` keep it among machines, with ``localflock`` only among the processes of one. What is written under it
    is renamed whole all the same: where a lock is no lock, work is done twice, or one of two fails; nothing is torn.

    Args:
        path: the file; it holds a line about its holder.
        doing: what is done meanwhile, such as ``is training fold 1``.
    """
    lock = FileLock(path)
    try:
        # a moment: who has just taken it writes its name next
        lock.acquire(timeout=0.2)
    except Timeout:
        console.print(f"{_holder(path)} {doing}; waiting for it.", soft_wrap=True)
        lock.acquire()
    try:
        # where there is no flock, what the file holds is the lock's own
        if isinstance(lock, UnixFileLock):
            path.write_text(f"Process {os.getpid()} on {platform.node()}, since {time.strftime('%d %b %H:%M:%S')},")
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    try:
        return path.read_text() or "Another process"
    except OSError:
        return "Another process"
