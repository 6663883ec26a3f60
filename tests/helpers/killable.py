"""The training command in a process of its own, which may kill itself; importable, so that a server forks it."""

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

# imported by the server, once: a new process takes five seconds for them
import soundfold.experiment.run
import soundfold.report.run_page  # noqa: F401
from helpers.tiny import ROOT
from soundfold.data import store

# when within the write of a file: half of it is on the disk; all is, beside its place; it has its place
MOMENTS = ("half", "written", "renamed")


def server() -> Any:
    """What forks processes that have imported what training needs, and share nothing with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.formula_folds", "helpers.killable"])
    # before Python 3.12 the server does not take over the path, and leaves what it does not find unimported
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        forkserver.ensure_running()
    return context


def start(words: list[str], log: Path, **options: Any) -> BaseProcess:
    """Start ``train``."""
    process = server().Process(target=train, args=(words, log), kwargs=options)
    process.start()
    return process


def train(
    words: list[str], log: Path, at: tuple[str, str, int] | None = None, after: float | None = None, barrier: Any = None
) -> None:
    """Run ``scripts/train.py`` with these words; what it prints goes to ``log``, and a line to ``log.parent/builds``
    whenever a store is built.

    Args:
        at: file, moment and count of the write in which it kills itself; the store's file is ``samples.npy``.
        after: seconds after which it kills itself.
        barrier: what it waits at before it begins.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    build = store._build

    def counted(*arguments: Any) -> None:
        with (log.parent / "builds").open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        build(*arguments)

    store._build = counted
    if at is not None:
        _kill_in(*at)
    if barrier is not None:
        barrier.wait()
    if after is not None:
        timer = threading.Timer(after, _die)
        timer.daemon = True
        timer.start()
    sys.argv = ["train.py", *words]
    runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_in(name: str, moment: str, count: int) -> None:
    left = [count]

    def reached(path: str | Path, now: str) -> bool:
        """Whether this is the moment."""
        if now != moment or re.sub(r"\.\d+\.part$", "", Path(path).name) != name:
            return False
        left[0] -= 1
        return not left[0]

    fsync, replace, rename, opened = os.fsync, Path.replace, Path.rename, Path.open

    def flush(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if reached(path, "half"):
            os.truncate(path, os.path.getsize(path) // 2)
            _die()
        fsync(descriptor)

    def moved(move: Any, part: Path, place: Path) -> Path:
        # a folder goes by the file in it
        named = part / "samples.npy" if part.is_dir() else place
        if reached(named, "written"):
            _die()
        found = move(part, place)
        if reached(named, "renamed"):
            _die()
        return found

    def open_file(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        stream = opened(path, mode, *arguments, **options)
        if mode == "a" and reached(path, "appended"):
            write = stream.write
            stream = mock.Mock(wraps=stream)
            stream.__enter__ = lambda self: self
            stream.__exit__ = lambda *_: None
            stream.write = lambda text: (write(text[: len(text) // 2]), stream.flush(), _die())
        return stream

    os.fsync = flush
    Path.replace = lambda part, place: moved(replace, part, place)  # type: ignore[method-assign]
    Path.rename = lambda part, place: moved(rename, part, place)  # type: ignore[method-assign]
    Path.open = open_file  # type: ignore[method-assign]
