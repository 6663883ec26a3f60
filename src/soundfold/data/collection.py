"""A collection opened: its table of clips and their waveforms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from soundfold.data import store
from soundfold.data.download import fetch_esc50
from soundfold.data.folder import read_folder
from soundfold.data.synthetic import render
from soundfold.data.tables import URBANSOUND8K, ClipTable, read_table

DOWNLOADERS: dict[str, Callable[[Path], None]] = {"esc50": fetch_esc50, "synthetic": render}


# where the names of a layout's files start, below its root
AUDIO = {"esc50": "audio", "urbansound8k": "audio", "folder": "."}


# what lies on a device: of the process, as each job of a sweep opens its collection anew
_ON_DEVICE: dict[tuple, Tensor] = {}


@dataclass(frozen=True)
class Collection:
    """A table of clips and their waveforms, in the same order."""

    table: ClipTable
    waves: store.Waveforms

    def on_device(self, device: torch.device) -> bool:
        """Whether the waveforms are on the device already."""
        return self._key(device) in _ON_DEVICE

    def samples(self, device: torch.device) -> Tensor:
        """int16 (clips, samples) on the device: brought there once, for all folds and jobs that a process trains."""
        if device.type == "cpu":
            return torch.from_numpy(self.waves.samples)  # mapped, not copied
        key = self._key(device)
        if key not in _ON_DEVICE:
            _ON_DEVICE.clear()  # one collection at a time: what it takes is the device's memory
            _ON_DEVICE[key] = torch.from_numpy(self.waves.samples).to(device)
        return _ON_DEVICE[key]

    def _key(self, device: torch.device) -> tuple:
        return (self.waves.digest, self.waves.sample_rate, self.waves.samples.shape, device)


def open_collection(
    root: Path,
    cache: Path,
    *,
    seconds: float,
    sample_rate: int,
    download: str | None = None,
    layout: str = "esc50",
    subset: str | None = None,
    classes: list[str] | None = None,
    folds: int = 5,
    source_pattern: str | None = None,
) -> Collection:
    """Open a collection, fetching it and building its packed store where they do not exist.

    Args:
        root: folder of the collection; it may be read-only.
        cache: folder of the packed stores.
        seconds, sample_rate: of the stored clips, s and Hz.
        download: how to get a collection that is not there: ``esc50`` downloads, ``synthetic`` renders.
        layout: ``esc50`` has meta/esc50.csv and audio/; ``urbansound8k`` has metadata/UrbanSound8K.csv and
            audio/fold<k>/; ``folder`` has one folder of audio per class, and folds are made.
        subset: of ``esc50``, see `read_table`.
        classes: only these are kept.
        folds, source_pattern: of ``folder``, see `read_folder`.

    Raises:
        InputError: the collection cannot be had, or its table or audio breaks a rule.
    """
    if download is not None:
        DOWNLOADERS[download](root)
    table, audio = read_clips(
        root, cache, layout, subset=subset, classes=classes, folds=folds, source_pattern=source_pattern
    )
    progress = partial(_decoding, description=f"Decoding {root.name}")
    waves = store.open_store(
        audio, table.files, seconds=seconds, sample_rate=sample_rate, cache=cache, progress=progress
    )
    return Collection(table, waves)


def read_clips(
    root: Path,
    cache: Path,
    layout: str = "esc50",
    *,
    subset: str | None = None,
    classes: list[str] | None = None,
    folds: int = 5,
    source_pattern: str | None = None,
) -> tuple[ClipTable, Path]:
    """The table of clips and the folder that its files' names start from; see `open_collection`."""
    audio = root / AUDIO[layout]
    if layout == "folder":
        return read_folder(root, cache, folds, source_pattern, classes), audio
    if layout == "urbansound8k":
        return read_table(root / "metadata" / "UrbanSound8K.csv", None, classes, URBANSOUND8K), audio
    return read_table(root / "meta" / "esc50.csv", subset, classes), audio


def _decoding(items: Iterable, total: int, description: str) -> Iterable:
    return track(items, description=description, total=total)
