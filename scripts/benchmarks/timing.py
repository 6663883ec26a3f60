"""Time several methods in turn, so that a machine's drift meets all of them alike."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

SHORTEST_TURN = 0.25


@dataclass(frozen=True)
class Timing:
    """Attributes: seconds, one a repeat; peak_bytes, the most memory that a repeat added, None where unknown."""

    seconds: list[float]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        return median(self.seconds)


def measure(methods: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, Timing]:
    """Run each method once to warm up and once to see its memory; then all in turn, `repeats` times.

    A turn begins with a call that does not count, as the method before leaves the caches and the processor's threads to
    itself; a short method is then called again until a quarter of a second is over. Its seconds are those of one call.

    Args:
        methods: by name; each does the same work.
        repeats: turns of each.
        device: synchronised before a clock is read.
    """
    # a freed block of just under 32 MB teaches glibc to keep such blocks, as the first step of a training does;
    # otherwise each method spends much of its time on fresh pages
    torch.zeros(7 << 20)
    peaks = {}
    for name, method in methods.items():
        method()
        with _peak_memory(device) as peak:
            method()
        peaks[name] = peak.get("bytes")
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, method in methods.items():
            method()
            synchronise(device)
            started, calls = time.perf_counter(), 0
            while calls == 0 or time.perf_counter() - started < SHORTEST_TURN:
                method()
                synchronise(device)
                calls += 1
            seconds[name].append((time.perf_counter() - started) / calls)
    return {name: Timing(seconds[name], peaks[name]) for name in methods}


def synchronise(device: torch.device) -> None:
    """Wait for the device's work; a CPU's is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _peak_memory(device: torch.device):
    """Yield a dictionary that gets ``bytes``: what the device allocated at most, or the process grew by."""
    peak: dict[str, int] = {}
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        torch.cuda.synchronize(device)
        peak["bytes"] = torch.cuda.max_memory_allocated(device) - before
        return
    if not os.path.exists("/proc/self/statm"):
        yield peak
        return
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(
            0
        )  # else what the warm-up freed is still the process's, and nothing seems to grow
    before, most, done = _resident(), [_resident()], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            most.append(_resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
    peak["bytes"] = max(most) - before


def _resident() -> int:
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
