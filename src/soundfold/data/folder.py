"""Collections without a table: one folder of audio per class. The table of clips is derived, including the folds."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from soundfold.data.class_folders import find_audio
from soundfold.data.folds import assign_folds
from soundfold.data.tables import ClipTable, read_table
from soundfold.errors import ArgumentError, InputError
from soundfold.io.atomic import explain_write_errors, has_control_characters, write_text
from soundfold.io.audio import EXTENSIONS
from soundfold.io.csv_text import csv_text


def read_folder(
    root: Path, cache: Path, folds: int = 5, source_pattern: str | None = None, classes: list[str] | None = None
) -> ClipTable:
    """Derive the table of clips of a folder with one subfolder per class.

    The same files result in the same folds on every machine. The table is written to ``<cache>/folds-<hash>.csv`` in
    ESC-50's format, to inspect, or to copy and edit.

    Args:
        root: its subfolders are the classes, with audio files at any depth, see `find_audio`.
        folds: number of folds, see `assign_folds`.
        source_pattern: regular expression, searched for in file names. The group ``source``, else the first group, else
            the match identifies the source recording of the clip. None makes every file its own source.
        classes: select these classes; None selects all.

    Raises:
        InputError: a folder cannot be read, or a name cannot be stored in a table.
        ArgumentError: no classes or files, a file outside the class folders or without a source, or a class with fewer
            sources than folds.
    """
    files = _audio_files(root)
    if classes is not None:
        if unknown := sorted(set(classes) - {_class_of(name) for name in files}):
            raise ArgumentError(f"`classes` names {', '.join(unknown)}, but {root} has no such folder of audio.")
        files = [name for name in files if _class_of(name) in classes]
    sources = [name if source_pattern is None else _source(name, source_pattern) for name in files]
    names = sorted({_class_of(name) for name in files})
    number_of = {name: number for number, name in enumerate(names)}
    targets = np.array([number_of[_class_of(name)] for name in files])
    fold_of = assign_folds(targets, sources, names, folds)
    header = ("filename", "fold", "target", "category", "src_file")
    clips = zip(files, fold_of, targets, [names[t] for t in targets], sources, strict=True)
    text = csv_text([header, *clips])
    key = hashlib.sha256(repr((files, sources, folds)).encode()).hexdigest()[:16]
    path = cache / f"folds-{key}.csv"
    # an existing file may have been edited or damaged
    if not path.is_file() or path.read_bytes() != text.encode():
        with explain_write_errors(cache, "Free some space, or set `cache` to another folder."):
            cache.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
    return replace(read_table(path), has_sources=source_pattern is not None)


def _class_of(name: str) -> str:
    return name.split("/")[0]


def _audio_files(root: Path) -> list[str]:
    """Return the names of the audio files, sorted, after a check that a table of clips can hold them."""
    if not os.path.isdir(root):  # Path.is_dir raises for a name that is too long
        raise ArgumentError(f"There is no folder {root}. Set `root` to a folder with one folder of audio per class.")
    files = find_audio(root)
    if invalid := [name for name in files if not _survives_csv(name)]:
        raise InputError(
            f"{root} contains {invalid[0]!r}, whose name is not UTF-8 or has a control character, or whose class "
            "begins or ends with a blank. A table of clips cannot represent this name. Rename the file or folder."
        )
    if stray := [name for name in files if "/" not in name]:
        raise ArgumentError(
            f"{root / stray[0]} is in no folder of a class ({len(stray)} such files). Move it to the folder of its "
            "class, or set `root` to another folder."
        )
    class_names = Counter(_class_of(name) for name in files)
    if len(class_names) < 2:
        raise ArgumentError(
            f"{root} has audio in {len(class_names)} folder(s); a classifier needs two classes. Set `root` to a folder "
            f"that has one folder per class, with files such as {', '.join(sorted(EXTENSIONS)[:4])}."
        )
    return files


def _survives_csv(name: str) -> bool:
    """Return whether `read_table` reads this name as it was written."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return _class_of(name) == _class_of(name).strip() and not has_control_characters(name)


def _source(name: str, pattern: str) -> str:
    try:
        match = re.search(pattern, name.rsplit("/", 1)[-1])
    except (re.error, OverflowError, RecursionError) as error:
        raise ArgumentError(f"`source_pattern`={pattern!r} is not a regular expression: {error}.") from None
    if match is None:
        raise ArgumentError(
            f"`source_pattern`={pattern!r} does not match {name!r}, so its source is unknown. Widen the pattern, or "
            "remove it, which makes every file its own source."
        )
    groups = match.groupdict()
    source = groups.get("source") or (match.group(1) if match.re.groups else match.group(0)) or match.group(0)
    if not source.strip():
        raise ArgumentError(
            f"`source_pattern`={pattern!r} matches an empty part of {name!r}, so its source is unknown. Change the "
            "pattern to match an identifier of the recording, or remove it, which makes every file its own source."
        )
    return source
