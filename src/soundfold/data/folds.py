"""Who trains and who is scored: splits by protocol, and what of a split leaks. Pure functions on arrays."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from soundfold.data.metadata import ClipTable
from soundfold.errors import InputError

PROTOCOLS = ("benchmark", "nested")


@dataclass(frozen=True)
class Split:
    """Indices into the table of clips, int64, ascending; `val` is empty where a protocol has no validation."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Audit:
    """What the scored clips of a split share with its training clips.

    Attributes:
        train, val, test: number of clips in each part.
        same_source_and_class: test clips with a training clip of the same source and class; a leak.
        same_source: test clips with a training clip of the same source, whatever its class.
        same_audio: test clips whose decoded audio is also a training clip's, or None where no audio was read.
    """

    train: int
    val: int
    test: int
    same_source_and_class: int
    same_source: int
    same_audio: int | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_split(table: ClipTable, protocol: str, fold: int | None) -> Split:
    """Split a table of clips for one fold.

    ``benchmark`` trains on all folds but ``fold`` and scores ``fold``. ``nested`` scores ``fold`` too, validates on the
    next fold (the first after the last) and trains on the rest. ``fold=None`` trains on every clip and scores none.

    Raises:
        InputError: unknown protocol, a fold that the table lacks, or too few folds for the protocol.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"split.protocol={protocol} is unknown; the protocols are {', '.join(PROTOCOLS)}.")
    everyone, nobody = np.arange(len(table)), np.empty(0, dtype=np.int64)
    if fold is None:
        return Split(train=everyone, val=nobody, test=nobody)
    numbers = table.fold_numbers
    if fold not in numbers:
        raise InputError(
            f"fold={fold} has no clips; the table's folds are {', '.join(map(str, numbers))}. "
            "Give one of them, fold=all, or fold=none to train on every clip."
        )
    needed = 3 if protocol == "nested" else 2
    if len(numbers) < needed:
        raise InputError(f"split={protocol} needs at least {needed} folds; the table has {len(numbers)}.")
    test = table.folds == fold
    val = np.zeros_like(test)
    if protocol == "nested":
        val = table.folds == numbers[(numbers.index(fold) + 1) % len(numbers)]
    return Split(train=everyone[~(test | val)], val=everyone[val], test=everyone[test])


def audit(table: ClipTable, split: Split, audio_hashes: list[str] | None = None) -> Audit:
    """Count the scored clips that share a source, or their very audio, with training.

    Validation clips are held to the same rule as training ones: they choose the model.

    Args:
        audio_hashes: one hash of decoded content per clip of the table.
    """
    seen = np.concatenate([split.train, split.val])
    pairs = {(table.sources[i], int(table.targets[i])) for i in seen}
    sources = {table.sources[i] for i in seen}
    same_audio = None
    if audio_hashes is not None:
        heard = {audio_hashes[i] for i in seen}
        same_audio = sum(audio_hashes[i] in heard for i in split.test)
    return Audit(
        train=len(split.train),
        val=len(split.val),
        test=len(split.test),
        same_source_and_class=sum((table.sources[i], int(table.targets[i])) in pairs for i in split.test),
        same_source=sum(table.sources[i] in sources for i in split.test),
        same_audio=same_audio,
    )


def refuse_leak(found: Audit, protocol: str, fold: int | None) -> None:
    """Raise where test clips share source and class with clips that trained or chose the model.

    Raises:
        InputError: the split leaks.
    """
    if found.same_source_and_class:
        raise InputError(
            f"split={protocol}, fold {fold}: {found.same_source_and_class} of {found.test} test clips were cut from a "
            "source that also gave training clips of the same class, so the score would be too high. "
            "Put all clips of one source (src_file) into one fold of the table."
        )
