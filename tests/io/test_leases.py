"""Leases: exclusive among threads, processes and machines, and free again after the death of their holder."""

import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from soundfold.io import leases
from soundfold.io.leases import is_leased, lease


def count_holders(path: Path, threads: int = 8) -> int:
    """Return the greatest number of threads that held a lease at the same time."""
    holders, most, guard = 0, 0, threading.Lock()

    def work(_: int) -> None:
        nonlocal holders, most
        with lease(path, "is testing"):
            with guard:
                holders += 1
                most = max(most, holders)
            time.sleep(0.002)
            with guard:
                holders -= 1

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return most


def write_lease(path: Path, machine: str, pid: int, age: float = 0.0) -> None:
    path.write_text(f"{machine} {pid} 0\nProcess {pid} on node7")
    os.utime(path, (time.time() - age,) * 2)


def ended_process() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


ABANDONED = {
    "of a dead process of this machine": lambda path: write_lease(path, leases._machine(), ended_process()),
    "without a heartbeat": lambda path: write_lease(path, "node7", 1, leases.EXPIRY + 1),
    "of an older version, after an error": lambda path: write_lease(path, "Process", 1, 1000),
}


@pytest.mark.parametrize("abandon", ABANDONED.values(), ids=ABANDONED)
def test_an_abandoned_lease_is_taken_by_one_process_at_a_time(abandon, tmp_path, capsys):
    abandon(tmp_path / "cv.lock")
    assert not is_leased(tmp_path / "cv.lock")
    assert count_holders(tmp_path / "cv.lock") == 1
    assert not [*tmp_path.iterdir()]
    assert "waiting" not in capsys.readouterr().err


def test_a_new_lease_is_not_removed_in_place_of_an_abandoned_one(tmp_path, monkeypatch):
    path = tmp_path / "cv.lock"
    write_lease(path, leases._machine(), ended_process())
    judge = leases._is_abandoned

    def judge_slowly(*arguments) -> bool:
        is_abandoned = judge(*arguments)
        if is_abandoned:
            # another process removes it, and a third one takes the lease
            write_lease(path, leases._machine(), os.getpid())
        return is_abandoned

    monkeypatch.setattr(leases, "_is_abandoned", judge_slowly)
    monkeypatch.setattr(time, "sleep", lambda seconds: (seen.append(path.read_text()), path.unlink(missing_ok=True)))
    seen: list[str] = []
    with lease(path, "is testing"):
        pass
    # the third process still had it when this one looked again
    assert seen[0].startswith(f"{leases._machine()} {os.getpid()} 0")


def test_without_hard_links_a_lease_is_exclusive(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert count_holders(tmp_path / "cv.lock") == 1
    assert not [*tmp_path.iterdir()]


def test_a_lost_reply_of_the_server_does_not_lose_the_lease(tmp_path, monkeypatch):
    link = os.link

    def link_but_report_failure(source, target):
        link(source, target)
        raise FileExistsError(errno.EEXIST, "exists")

    monkeypatch.setattr(os, "link", link_but_report_failure)
    with lease(tmp_path / "cv.lock", "is testing"):
        assert is_leased(tmp_path / "cv.lock")
    assert not is_leased(tmp_path / "cv.lock")


@pytest.mark.parametrize(("machine", "pid"), [("another-node", 1), (None, None)])
def test_the_lease_of_a_living_process_is_waited_for(machine, pid, tmp_path, monkeypatch, capsys):
    path = tmp_path / "cv.lock"
    write_lease(path, machine or leases._machine(), pid or os.getpid(), leases.EXPIRY - 30)
    monkeypatch.setattr(time, "sleep", lambda seconds: path.unlink(missing_ok=True) if seconds == 0.5 else None)
    with lease(path, "is reporting this run"):
        pass
    assert f"Process {pid or os.getpid()} on node7 is reporting this run; waiting for it." in capsys.readouterr().err


def test_a_heartbeat_renews_the_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "HEARTBEAT", 0.001)
    with lease(tmp_path / "cv.lock", "is testing"):
        os.utime(tmp_path / "cv.lock", (0, 0))
        while (tmp_path / "cv.lock").stat().st_mtime == 0:
            time.sleep(0.001)
        assert is_leased(tmp_path / "cv.lock")


def test_a_process_that_lost_its_lease_does_not_release_that_of_another(tmp_path):
    path = tmp_path / "cv.lock"
    with lease(path, "is testing"):
        write_lease(path, "node7", 1)
    assert is_leased(path)


def test_files_of_processes_that_were_killed_while_they_waited_are_removed(tmp_path):
    write_lease(tmp_path / "cv.lock.7-0123abcd", "node7", 7, leases.EXPIRY + 1)
    with lease(tmp_path / "cv.lock", "is testing"):
        assert [path.name for path in tmp_path.iterdir()] == ["cv.lock"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs process namespaces")
def test_the_holder_names_its_process_namespace(tmp_path):
    with lease(tmp_path / "cv.lock", "is testing"):
        first = (tmp_path / "cv.lock").read_text().split()
    assert os.readlink("/proc/self/ns/pid") in first[0]
    assert int(first[1]) == os.getpid()
