"""Audit of a collection: sources shared between folds, duplicate clips, and what a random split would leak."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from soundfold.data.leakage import audit
from soundfold.data.splits import Protocol, make_split
from soundfold.data.tables import ClipTable
from soundfold.eda.duplicate_search import MAX_COMPARED
from soundfold.eda.duplicates import Pair
from soundfold.eda.shortcuts import ShortcutAudit, shortcut_lines
from soundfold.io.console import Terminal

# as in a published notebook: 15 % of the clips for test, 30 % of the others for validation
RANDOM = Protocol("random_clips", test=0.15, val=0.3)
N_RANDOM_SPLITS = 100
MAX_PRINTED = 10


@dataclass(frozen=True)
class TableAudit:
    """Audit of the table, without the audio.

    Attributes:
        clips, classes, sources: counts.
        folds: number of clips by fold.
        several_folds: folds by source, for sources in more than one fold.
        leaks: folds by (source, class), for pairs in more than one fold; such folds leak.
        tested: number of test clips of a random split.
        contaminated: number of these that share source and class with a clip outside the test set: mean, minimum and
            maximum over 100 random splits; None if the sources of some clips are unknown.
    """

    clips: int
    classes: int
    sources: int
    folds: dict[int, int]
    several_folds: dict[str, list[int]]
    leaks: dict[str, list[int]]
    tested: int
    contaminated: tuple[float, int, int] | None


def audit_table(table: ClipTable) -> TableAudit:
    """Count sources that the table's folds share, and test clips that random splits contaminate."""
    audits = [audit(table, make_split(table, RANDOM, table.fold_numbers[0], seed)) for seed in range(N_RANDOM_SPLITS)]
    counts = [split.same_source_and_class or 0 for split in audits]
    return TableAudit(
        clips=len(table),
        classes=len(table.classes),
        sources=int(table.source_numbers.max()) + 1,
        folds=dict(sorted(Counter(table.folds.tolist()).items())),
        several_folds=_in_several_folds(table, table.source_numbers, lambda clip: table.sources[clip]),
        leaks=_in_several_folds(
            table, table.pair_numbers, lambda clip: f"{table.sources[clip]}, {table.classes[table.targets[clip]]}"
        ),
        tested=audits[0].test,
        contaminated=(float(np.mean(counts)), min(counts), max(counts)) if table.has_sources else None,
    )


def _in_several_folds(table: ClipTable, numbers: np.ndarray, name: Callable[[int], str]) -> dict[str, list[int]]:
    """Return the folds, ascending, of each number that is in more than one fold, by the name of one of its clips."""
    fold_index = np.searchsorted(table.fold_numbers, table.folds)
    # one clip per number and fold
    clips = np.unique(numbers * len(table.fold_numbers) + fold_index, return_index=True)[1]
    is_shared = np.bincount(numbers[clips])[numbers[clips]] > 1
    folds: dict[str, list[int]] = {}
    for clip in clips[is_shared].tolist():
        folds.setdefault(name(clip), []).append(int(table.folds[clip]))
    return folds


@dataclass(frozen=True)
class SoundAudit:
    """Duplicate and silent clips.

    Attributes:
        identical: groups of files with equal samples.
        near: pairs of similar clips, see `soundfold.eda.duplicates.near_pairs`; includes identical clips, except very
            short ones.
        across_folds: number of near pairs whose clips are in different folds.
        silent: files of digital silence.
        compared: number of clips that were compared, within their class only; None if all clips were, with all.
    """

    identical: list[list[str]]
    near: list[dict[str, Any]]
    across_folds: int
    silent: list[str]
    compared: int | None = None


def audit_sound(
    table: ClipTable, hashes: Sequence[str], pairs: Sequence[Pair], silent: Sequence[int], compared: int | None = None
) -> SoundAudit:
    """Look up files, folds, classes and sources of duplicate clips.

    Args:
        table: of the clips.
        hashes: (clips,), of the decoded samples.
        pairs: see `near_pairs`.
        silent: indices of silent clips.
        compared: see `SoundAudit`.
    """
    by_hash: dict[str, list[str]] = defaultdict(list)
    for name, digest in zip(table.files, hashes, strict=True):
        by_hash[digest].append(name)
    near: list[dict[str, Any]] = [
        {
            "first": table.files[pair.first],
            "second": table.files[pair.second],
            "similarity": round(pair.similarity, 4),
            "lag_seconds": round(pair.lag, 3),
            "folds": [int(table.folds[pair.first]), int(table.folds[pair.second])],
            "classes": [table.classes[table.targets[pair.first]], table.classes[table.targets[pair.second]]],
            "sources": [table.sources[pair.first], table.sources[pair.second]],
        }
        for pair in pairs
    ]
    return SoundAudit(
        identical=[names for names in by_hash.values() if len(names) > 1],
        near=near,
        across_folds=sum(pair["folds"][0] != pair["folds"][1] for pair in near),
        silent=[table.files[i] for i in silent],
        compared=compared,
    )


def duplicates_csv(sound: SoundAudit) -> str:
    """Return a row per near pair."""
    import pandas

    columns = ["first", "second", "similarity", "lag_seconds"]
    frame = pandas.DataFrame(sound.near, columns=[*columns, "classes", "folds", "sources"])
    for name, plural in (("class", "classes"), ("fold", "folds"), ("source", "sources")):
        for side, prefix in enumerate(("first", "second")):
            columns.append(f"{prefix}_{name}")
            frame[columns[-1]] = [values[side] for values in frame[plural]]
    return frame[columns].to_csv(index=False, lineterminator="\n")


def print_audit(name: str, table: TableAudit, sound: SoundAudit | None, shortcuts: ShortcutAudit | None) -> None:
    """Print the audit as sentences."""
    console = Terminal()
    sound_lines = (*_sound_lines(sound), *shortcut_lines(shortcuts)) if sound else ()
    for line in (*_table_lines(name, table), *sound_lines):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table_lines(name: str, table: TableAudit) -> Iterator[str]:
    smallest, largest = min(table.folds.values()), max(table.folds.values())
    size = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
    yield (
        f"{name}: {table.clips} clips of {table.classes} classes"
        f"{f' from {table.sources} sources' if table.contaminated else ''}, in "
        f"{len(table.folds)} folds of {size} clips."
    )
    if table.several_folds:
        subject = _count(len(table.several_folds), "source is", "sources are")
        yield f"{subject} in several folds: {_first_folds(table.several_folds)}."
    if table.leaks:
        subject = _count(len(table.leaks), "source has", "sources have")
        yield f"LEAK: {subject} clips of one class in several folds: {_first_folds(table.leaks)}."
    elif table.contaminated:
        yield "No source has clips of one class in several folds: these folds do not leak."
    if table.contaminated is None:
        yield (
            "The sources of some clips are unknown, so nobody knows whether clips of one recording are in several "
            "folds. Name them by data.source_pattern, or by a column of the table."
        )
        return
    mean, least, most = table.contaminated
    yield (
        f"A random split would test {table.tested} clips. On average {mean:.0f} of them, which is "
        f"{100 * mean / table.tested:.0f} %, would share source and class with a training or validation clip. In "
        f"{N_RANDOM_SPLITS} random splits the number was between {least} and {most}."
    )


def _sound_lines(sound: SoundAudit) -> Iterator[str]:
    yield f"{_count(len(sound.identical), 'group of clips has', 'groups of clips have')} identical samples."
    yield from (f"  {', '.join(names)}" for names in sound.identical[:MAX_PRINTED])
    subject = _count(len(sound.near), "pair of clips is a near duplicate", "pairs of clips are near duplicates")
    across = f"; {sound.across_folds} of them {'is' if sound.across_folds == 1 else 'are'} across folds"
    yield f"{subject}{across if sound.near else ''}."
    if sound.compared is not None:
        yield (
            f"  For its size, this collection was searched for near duplicates within each class only, and of classes "
            f"with more than {MAX_COMPARED:,} clips in a random sample: {sound.compared:,} clips in total."
        )
    for pair in sound.near[:MAX_PRINTED]:
        classes = dict.fromkeys(pair["classes"])
        of = f"{'class' if len(classes) == 1 else 'classes'} {_and(classes)}"
        yield (
            f"  {pair['first']} and {pair['second']} have a similarity of {pair['similarity']:.3f}. They are of "
            f"{of}, in folds {_and(pair['folds'])}, from sources "
            f"{_and(pair['sources'])}."
        )
    names = f": {', '.join(sound.silent[:MAX_PRINTED])}" if sound.silent else ""
    yield f"{_count(len(sound.silent), 'clip is', 'clips are')} digital silence{names}."


def _count(number: int, one: str, several: str) -> str:
    """Return ``No clip is``, ``1 clip is`` or ``2 clips are``."""
    return f"No {one}" if number == 0 else f"{number} {one if number == 1 else several}"


def _first_folds(folds: dict[str, list[int]]) -> str:
    return "; ".join(f"{source} in {_and(numbers)}" for source, numbers in list(folds.items())[:MAX_PRINTED])


def _and(values: Iterable[Any]) -> str:
    return " and ".join(map(str, values))
