"""The labels that were given, as a table that trains: a clip per labeled window and ``labels.csv`` of layout csv."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import soundfile

from soundfold.errors import InputError
from soundfold.inference.labeling.candidates import Candidate
from soundfold.io.atomic import atomic_file, explain_write_errors, short_stem, write_text
from soundfold.io.audio import open_sound
from soundfold.io.console import escape_bytes
from soundfold.io.reading import read_text

COLUMNS = ("filename", "category", "source", "start", "end")
Rows = dict[tuple[str, int], dict[str, str]]  # by the key of the window
HISTORY, MAX = "history.json", 100_000_000  # bytes
REMEDY = "Free some space, or set --out=DIRECTORY."


class LabelBook:
    """Labels in a folder, complete on disk after each call.

    ``labels.csv`` has a row per labeled window: the clip's file, its class, the recording as source, and start and end
    in seconds; ``audio/`` has the clips at the recording's sample rate; ``skipped.csv`` the windows that were skipped;
    ``history.json`` their order, for `undo`.

    Args:
        folder: created if it does not exist. Labels in it are continued.

    Raises:
        InputError: a table in the folder is damaged, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with explain_write_errors(folder, REMEDY):
            (folder / "audio").mkdir(parents=True, exist_ok=True)
        self.labels = self._read("labels.csv")
        self.skipped = self._read("skipped.csv")
        actions = [*(("labels", key) for key in self.labels), *(("skipped", key) for key in self.skipped)]
        # those that a killed process did not add to the history come last
        past = self._read_history()
        self._history = sorted(actions, key=lambda action: past.get(action, len(past)))

    @property
    def done(self) -> set[tuple[str, int]]:
        """Keys of the windows that were labeled or skipped, see `Candidate.key`."""
        return {*self.labels, *self.skipped}

    @property
    def classes(self) -> list[str]:
        """Names of the classes that were given, in alphabetical order."""
        return sorted({row["category"] for row in self.labels.values()})

    def label(self, candidate: Candidate, name: str) -> None:
        """Write the clip of a window and its label.

        Raises:
            InputError: the name is no class name, the recording cannot be read, or the folder cannot be written.
        """
        name = name.strip()
        if not name or not name.isprintable() or len(name) > 100:
            raise InputError(f"{name!r:.120} is not a class name: it needs 1 to 100 printable characters.")
        with explain_write_errors(self.folder, REMEDY):
            self._add("labels", self.labels, candidate, self._write_clip(candidate), name)

    def skip(self, candidate: Candidate) -> None:
        """Note that a window was shown and not labeled.

        Raises:
            InputError: the folder cannot be written.
        """
        with explain_write_errors(self.folder, REMEDY):
            self._add("skipped", self.skipped, candidate)

    def undo(self) -> tuple[str, int] | None:
        """Remove the last label or skip, and return its window's key; None if there is none."""
        if not self._history:
            return None
        kind, key = self._history.pop()
        with explain_write_errors(self.folder, REMEDY):
            rows = self.labels if kind == "labels" else self.skipped
            row = rows.pop(key)
            self._write(f"{kind}.csv", rows)
            self._write_history()
            if kind == "labels":
                (self.folder / "audio" / row["filename"]).unlink(missing_ok=True)
        return key

    def _add(self, kind: str, rows: Rows, candidate: Candidate, file: str = "", name: str = "") -> None:
        values = (file, name, candidate.key[0], f"{candidate.start:.3f}", f"{candidate.end:.3f}")
        row = dict(zip(COLUMNS, values, strict=True))
        self._write(f"{kind}.csv", {**rows, candidate.key: row})
        rows[candidate.key] = row  # after the file, which may fail
        self._history.append((kind, candidate.key))
        self._write_history()

    def _write_clip(self, candidate: Candidate) -> str:
        path = candidate.path
        stem = short_stem(re.sub(r"[^\w.-]+", "_", escape_bytes(path.stem)))
        digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:6]
        name = f"{stem}-{digest}-{candidate.key[1]:09d}.wav"
        clip, rate = read_window(candidate)
        with atomic_file(self.folder / "audio" / name) as stream:
            soundfile.write(stream, clip, rate, format="WAV", subtype="PCM_16")
        return name

    def _read(self, name: str) -> Rows:
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            rows = list(csv.DictReader(io.StringIO(read_text(path, MAX), newline="")))
            return {(row["source"], round(1000 * float(row["start"]))): {c: row[c] for c in COLUMNS} for row in rows}
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise InputError(
                f"{path} is not a table of labels ({error}). Restore its columns {', '.join(COLUMNS)}, or set another "
                "--out=DIRECTORY."
            ) from error

    def _read_history(self) -> dict[tuple[str, tuple[str, int]], int]:
        """Return the position of each action, a kind and a window; empty if the file is missing or damaged."""
        try:
            stored = json.loads(read_text(self.folder / HISTORY, MAX))
            return {(kind, (source, start)): position for position, (kind, source, start) in enumerate(stored)}
        except (OSError, ValueError, TypeError):
            return {}

    def _write_history(self) -> None:
        write_text(self.folder / HISTORY, json.dumps([(kind, *key) for kind, key in self._history]))

    def _write(self, name: str, rows: Rows) -> None:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
        write_text(self.folder / name, out.getvalue())


def read_window(candidate: Candidate) -> tuple:
    """Return the samples of a window, (N,) or (N, channels) in [-1, 1], and their sample rate.

    Raises:
        InputError: the recording cannot be read.
    """
    try:
        with open_sound(candidate.path) as sound:
            first = round(candidate.start * sound.samplerate)
            sound.seek(min(first, sound.frames))
            return sound.read(round(candidate.end * sound.samplerate) - first), sound.samplerate
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise InputError(f"{candidate.path} cannot be read ({error}). Restore the file, or skip the window.") from error


def next_candidate(order: Sequence[int], candidates: Sequence[Candidate], done: set[tuple[str, int]]) -> int | None:
    """Return the first index of the order whose window is not done; None after the last."""
    return next((index for index in order if candidates[index].key not in done), None)
