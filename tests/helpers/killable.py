"""The training command in a new process, which may kill itself. A module, so that a fork server can import it."""

import multiprocessing
import os
import re
import runpy
import signal
import sys
import threading
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

# imported once by the fork server; importing them takes a new process five seconds
import soundfold.experiment.run
import soundfold.report.run_page  # noqa: F401
from helpers.tiny import ROOT
from soundfold.data import store

# moments within the atomic write of a file: half is on disk, all is on disk, the file is renamed
MOMENTS = ("half", "written", "renamed")


def server() -> Any:
    """Return a context whose processes are forked from one that has imported everything training needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.formula_folds", "helpers.killable"])
    # before Python 3.12 the server does not inherit sys.path, and ignores modules that it does not find
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        forkserver.ensure_running()
    return context


def start(args: list[str], log: Path, **options: Any) -> BaseProcess:
    """Start `train` in a new process."""
    process = server().Process(target=train, args=(args, log), kwargs=options)
    process.start()
    return process


def train(
    args: list[str], log: Path, at: tuple[str, str, int] | None = None, after: float | None = None, barrier: Any = None
) -> None:
    """Run ``scripts/train.py``.

    Args:
        args: command-line arguments.
        log: file to append the output to. ``builds`` in its folder gets a line for every store that is built.
        at: file, moment and count of the write in which the process kills itself; a store's file is ``samples.npy``.
        after: seconds after which the process kills itself.
        barrier: barrier to wait at before the start.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    build = store._build

    def count_and_build(*arguments: Any) -> None:
        with (log.parent / "builds").open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        build(*arguments)

    store._build = count_and_build
    if at is not None:
        _kill_in(*at)
    if barrier is not None:
        barrier.wait()
    if after is not None:
        timer = threading.Timer(after, _die)
        timer.daemon = True
        timer.start()
    sys.argv = ["train.py", *args]
    runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_in(name: str, moment: str, count: int) -> None:
    remaining = [count]

    def reached(path: str | Path, current: str) -> bool:
        """Return whether this is the write and the moment to be killed in."""
        if current != moment or re.sub(r"\.[^.]+\.part$", "", Path(path).name) != name:
            return False
        remaining[0] -= 1
        return not remaining[0]

    fsync, replace, rename, open_file = os.fsync, Path.replace, Path.rename, Path.open

    def truncate_and_die(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if reached(path, "half"):
            os.truncate(path, os.path.getsize(path) // 2)
            _die()
        fsync(descriptor)

    def move_and_die(move: Any, part: Path, target: Path) -> Path:
        # a store's folder is identified by its file
        path = part / "samples.npy" if part.is_dir() else target
        if reached(path, "written"):
            _die()
        result = move(part, target)
        if reached(path, "renamed"):
            _die()
        return result

    def open_and_die(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        stream = open_file(path, mode, *arguments, **options)
        if mode == "a" and reached(path, "appended"):
            write = stream.write
            stream = mock.Mock(wraps=stream)
            stream.__enter__ = lambda self: self
            stream.__exit__ = lambda *_: None
            stream.write = lambda text: (write(text[: len(text) // 2]), stream.flush(), _die())
        return stream

    os.fsync = truncate_and_die
    Path.replace = lambda part, target: move_and_die(replace, part, target)  # type: ignore[method-assign]
    Path.rename = lambda part, target: move_and_die(rename, part, target)  # type: ignore[method-assign]
    Path.open = open_and_die  # type: ignore[method-assign]
