"""Building a packed store: in parallel, in little memory, and from where an interrupted build ended."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soundfold.errors import InputError
from soundfold.io.atomic import dumps_with_checksum, write_text
from soundfold.io.parallel import map_ahead
from soundfold.io.reading import read_text

# of the clips that a thread decodes before they are written; a group is a line of the journal
GROUP_CLIPS, GROUP_BYTES = 32, 8 << 20
# libsndfile, soxr and SHA-256 release the GIL; more threads than cores, because some wait for the disk
THREADS = min(32, (os.cpu_count() or 1) + 4)
# bytes; a clip takes 75
MAX_JOURNAL = 1_000_000_000
Progress = Callable[[Iterable, int], Iterable]


@dataclass(frozen=True)
class PackedClip:
    """A stored clip: int16 (frames,), its length in samples without the zero padding, and notes about its file."""

    row: np.ndarray
    length: int
    note: str = ""


@dataclass(frozen=True)
class Group:
    """Consecutive clips that are written together.

    Attributes:
        start: index of the first clip.
        lengths: of each clip, in samples.
        hashes: SHA-256 of each clip's samples.
        notes: about the files of these clips, see `PackedClip`.
    """

    start: int
    lengths: list[int]
    hashes: list[str]
    notes: list[str]


class StoreBuilder:
    """Writes ``samples.npy`` and ``manifest.json`` of a store into a folder.

    Threads decode groups of clips, which are written to their place in the file: so the memory in use does not depend
    on the number of clips, nor the files on the number of threads. ``journal.jsonl`` has a line for each group that was
    written. A builder that finds a journal reuses the groups whose samples have the recorded hashes, and trusts nothing
    else that it finds. So the files are the same, wherever a build was interrupted, also by a power failure.

    Args:
        folder: of the files: empty, or that of an interrupted build of the same clips.
        clips: number of clips.
        frames: length of a stored clip, in samples.
        pack: returns the clip of an index; called in threads.
    """

    def __init__(self, folder: Path, clips: int, frames: int, pack: Callable[[int], PackedClip]) -> None:
        self.folder, self.clips, self.frames, self.pack = folder, clips, frames, pack
        self.samples, self.journal = folder / "samples.npy", folder / "journal.jsonl"
        self.step = max(1, min(GROUP_CLIPS, GROUP_BYTES // (2 * frames)))
        header = io.BytesIO()
        layout = {"descr": "<i2", "fortran_order": False, "shape": (clips, frames)}
        np.lib.format.write_array_header_1_0(header, layout)
        self.header = header.getvalue()

    def build(self, progress: Progress, **properties: Any) -> list[str]:
        """Write the files, and return the notes about clips, in their order.

        After an interruption the folder can be built on. It is removed after an error in a clip, or if a new build has
        written nothing.

        Args:
            progress: wraps the loop over clips, given an iterable and their number.
            properties: further values of the manifest.

        Raises:
            InputError: raised by `pack`.
            OSError: writing failed, or the disk has too little space.
        """
        groups: dict[int, Group] = {}
        is_new = not self.journal.exists()

        def written() -> Iterator[str]:
            for group in self._write_groups():
                groups[group.start] = group
                yield from group.hashes

        try:
            for _ in progress(written(), self.clips):
                pass
            ordered = [groups[start] for start in sorted(groups)]
            manifest = {
                **properties,
                "lengths": [length for group in ordered for length in group.lengths],
                "hashes": [text for group in ordered for text in group.hashes],
            }
            (self.folder / "manifest.json").write_text(dumps_with_checksum(manifest))
        except BaseException as error:
            # a repaired file has another hash, so its store has another key
            if isinstance(error, InputError) or (is_new and not groups):
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self.journal.unlink()
        return [note for group in ordered for note in group.notes]

    def _write_groups(self) -> Iterator[Group]:
        """Yield the groups that are reused, then those that are decoded, each after it is in the journal."""
        reused = {group.start: group for group in self._reusable()}
        self._allocate()
        # from its start, because the last line of a killed process may be incomplete
        write_text(self.journal, "".join(_line(group) for group in reused.values()))
        yield from reused.values()
        starts = (start for start in range(0, self.clips, self.step) if start not in reused)
        with self.samples.open("r+b") as stream, self.journal.open("a") as journal:
            for group, rows in map_ahead(self._pack_group, starts, THREADS, THREADS):
                # not by a mapping, in which a full disk kills the process
                stream.seek(len(self.header) + group.start * 2 * self.frames)
                stream.write(rows.data)
                stream.flush()
                journal.write(_line(group))
                journal.flush()
                yield group
            # before the journal is removed: without it, samples are not trusted
            os.fsync(stream.fileno())

    def _pack_group(self, start: int) -> tuple[Group, np.ndarray]:
        packed = [self.pack(index) for index in range(start, min(start + self.step, self.clips))]
        hashes = [row_hash(clip.row, clip.length) for clip in packed]
        notes = [clip.note for clip in packed if clip.note]
        return Group(start, [clip.length for clip in packed], hashes, notes), np.stack([clip.row for clip in packed])

    def _allocate(self) -> None:
        """Give the file its header and length, which reserves no space; raise OSError if the disk has too little."""
        total = len(self.header) + 2 * self.clips * self.frames
        with self.samples.open("r+b" if self.samples.exists() else "wb") as stream:
            present = 512 * getattr(os.fstat(stream.fileno()), "st_blocks", 0)
            if shutil.disk_usage(self.folder).free < total - present:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
            stream.write(self.header)
            stream.truncate(total)

    def _reusable(self) -> Iterator[Group]:
        """Yield the groups of an interrupted build whose samples match their hashes."""
        try:
            lines = read_text(self.journal, MAX_JOURNAL).splitlines()
            with self.samples.open("rb") as stream:
                if stream.read(len(self.header)) != self.header:
                    return
            shape = self.clips, self.frames
            samples = np.memmap(self.samples, np.dtype("<i2"), "r", len(self.header), shape)
        except (OSError, ValueError):
            return

        def check(line: str) -> Group | None:
            group = self._parse(line)
            return group if group and rows_intact(samples, group.start, group.lengths, group.hashes) else None

        yield from filter(None, map_ahead(check, lines, THREADS, THREADS))

    def _parse(self, line: str) -> Group | None:
        """Return the group of a line of the journal; None if the line is damaged."""
        try:
            group = Group(**json.loads(line))
            size = min(self.step, self.clips - group.start)
            is_valid = (
                group.start in range(0, self.clips, self.step)
                and len(group.lengths) == len(group.hashes) == size
                and all(type(length) is int and 0 <= length <= self.frames for length in group.lengths)
            )
        except (ValueError, TypeError):
            return None
        return group if is_valid else None


def row_hash(row: np.ndarray, length: int) -> str:
    """Return the SHA-256 of a stored clip without its padding."""
    return hashlib.sha256(row[:length].data).hexdigest()


def rows_intact(samples: np.ndarray, start: int, lengths: Sequence[int], hashes: Sequence[str]) -> bool:
    """Return whether consecutive clips, from ``start`` on, match their hashes and are padded with zeros."""
    rows = np.asarray(samples[start : start + len(lengths)])
    return all(
        row_hash(row, length) == expected and not row[length:].any()
        for row, length, expected in zip(rows, lengths, hashes, strict=True)
    )


def _line(group: Group) -> str:
    return json.dumps(asdict(group)) + "\n"
