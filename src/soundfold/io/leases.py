"""Exclusive locks that hold between machines, also on network file systems whose `flock` does not.

The other file locks are in `soundfold.io.locks`. They end with their process at once, which a lease does not.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from soundfold.io.console import console

HEARTBEAT, EXPIRY = 20.0, 150.0  # s; NFS may show the time of the last heartbeat a minute late
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


@contextmanager
def lease(path: Path, activity: str) -> Iterator[None]:
    """Hold an exclusive lock, a file; while another process holds it, print which one, and wait.

    `link` creates the file for one process only, as NFS 2 and later guarantee (see open(2), O_EXCL), and the holder
    touches it every `HEARTBEAT` seconds. A lease without a heartbeat for `EXPIRY` seconds, by the clock of the file
    system, or whose process on this machine has ended, is abandoned: another process takes it. So a process that was
    suspended for longer may find that it has lost its lease: under a lease, write only by renaming complete files.

    Args:
        path: the lock file, with one line about the holder. It is removed at the end.
        activity: the verb phrase of the message for waiting processes, such as ``is reporting this run``.
    """
    own = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    holder = f"{_machine()} {os.getpid()} {secrets.token_hex(4)}\nProcess {os.getpid()} on {platform.node()}"
    try:
        own.write_text(holder, encoding="utf-8")
        _wait_for(path, own, activity)
        _remove_leftovers(path, own)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        own.unlink(missing_ok=True)
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, ended), daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        with suppress(FileNotFoundError):
            if path.read_text(encoding="utf-8") == holder:
                path.unlink()


def is_leased(path: Path) -> bool:
    """Return whether a process holds a `lease`."""
    try:
        return not _is_abandoned(path, path.read_text(encoding="utf-8"), time.time())
    except FileNotFoundError:
        return False


def _wait_for(path: Path, own: Path, activity: str) -> None:
    started, is_announced = time.monotonic(), False
    while not _link(own, path):
        try:
            os.utime(own)  # the clock of the file system
            # read once: by the time of the removal, the lease may be that of a new holder
            holder = path.read_text(encoding="utf-8")
            if _is_abandoned(path, holder, own.stat().st_mtime):
                _remove_abandoned(path, holder, own)
            # most holders end within a moment
            if not is_announced and time.monotonic() - started > 0.5:
                text = path.read_text(encoding="utf-8").partition("\n")[2] or "Another process"
                console.print(f"{text} {activity}; waiting for it.", soft_wrap=True)
                is_announced = True
        except FileNotFoundError:
            continue  # it was released
        time.sleep(0.02 if not is_announced else 0.5)


def _link(own: Path, path: Path) -> bool:
    """Create ``path`` as a link to ``own``; return False if it exists."""
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # such as exFAT
        try:
            with path.open("x", encoding="utf-8") as stream:
                stream.write(own.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
        return True
    # a reply that got lost makes NFS report that the link, which it has made, exists
    return own.stat().st_nlink == 2


def _is_abandoned(path: Path, holder: str, now: float) -> bool:
    """Return whether a lease with this content has expired, or the process that holds it has ended.

    Raises:
        FileNotFoundError: there is no lease.
    """
    machine, _, rest = holder.partition("\n")[0].partition(" ")
    pid = rest.partition(" ")[0]
    if machine == _machine() and pid.isdecimal() and not _is_alive(int(pid)):
        return True
    # the caller has read the file, which, unlike `stat`, makes NFS ask the server for its time of change
    return now - path.stat().st_mtime > EXPIRY


def _remove_abandoned(path: Path, holder: str, own: Path) -> None:
    """Remove the abandoned lease with this content, once.

    The marker keeps two processes from removing it, of which the second could remove the lease of a new holder.
    """
    marker = path.with_name(f"{path.name}.{hashlib.sha256(holder.encode()).hexdigest()[:8]}")
    if not _link(own, marker):
        if own.stat().st_mtime - marker.stat().st_mtime > EXPIRY:
            marker.unlink(missing_ok=True)
        return
    try:
        if path.read_text(encoding="utf-8") == holder:
            path.unlink()
    finally:
        marker.unlink(missing_ok=True)


def _remove_leftovers(path: Path, own: Path) -> None:
    """Remove the files of processes that were killed while they waited."""
    os.utime(own)
    for other in path.parent.glob(f"{path.name}.*"):
        with suppress(FileNotFoundError):
            if own.stat().st_mtime - other.stat().st_mtime > EXPIRY:
                other.unlink()


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        with suppress(OSError):
            os.utime(path)


@cache
def _machine() -> str:
    """Return a name of this machine, its start, and its process numbers: a container has its own."""
    name = platform.node().replace(" ", "-")
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{name}/{boot}/{os.readlink('/proc/self/ns/pid')}"
    return name


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # of another user
    return True
