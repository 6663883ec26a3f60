"""The audit of a split: test clips that are not independent of the clips that trained or selected the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from soundfold.data.copies import Copies
from soundfold.data.splits import Protocol, Split
from soundfold.data.tables import ClipTable
from soundfold.errors import ArgumentError


@dataclass(frozen=True)
class SeenClips:
    """Clips that trained or selected a model.

    Attributes:
        hashes: of their decoded audio.
        sources: (source, class name) of each; identifies clips also after decoding at another rate or length.
    """

    hashes: frozenset[str] = frozenset()
    sources: frozenset[tuple[str, str]] = frozenset()


NOTHING_SEEN = SeenClips()


@dataclass(frozen=True)
class Audit:
    """Counts of a split, and of its test clips that are not independent of training and validation clips.

    Validation clips count as training clips, because they select the model.

    Attributes:
        train, val, test: number of clips.
        images: number of training images: clips, plus their offline copies.
        same_clip: test clips that are training clips, plain or as a copy; a leak.
        same_source_and_class: test clips that share source and class with a training clip; a leak.
        same_source: test clips that share the source with a training clip of any class. Both are None if the count is 0
            and some sources are unknown.
        same_audio: test clips whose decoded audio equals a training clip's; None if no audio was read.
        val_copies: validation images of clips that also train; they make validation optimistic.
        seen_before: test clips that trained or selected the initial weights, or share source and class with a clip
            that did; a leak.
    """

    train: int
    val: int
    test: int
    images: int
    same_clip: int
    same_source_and_class: int | None
    same_source: int | None
    same_audio: int | None
    val_copies: int
    seen_before: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def audit(
    table: ClipTable,
    split: Split,
    audio_hashes: Sequence[str] | None = None,
    copies: Copies | None = None,
    seen: SeenClips = NOTHING_SEEN,
) -> Audit:
    """Count the test clips that share a source, or identical audio, with training and validation clips.

    Args:
        audio_hashes: hash of the decoded audio of each clip of the table.
        copies: offline copies, if any.
        seen: clips that trained or selected the initial weights.
    """
    trained, validated = _clips_of_images(split, copies)
    clips = np.arange(len(table))
    used = np.concatenate([trained, split.val, validated])
    same_audio, unknown = None, 0 if table.has_sources else None
    if audio_hashes is not None:
        used_hashes = {audio_hashes[i] for i in used}
        same_audio = sum(audio_hashes[i] in used_hashes for i in split.test)
    return Audit(
        train=len(split.train),
        val=len(split.val),
        test=len(split.test),
        images=len(split.train if copies is None else copies.train),
        same_clip=_count_shared(clips, split.test, used),
        same_source_and_class=_count_shared(table.pair_numbers, split.test, used) or unknown,
        same_source=_count_shared(table.source_numbers, split.test, used) or unknown,
        same_audio=same_audio,
        val_copies=_count_shared(clips, validated, trained),
        seen_before=sum(
            _source_and_class(table, i) in seen.sources or (audio_hashes is not None and audio_hashes[i] in seen.hashes)
            for i in (split.test if seen.sources or seen.hashes else ())
        ),
    )


def _count_shared(numbers: np.ndarray, test: np.ndarray, used: np.ndarray) -> int:
    """Return how many test clips have a number, such as that of their source, that a used clip also has."""
    # a mask takes linear time, unlike np.isin
    is_used = np.zeros(numbers.max(initial=-1) + 1, dtype=bool)
    is_used[numbers[used]] = True
    return int(is_used[numbers[test]].sum())


def seen_clips(
    table: ClipTable,
    split: Split,
    audio_hashes: Sequence[str],
    copies: Copies | None = None,
    before: SeenClips = NOTHING_SEEN,
) -> SeenClips:
    """Return the clips that train or select a model on this split, including those behind its initial weights.

    Args:
        audio_hashes: hash of the decoded audio of each clip of the table.
        copies: offline copies, if any.
        before: clips that trained or selected the initial weights.
    """
    used = np.concatenate([split.val, *_clips_of_images(split, copies)])
    return SeenClips(
        before.hashes | {audio_hashes[i] for i in used},
        before.sources | {_source_and_class(table, i) for i in used},
    )


def check_leakage(counts: Audit, protocol: Protocol, fold: int | None) -> None:
    """Raise if a protocol that must not leak does.

    Raises:
        ArgumentError: test clips share source and class with clips that trained or selected the model.
    """
    if protocol.leaky:
        return
    where = f"Protocol {protocol.name}, fold {fold}"
    if counts.same_source_and_class:
        raise ArgumentError(
            f"{where}: {counts.same_source_and_class} of {counts.test} test clips share source and class with a "
            "training or validation clip, so the score would be too high. Put all clips of a source (src_file) into "
            "one fold of the table. The audit of the collection (prepare with audit=true) lists these sources."
        )
    if counts.seen_before:
        raise ArgumentError(
            f"{where}: {counts.seen_before} of {counts.test} test clips, or clips of their sources, trained or "
            "selected the initial weights, so the score would be too high. Set `weights` to a model that was not "
            "trained on this fold's clips (one of the same fold), `weights`=imagenet, or `weights`=none."
        )


def _source_and_class(table: ClipTable, clip: int) -> tuple[str, str]:
    return table.sources[clip], table.classes[table.targets[clip]]


def _clips_of_images(split: Split, copies: Copies | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct clips that train, and the clip of each validation image."""
    if copies is None:
        return split.train, split.val
    return np.union1d(split.train, copies.clips[copies.train]), copies.clips[copies.val]
