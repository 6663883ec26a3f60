"""Splits of a table of clips into training, validation and test clips, by protocol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soundfold.data.tables import ClipTable
from soundfold.errors import ArgumentError

PROTOCOLS = ("benchmark", "nested", "random_clips")


@dataclass(frozen=True)
class Protocol:
    """A protocol of evaluation.

    ``benchmark`` trains on all folds except one and tests on that one. ``nested`` also holds out the next fold (after
    the last: the first) for validation. ``random_clips`` draws clips regardless of folds and sources, as many notebooks
    do; its "folds" are independent repetitions. It leaks, and exists to measure by how much.

    >>> Protocol("nested").leaky, Protocol("random_clips", test=0.2, val=0.2).leaky
    (False, True)

    Args:
        name: one of `PROTOCOLS`.
        test: of ``random_clips``: the fraction of the clips that is tested.
        val: of ``random_clips``: the fraction of the other clips that validates.
        image_val: of ``random_clips`` with offline copies: make the copies before the split, and validate on this
            fraction of all images. None assigns copies to the side of their clip.
        test_in_training: of ``random_clips`` with offline copies: also train on the test clips and their copies.

    Raises:
        ArgumentError: a value is invalid.
    """

    name: str = "benchmark"
    test: float | None = None
    val: float | None = None
    image_val: float | None = None
    test_in_training: bool = False

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise ArgumentError(f"`protocol`={self.name} is unknown; the protocols are {', '.join(PROTOCOLS)}.")
        fractions = {"test": self.test, "val": self.val, "image_val": self.image_val}
        if not self.leaky:
            present = [key for key, value in fractions.items() if value is not None]
            present += ["test_in_training"] if self.test_in_training else []
            if present:
                raise ArgumentError(f"`{present[0]}` requires the protocol random_clips, not {self.name}. Remove it.")
            return
        for key, value in fractions.items():
            if value is None and key == "image_val":
                continue
            if value is None or not 0 < value < 1:
                raise ArgumentError(f"`{key}`={value} must be between 0 and 1.")

    @property
    def leaky(self) -> bool:
        """Whether test clips share sources, or are copies of, training clips by design."""
        return self.name == "random_clips"


BENCHMARK = Protocol()


@dataclass(frozen=True)
class Split:
    """Indices into the table of clips: int64, ascending, disjoint. `val` is empty if the protocol has no validation."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def make_split(table: ClipTable, protocol: Protocol, fold: int | None, seed: int = 0) -> Split:
    """Split a table of clips for one fold, or one repetition of ``random_clips``.

    >>> table = ClipTable(
    ...     files=("a.wav", "b.wav", "c.wav"),
    ...     folds=np.array([1, 2, 3]),
    ...     targets=np.array([0, 1, 0]),
    ...     sources=("a", "b", "c"),
    ...     classes=("dog", "rain"),
    ... )
    >>> split = make_split(table, Protocol("nested"), fold=3)
    >>> split.train, split.val, split.test
    (array([1]), array([0]), array([2]))

    Args:
        fold: number of the test fold; None trains on every clip.
        seed: of ``random_clips``.

    Raises:
        ArgumentError: the table does not have this fold, or has too few folds or clips for the protocol.
    """
    all_clips, no_clips = np.arange(len(table)), np.empty(0, dtype=np.int64)
    if fold is None:
        return Split(train=all_clips, val=no_clips, test=no_clips)
    numbers = table.fold_numbers
    if fold not in numbers:
        raise ArgumentError(
            f"`fold`={fold} has no clips; the table's folds are {', '.join(map(str, numbers))}. "
            "Choose one of them, `fold`=all, or `fold`=none to train on every clip."
        )
    if protocol.leaky:
        return _random_split(len(table), protocol, np.random.default_rng([seed, fold]))
    needed = 3 if protocol.name == "nested" else 2
    if len(numbers) < needed:
        raise ArgumentError(
            f"The protocol {protocol.name} requires at least {needed} folds; the table has {len(numbers)}."
        )
    test = table.folds == fold
    val = np.zeros_like(test)
    if protocol.name == "nested":
        val = table.folds == numbers[(numbers.index(fold) + 1) % len(numbers)]
    return Split(train=all_clips[~(test | val)], val=all_clips[val], test=all_clips[test])


def _random_split(n_clips: int, protocol: Protocol, rng: np.random.Generator) -> Split:
    assert protocol.test is not None
    assert protocol.val is not None
    order = rng.permutation(n_clips)
    n_test = round(protocol.test * n_clips)
    n_val = round(protocol.val * (n_clips - n_test))
    if not 0 < n_test < n_clips or not 0 < n_val < n_clips - n_test:
        raise ArgumentError(
            f"`test`={protocol.test:g} and `val`={protocol.val:g} of {n_clips} clips leave a side of the split empty. "
            "Change the fractions, or use more clips."
        )
    test, val, train = np.split(order, [n_test, n_test + n_val])
    return Split(train=np.sort(train), val=np.sort(val), test=np.sort(test))
