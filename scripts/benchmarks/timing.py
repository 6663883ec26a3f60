"""Time several methods in turn, so that a drift of the machine's speed affects all of them equally."""

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
    """Measurements of a method.

    Attributes:
        seconds: of a call, one value per repeat.
        peak_bytes: maximum memory that a call added; None if unknown.
    """

    seconds: list[float]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        return median(self.seconds)


def measure(methods: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, Timing]:
    """Run each method once to warm up and once to measure its memory, then all in turn, ``repeats`` times.

    A turn begins with an untimed call, since the previous method has filled the caches. A short method is then called
    for a quarter of a second, and the mean duration of a call is recorded.

    Args:
        methods: by name; each does the same work.
        repeats: turns of each.
        device: synchronized before the clock is read.
    """
    # Freeing a block of just under 32 MB raises glibc's mmap threshold, as the first training step does. Otherwise
    # each method spends much of its time on page faults.
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
            synchronize(device)
            started, calls = time.perf_counter(), 0
            while calls == 0 or time.perf_counter() - started < SHORTEST_TURN:
                method()
                synchronize(device)
                calls += 1
            seconds[name].append((time.perf_counter() - started) / calls)
    return {name: Timing(seconds[name], peaks[name]) for name in methods}


def synchronize(device: torch.device) -> None:
    """Wait until a CUDA device is idle; a CPU always is."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _peak_memory(device: torch.device):
    """Yield a dictionary that gets ``bytes``: the device's peak allocation, or the growth of the process."""
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
        # return the memory that the warm-up freed to the system; otherwise the process would not grow
        ctypes.CDLL(None).malloc_trim(0)
    before, samples, done = _resident(), [_resident()], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            samples.append(_resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
    peak["bytes"] = max(samples) - before


def _resident() -> int:
    with open("/proc/self/statm", encoding="utf-8") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
