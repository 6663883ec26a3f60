"""A collection that is nothing but folders of audio, one per class: its table of clips is made, with folds."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np

from soundfold.data.tables import ClipTable, read_table
from soundfold.errors import InputError
from soundfold.io.atomic import explain_write_errors, write_text
from soundfold.io.audio import EXTENSIONS


def read_folder(
    root: Path, cache: Path, folds: int = 5, source_pattern: str | None = None, classes: list[str] | None = None
) -> ClipTable:
    """Make the table of clips of a folder with one sub-folder per class.

    The same files give the same folds on every machine. The table is kept in ESC-50's format as
    ``<cache>/folds-<hash>.csv``, to be looked at, or copied and edited.

    Args:
        root: its sub-folders are the classes; audio files lie in them at any depth. Hidden files are left out.
        cache: folder of the packed stores.
        folds: how many to make, see `assign_folds`.
        source_pattern: regular expression searched for in a file's name, whose group ``source``, else first group, else
            whole match names the recording that the clip was cut from; None has every file be its own source.
        classes: only these are kept.

    Raises:
        InputError: no classes or files, a file outside a class or without a source, a class with too few sources.
    """
    files = _audio_files(root)
    if classes is not None:
        if unknown := sorted(set(classes) - {name.split("/")[0] for name in files}):
            raise InputError(f"data.classes names {', '.join(unknown)}, but {root} has no such folder of audio.")
        files = [name for name in files if name.split("/")[0] in classes]
    sources = [name if source_pattern is None else _source(name, source_pattern) for name in files]
    names = sorted({name.split("/")[0] for name in files})
    targets = np.array([names.index(name.split("/")[0]) for name in files])
    key = hashlib.sha256(repr((files, sources, folds)).encode()).hexdigest()[:16]
    path = cache / f"folds-{key}.csv"
    numbers = assign_folds(targets, sources, names, folds)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["filename", "fold", "target", "category", "src_file"])
    writer.writerows(zip(files, numbers, targets, [names[t] for t in targets], sources, strict=True))
    # a damaged one is not read: to make it again takes a tenth of a second
    if not path.is_file() or path.read_bytes() != out.getvalue().encode():
        with explain_write_errors(cache, "Free some space or give paths.cache=DIRECTORY."):
            cache.mkdir(parents=True, exist_ok=True)
            write_text(path, out.getvalue())
    return read_table(path)


def assign_folds(targets: np.ndarray, sources: list[str], classes: list[str], folds: int, seed: int = 0) -> np.ndarray:
    """Folds 1 to ``folds`` in which every class is spread evenly and no source stands in two: int64 (clips,).

    Sources are taken one by one, the largest first and equals in an order drawn from ``seed``; each goes to the fold
    that it makes least uneven, by the sum over classes of the squared share of the class that the fold then holds.

    Args:
        targets: (clips,), indices into ``classes``.
        sources: (clips,).

    Raises:
        InputError: a class has fewer sources than there are folds.
    """
    for target, name in enumerate(classes):
        of_class = {source for source, t in zip(sources, targets, strict=True) if t == target}
        if len(of_class) < folds:
            raise InputError(
                f"Class {name!r} has {len(of_class)} source(s), fewer than the {folds} folds, and a source may "
                "stand in one fold only. Give data.folds=NUMBER with fewer, add recordings, or leave the class out "
                "(data.classes)."
            )
    unique, source_of = np.unique(sources, return_inverse=True)
    counts = np.zeros((len(unique), len(classes)))
    np.add.at(counts, (source_of, targets), 1)
    share = counts / counts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(unique))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    held = np.zeros((folds, len(classes)))
    fold_of = np.zeros(len(unique), dtype=np.int64)
    for source in order:
        uneven = ((held + share[source]) ** 2 - held**2).sum(axis=1)
        # equals by the number of clips: classes of one size fill up side by side
        fold = np.lexsort((held.sum(axis=1), uneven.round(12)))[0]
        held[fold] += share[source]
        fold_of[source] = fold
    return fold_of[source_of] + 1


def _audio_files(root: Path) -> list[str]:
    if not os.path.isdir(root):  # false for a name that is too long, too
        raise InputError(f"There is no folder {root}. Give data.root=DIRECTORY, with one folder of audio per class.")
    found = [
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.suffix.lower() in EXTENSIONS and path.is_file()
    ]
    files = sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))
    if unfit := [name for name in files if not _fit(name)]:
        raise InputError(
            f"{root} holds {unfit[0]!r}, whose name is not UTF-8, or whose class begins or ends with a blank; a table "
            "cannot keep such a name. Rename it."
        )
    if stray := [name for name in files if "/" not in name]:
        raise InputError(
            f"{root / stray[0]} lies in no class's folder ({len(stray)} such). Under data.root every class has a "
            "folder of its own; move the file into one, or give a data.root without it."
        )
    found_classes = Counter(name.split("/")[0] for name in files)
    if len(found_classes) < 2:
        raise InputError(
            f"{root} holds audio in {len(found_classes)} folder(s); a classifier needs two classes. data.root has one "
            f"folder per class, with files such as {', '.join(sorted(EXTENSIONS)[:4])} in it."
        )
    return files


def _fit(name: str) -> bool:
    """Whether a table of clips gives a name back as it was."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    category = name.split("/")[0]
    return category == category.strip()


def _source(name: str, pattern: str) -> str:
    try:
        match = re.search(pattern, name.rsplit("/", 1)[-1])
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"data.source_pattern={pattern!r} is not a regular expression: {error}.") from None
    if match is None:
        raise InputError(
            f"data.source_pattern={pattern!r} does not match {name!r}, so its source is unknown. Widen the pattern, or "
            "leave it out, where every file is a recording of its own."
        )
    groups = match.groupdict()
    source = groups.get("source") or (match.group(1) if match.re.groups else match.group(0)) or match.group(0)
    if not source.strip():
        raise InputError(
            f"data.source_pattern={pattern!r} matches nothing of {name!r}, so its source is unknown. Have the pattern "
            "match what names the recording, or leave it out, where every file is a recording of its own."
        )
    return source
