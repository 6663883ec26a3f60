"""Who trains and who is scored: splits by protocol, and what of a split leaks. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from soundfold.data.tables import ClipTable
from soundfold.errors import InputError

PROTOCOLS = ("benchmark", "nested", "random_clips")


@dataclass(frozen=True)
class Protocol:
    """How a score is come by.

    ``benchmark`` trains on all folds but one and scores that one. ``nested`` also holds out the next fold (the first
    after the last) to validate on. ``random_clips`` draws clips without regard to folds and sources, as many notebooks
    do; its "folds" number independent repeats. It leaks, and is here to measure by how much.

    Args:
        name: one of these.
        test: of ``random_clips``: the share of clips that is scored.
        val: of ``random_clips``: the share of the other clips that validates.
        image_val: of ``random_clips`` with offline copies: the copies are made before the split, and this share of all
            images validates, drawn image by image; None keeps a clip's copies with the clip.
        test_in_training: of ``random_clips`` with offline copies: the scored clips and their copies train too.

    Raises:
        InputError: a value breaks its rule.
    """

    name: str = "benchmark"
    test: float | None = None
    val: float | None = None
    image_val: float | None = None
    test_in_training: bool = False

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise InputError(f"split.protocol={self.name} is unknown; the protocols are {', '.join(PROTOCOLS)}.")
        shares = {"test": self.test, "val": self.val, "image_val": self.image_val}
        if not self.leaky:
            given = [key for key, value in shares.items() if value is not None]
            given += ["test_in_training"] if self.test_in_training else []
            if given:
                raise InputError(
                    f"split.{given[0]} belongs to split=random_clips, not to split={self.name}; leave it out."
                )
            return
        for key, value in shares.items():
            if value is None and key == "image_val":
                continue
            if value is None or not 0 < value < 1:
                raise InputError(f"split.{key}={value} must lie between 0 and 1.")

    @property
    def leaky(self) -> bool:
        """Whether clips of one source, or one clip's copies, stand on both sides by design."""
        return self.name == "random_clips"


BENCHMARK = Protocol()


@dataclass(frozen=True)
class Split:
    """Indices into the table of clips, int64, ascending; `val` is empty where a protocol has no validation."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Copies:
    """Images made before training: the clips themselves, then their varied copies.

    Attributes:
        clips: int64 (images,), whose image it is; the first images are the clips in the table's order.
        train, val: int64, the images that train and that validate.
    """

    clips: np.ndarray
    train: np.ndarray
    val: np.ndarray


@dataclass(frozen=True)
class SeenClips:
    """Clips that trained or chose the weights that a training starts from.

    Attributes:
        hashes: of their decoded content.
        sources: (source, class name) of each; they tell a clip that was decoded at another rate or length.
    """

    hashes: frozenset[str] = frozenset()
    sources: frozenset[tuple[str, str]] = frozenset()


NOTHING_SEEN = SeenClips()


@dataclass(frozen=True)
class Audit:
    """What the scored clips of a split share with the clips that trained or chose the model.

    Attributes:
        train, val, test: number of clips in each part.
        images: number of training images: the training clips, or with offline copies these and theirs.
        same_clip: test clips that trained themselves, plain or as a copy; a leak.
        same_source_and_class: test clips with a training clip of the same source and class; a leak.
        same_source: test clips with a training clip of the same source, whatever its class.
        same_audio: test clips whose decoded audio is also a training clip's, or None where no audio was read.
        val_copies: validation images of a clip that trains too; the validation figure is too high.
        seen_before: test clips that trained or chose the weights that training starts from, or share source and class
            with one that did; a leak.
    """

    train: int
    val: int
    test: int
    images: int
    same_clip: int
    same_source_and_class: int
    same_source: int
    same_audio: int | None
    val_copies: int
    seen_before: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_split(table: ClipTable, protocol: Protocol, fold: int | None, seed: int = 0) -> Split:
    """Split a table of clips for one fold, or one repeat of ``random_clips``; ``fold=None`` trains on every clip.

    Raises:
        InputError: a fold that the table lacks, or too few folds for the protocol.
    """
    everyone, nobody = np.arange(len(table)), np.empty(0, dtype=np.int64)
    if fold is None:
        return Split(train=everyone, val=nobody, test=nobody)
    numbers = table.fold_numbers
    if fold not in numbers:
        raise InputError(
            f"fold={fold} has no clips; the table's folds are {', '.join(map(str, numbers))}. "
            "Give one of them, fold=all, or fold=none to train on every clip."
        )
    if protocol.leaky:
        return _random_split(len(table), protocol, np.random.default_rng([seed, fold]))
    needed = 3 if protocol.name == "nested" else 2
    if len(numbers) < needed:
        raise InputError(f"split={protocol.name} needs at least {needed} folds; the table has {len(numbers)}.")
    test = table.folds == fold
    val = np.zeros_like(test)
    if protocol.name == "nested":
        val = table.folds == numbers[(numbers.index(fold) + 1) % len(numbers)]
    return Split(train=everyone[~(test | val)], val=everyone[val], test=everyone[test])


def _random_split(clips: int, protocol: Protocol, rng: np.random.Generator) -> Split:
    assert protocol.test is not None
    assert protocol.val is not None
    order = rng.permutation(clips)
    tested = round(protocol.test * clips)
    validated = round(protocol.val * (clips - tested))
    if not 0 < tested < clips or not 0 < validated < clips - tested:
        raise InputError(
            f"split.test={protocol.test:g} and split.val={protocol.val:g} of {clips} clips leave a part empty. "
            "Change the shares, or use more clips."
        )
    parts = np.split(order, [tested, tested + validated])
    return Split(train=np.sort(parts[2]), val=np.sort(parts[1]), test=np.sort(parts[0]))


def make_copies(split: Split, protocol: Protocol, clips: int, low: int, high: int, seed: int, fold: int) -> Copies:
    """Give every clip of a table ``low`` to ``high`` copies, evenly drawn, and say which images train and validate.

    Args:
        split: of the clips.
        protocol: with ``image_val`` the images of all clips that may train are split at random; else a copy goes with
            its clip, and only plain clips validate.
        clips: in the table.
    """
    rng = np.random.default_rng([seed, fold, 1])
    owners = np.concatenate([np.arange(clips), np.repeat(np.arange(clips), rng.integers(low, high + 1, clips))])
    may_train = [split.train, split.test] if protocol.test_in_training else [split.train]
    if protocol.image_val is None:
        return Copies(owners, np.flatnonzero(np.isin(owners, np.concatenate(may_train))), split.val)
    pool = rng.permutation(np.flatnonzero(np.isin(owners, np.concatenate([*may_train, split.val]))))
    validated = round(protocol.image_val * len(pool))
    return Copies(owners, np.sort(pool[validated:]), np.sort(pool[:validated]))


def audit(
    table: ClipTable,
    split: Split,
    audio_hashes: Sequence[str] | None = None,
    copies: Copies | None = None,
    seen: SeenClips = NOTHING_SEEN,
) -> Audit:
    """Count the scored clips that share a source, or their very audio, with training.

    Validation clips are held to the same rule as training ones: they choose the model.

    Args:
        audio_hashes: one hash of decoded content per clip of the table.
        copies: the images made before training, if any.
        seen: the clips behind the weights that training starts from.
    """
    trained, validated = _trained_and_validated(split, copies)
    used = np.concatenate([trained, split.val, validated])
    pairs = {(table.sources[i], int(table.targets[i])) for i in used}
    sources = {table.sources[i] for i in used}
    same_audio = None
    if audio_hashes is not None:
        heard = {audio_hashes[i] for i in used}
        same_audio = sum(audio_hashes[i] in heard for i in split.test)
    return Audit(
        train=len(split.train),
        val=len(split.val),
        test=len(split.test),
        images=len(split.train if copies is None else copies.train),
        same_clip=int(np.isin(split.test, used).sum()),
        same_source_and_class=sum((table.sources[i], int(table.targets[i])) in pairs for i in split.test),
        same_source=sum(table.sources[i] in sources for i in split.test),
        same_audio=same_audio,
        val_copies=int(np.isin(validated, trained).sum()),
        seen_before=sum(
            (table.sources[i], table.classes[table.targets[i]]) in seen.sources
            or (audio_hashes is not None and audio_hashes[i] in seen.hashes)
            for i in split.test
        ),
    )


def seen_clips(
    table: ClipTable,
    split: Split,
    audio_hashes: Sequence[str],
    copies: Copies | None = None,
    before: SeenClips = NOTHING_SEEN,
) -> SeenClips:
    """The clips that train or choose a model on this split, and those behind the weights that it started from.

    Args:
        audio_hashes: one hash of decoded content per clip of the table.
        copies: the images made before training, if any.
        before: the clips behind the weights.
    """
    used = np.concatenate([split.val, *_trained_and_validated(split, copies)])
    return SeenClips(
        before.hashes | {audio_hashes[i] for i in used},
        before.sources | {(table.sources[i], table.classes[table.targets[i]]) for i in used},
    )


def _trained_and_validated(split: Split, copies: Copies | None) -> tuple[np.ndarray, np.ndarray]:
    """The clips that train, plain or as a copy, and the clips of each validating image."""
    if copies is None:
        return split.train, split.val
    return np.union1d(split.train, copies.clips[copies.train]), copies.clips[copies.val]


def check_leakage(found: Audit, protocol: Protocol, fold: int | None) -> None:
    """Raise where test clips share source and class with clips that trained or chose the model, and should not.

    Raises:
        InputError: the split leaks by the table or by the weights that it starts from, not by its protocol.
    """
    if found.same_source_and_class and not protocol.leaky:
        raise InputError(
            f"split={protocol.name}, fold {fold}: {found.same_source_and_class} of {found.test} test clips were cut "
            "from a source that also gave training clips of the same class, so the score would be too high. "
            "Put all clips of one source (src_file) into one fold of the table; scripts/prepare.py names them "
            "(audit=true)."
        )
    if found.seen_before and not protocol.leaky:
        raise InputError(
            f"split={protocol.name}, fold {fold}: {found.seen_before} of {found.test} test clips, or clips of their "
            "sources, trained or chose the weights that model.weights names, so the score would be too high. Start a "
            "fold from weights that never met its clips (those of the same fold, with fold=<its number>), "
            "model.weights=imagenet, or model.weights=none."
        )
