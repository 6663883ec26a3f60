"""Folders of recordings that augment clips, and their audit against the clips of a split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from soundfold.data.splits import Split
from soundfold.data.store import open_store
from soundfold.data.store_build import row_hash
from soundfold.data.tables import ClipTable
from soundfold.errors import ArgumentError
from soundfold.features.recordings import Recordings
from soundfold.io.audio import audio_files

# shorter identifiers, such as 12, are too common in names of files to name a source
MIN_IDENTIFIER = 4


def open_recordings(folder: Path, *, seconds: float, sample_rate: int, clip_samples: int, cache: Path) -> Recordings:
    """Decode the audio files in a folder and its folders into a packed store, unless that is done already.

    Args:
        folder: of the files.
        seconds: longer recordings are cut to their start.
        sample_rate: of the clips, Hz.
        clip_samples: length of a clip of the collection, for `Recordings.hashes`.
        cache: folder of the packed stores.

    Raises:
        InputError: the folder has no audio file, or a file cannot be decoded.
    """
    files = tuple(path.relative_to(folder).as_posix() for path in audio_files([folder]))
    samples = max(1, round(seconds * sample_rate))
    # as long as a clip, so that hashes can be compared with those of clips
    stored = max(samples, clip_samples) / sample_rate
    waves = open_store(folder, files, seconds=stored, sample_rate=sample_rate, cache=cache)
    hashes = (row_hash(row, min(n, clip_samples)) for row, n in zip(waves.samples, waves.lengths, strict=True))
    return Recordings(
        torch.from_numpy(waves.samples[:, :samples]),
        torch.from_numpy(waves.lengths).clamp(max=samples),
        files,
        tuple(hashes),
        waves.digest,
    )


def check_recordings(
    recordings: Iterable[Recordings], table: ClipTable, split: Split, audio_hashes: Sequence[str], fold: int | None
) -> None:
    """Raise if a recording that augments training clips is of a clip, or of the source of a clip, that is scored.

    Clips that select the model count as scored. A recording is that of a clip if it has the same decoded audio, the
    clip's name, or an identifier of the clip's source in its name, as in ``100032__thunder.wav``.

    Args:
        recordings: of all augmentations.
        table: the clips.
        split: of the clips.
        audio_hashes: hash of the decoded audio of each clip of the table.
        fold: the scored fold, for the message.

    Raises:
        ArgumentError: there is such a recording.
    """
    scored = np.concatenate([split.test, split.val])
    hashes = {audio_hashes[clip]: clip for clip in scored}
    names = {PurePosixPath(table.files[clip]).stem: clip for clip in scored}
    sources = {table.sources[clip]: clip for clip in scored if len(table.sources[clip]) >= MIN_IDENTIFIER}
    for file, digest in ((f, h) for r in recordings for f, h in zip(r.files, r.hashes, strict=True)):
        stem = PurePosixPath(file).stem
        words = {stem, *re.split(r"[^0-9A-Za-z]+", stem)} & sources.keys()
        matches = [hashes.get(digest), names.get(stem), *(sources[word] for word in words)]
        if clip := next((table.files[clip] for clip in matches if clip is not None), None):
            raise ArgumentError(
                f"The recording {file} of an augmentation is the clip {clip}, or of its source, which fold {fold} "
                "scores or selects the model by, so the score would be too high: remove the recording from its folder."
            )
