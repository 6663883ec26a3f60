"""Recordings that clips are augmented by."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Recordings:
    """Recordings from a folder, at the sample rate of the clips.

    Attributes:
        samples: int16 (R, N), zeros after the end of a shorter one.
        lengths: int64 (R,), in samples.
        files: names relative to the folder.
        hashes: SHA-256 of the samples that a clip of the collection would have of each, to compare with clips.
        digest: SHA-256 of the files' names and contents; part of the identity of a run.
    """

    samples: Tensor
    lengths: Tensor
    files: tuple[str, ...]
    hashes: tuple[str, ...]
    digest: str
