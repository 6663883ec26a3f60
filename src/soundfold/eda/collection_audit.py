"""The audit of a collection: what its table and its sound say about the scores that it can give."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from soundfold.data.leakage import audit
from soundfold.data.splits import Protocol, make_split
from soundfold.data.tables import ClipTable
from soundfold.eda.duplicates import Pair

# a published notebook's: 85 % and 15 % for test, then 70 % and 30 %
RANDOM = Protocol("random_clips", test=0.15, val=0.3)
DRAWS = 100


@dataclass(frozen=True)
class TableAudit:
    """What the table alone says.

    Attributes:
        clips, classes, sources: how many.
        folds: clips in each fold.
        several_folds: the folds of each source that stands in more than one.
        leaks: (source, class) pairs that stand in more than one fold, with these folds; they leak.
        tested: clips that a random split tests.
        contaminated: of these, the clips with a clip of the same source and class outside the test set: mean, least and
            most of 100 random splits.
    """

    clips: int
    classes: int
    sources: int
    folds: dict[int, int]
    several_folds: dict[str, list[int]]
    leaks: dict[str, list[int]]
    tested: int
    contaminated: tuple[float, int, int]


def audit_table(table: ClipTable) -> TableAudit:
    """Count what stands on both sides, of the table's folds and of random splits."""
    of_source: dict[str, set[int]] = defaultdict(set)
    of_pair: dict[str, set[int]] = defaultdict(set)
    for source, target, fold in zip(table.sources, table.targets, table.folds, strict=True):
        of_source[source].add(int(fold))
        of_pair[f"{source}, {table.classes[target]}"].add(int(fold))
    found = [audit(table, make_split(table, RANDOM, table.fold_numbers[0], seed)) for seed in range(DRAWS)]
    seen = [one.same_source_and_class for one in found]
    return TableAudit(
        clips=len(table),
        classes=len(table.classes),
        sources=len(set(table.sources)),
        folds=dict(sorted(Counter(table.folds.tolist()).items())),
        several_folds={source: sorted(folds) for source, folds in of_source.items() if len(folds) > 1},
        leaks={pair: sorted(folds) for pair, folds in of_pair.items() if len(folds) > 1},
        tested=found[0].test,
        contaminated=(float(np.mean(seen)), min(seen), max(seen)),
    )


@dataclass(frozen=True)
class SoundAudit:
    """What the audio says.

    Attributes:
        identical: groups of files with the very same samples.
        near: pairs alike, by `soundfold.eda.duplicates.near_pairs`; identical ones too, but for very short clips.
        across_folds: how many of the near pairs stand in two folds.
        silent: files of digital silence.
    """

    identical: list[list[str]]
    near: list[dict[str, Any]]
    across_folds: int
    silent: list[str]


def audit_sound(table: ClipTable, hashes: Sequence[str], pairs: Sequence[Pair], silent: Sequence[int]) -> SoundAudit:
    """Name what the hashes and the fingerprints found.

    Args:
        hashes: one per clip, of its decoded samples.
        pairs: see `near_pairs`.
        silent: indices of silent clips.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for name, digest in zip(table.files, hashes, strict=True):
        alike[digest].append(name)
    near: list[dict[str, Any]] = [
        {
            "first": table.files[pair.first],
            "second": table.files[pair.second],
            "similarity": round(pair.similarity, 4),
            "later": round(pair.later, 3),
            "folds": [int(table.folds[pair.first]), int(table.folds[pair.second])],
            "classes": [table.classes[table.targets[pair.first]], table.classes[table.targets[pair.second]]],
            "sources": [table.sources[pair.first], table.sources[pair.second]],
        }
        for pair in pairs
    ]
    return SoundAudit(
        identical=[names for names in alike.values() if len(names) > 1],
        near=near,
        across_folds=sum(one["folds"][0] != one["folds"][1] for one in near),
        silent=[table.files[i] for i in silent],
    )


def duplicates_csv(sound: SoundAudit) -> str:
    """A row per near pair."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ("class", "fold", "source")
    sides = [f"{side}_{name}" for name in names for side in ("first", "second")]
    writer.writerow(["first", "second", "similarity", "later_seconds", *sides])
    for one in sound.near:
        values: list[Any] = [*one["classes"], *one["folds"], *one["sources"]]
        writer.writerow([one["first"], one["second"], one["similarity"], one["later"], *values])
    return out.getvalue()


def print_audit(name: str, table: TableAudit, sound: SoundAudit | None) -> None:
    """Print the audit in sentences."""
    sizes = sorted(set(table.folds.values()))
    each = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    lines = [
        f"{name}: {table.clips} clips of {table.classes} classes come from {table.sources} sources, in "
        f"{len(table.folds)} folds of {each} clips."
    ]
    if table.several_folds:
        named = "; ".join(f"{source} in {_and(folds)}" for source, folds in list(table.several_folds.items())[:10])
        lines.append(f"{len(table.several_folds)} source(s) span several folds: {named}.")
    if table.leaks:
        named = "; ".join(f"{pair} in {_and(folds)}" for pair, folds in list(table.leaks.items())[:10])
        lines.append(f"LEAK: {len(table.leaks)} source(s) of one class span several folds: {named}.")
    else:
        lines.append("No source gives clips of one class to two folds: these folds do not leak.")
    mean, least, most = table.contaminated
    share = f"{mean:.0f} ({100 * mean / table.tested:.0f} %; {least} to {most} in {DRAWS} draws)"
    lines.append(
        f"A random split instead would test {table.tested} clips, of which {share} share source and class with clips "
        "that train or choose the model."
    )
    if sound is not None:
        lines.append(f"{len(sound.identical)} group(s) of clips have the very same samples.")
        lines += [f"  {', '.join(names)}" for names in sound.identical[:10]]
        lines.append(f"{len(sound.near)} pair(s) sound alike, {sound.across_folds} of them across folds.")
        for one in sound.near[:10]:
            kind = f"{one['similarity']:.3f}, {_and(dict.fromkeys(one['classes']))}"
            where = f"folds {_and(one['folds'])}, sources {_and(one['sources'])}"
            lines.append(f"  {one['first']} and {one['second']}: {kind}, {where}")
        lines.append(f"{len(sound.silent)} clip(s) are digital silence{': ' if sound.silent else ''}")
        lines[-1] += f"{', '.join(sound.silent[:10])}."
    console = Console()
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _and(values: Iterable[Any]) -> str:
    return " and ".join(map(str, values))
