"""The memory that this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")


def available_memory() -> int | None:
    """Return the bytes that this process can use without swapping; None if the system does not say.

    On Linux the available memory, which includes what the page cache can give back, or the lowest limit of the control
    groups of a container or a cluster's job, whichever is less. Elsewhere the physical memory.
    """
    sizes = [*_limits()]
    if MEMINFO.is_file():
        fields = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="utf-8").splitlines())
        sizes.append(1024 * int(fields["MemAvailable"].split()[0]))
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(sizes, default=None)


def _limits() -> Iterator[int]:
    """Yield the memory limits of the control groups of this process, of both versions, and of those around them."""
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for _, controllers, name in (line.split(":", 2) for line in lines):
        if controllers not in ("", "memory"):
            continue
        root, file = (CGROUPS, "memory.max") if not controllers else (CGROUPS / "memory", "memory.limit_in_bytes")
        group = root / name.lstrip("/")
        for folder in (group, *group.parents):
            try:
                text = (folder / file).read_text().strip()
            except OSError:
                text = ""
            if text.isdecimal():
                yield int(text)
            if folder == root:
                break
