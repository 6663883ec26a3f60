"""Numbers of an exploratory analysis: file checks, descriptors, class profiles and duplicates of a collection."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from soundfold.data import store
from soundfold.data.store import Waveforms
from soundfold.data.tables import ClipTable
from soundfold.eda.checks import UNUSABLE, FileReport, faults_by_kind, inspect
from soundfold.eda.class_map import Projection, Thirds, class_means, project, thirds
from soundfold.eda.collection_audit import SoundAudit, audit_sound
from soundfold.eda.descriptors import Descriptors, describe
from soundfold.eda.duplicate_search import find_near_duplicates
from soundfold.eda.progress import Progress, show_nothing
from soundfold.eda.shortcuts import ShortcutAudit, audit_shortcuts
from soundfold.errors import InputError
from soundfold.features.logmel import LogMel
from soundfold.io.pcm import pcm_to_float

# the spectra of two clips fit into a CPU's cache; a GPU needs larger batches
CPU_BATCH, GPU_BATCH = 2, 64


@dataclass(frozen=True)
class ClassProfiles:
    """Mean energy and spectral centroid of each class.

    Attributes:
        targets: (C,), the classes that have a clip with sound.
        energy: (C,), dB, mean log-mel over their clips.
        centroid: (C,), Hz, mean spectral centroid over their clips.
        energy_thirds, centroid_thirds: the classes grouped by either value.
    """

    targets: np.ndarray
    energy: np.ndarray
    centroid: np.ndarray
    energy_thirds: Thirds
    centroid_thirds: Thirds


@dataclass(frozen=True)
class CollectionAnalysis:
    """Measurements of a collection.

    U clips are usable (they can be decoded), S of them have sound (they are not digital silence).

    Attributes:
        name: of the collection.
        table: all clips.
        reports: file checks, in the order of the table.
        faults: indices of clips by fault, see `soundfold.eda.checks.KINDS`.
        usable: int64 (U,), indices of the usable clips.
        waves: packed store of the usable clips.
        audible: int64 (S,), rows of ``usable`` that have sound. Class statistics and the map use only these.
        descriptors: arrays (U, ...) by name, see `Descriptors`.
        sound: duplicates among the clips that have sound.
        shortcuts: accuracy from file-level cues of the usable clips; None for a table of one fold.
    """

    name: str
    table: ClipTable
    reports: list[FileReport]
    faults: dict[str, list[int]]
    usable: np.ndarray
    waves: Waveforms
    audible: np.ndarray
    descriptors: dict[str, np.ndarray]
    sound: SoundAudit
    shortcuts: ShortcutAudit | None

    @cached_property
    def targets(self) -> np.ndarray:
        """int64 (S,), classes of the clips that have sound."""
        return self.table.targets[self.usable[self.audible]]

    @cached_property
    def energy(self) -> np.ndarray:
        """(U,), dB, mean of each clip's log-mel."""
        return self.descriptors["band_mean"].mean(axis=1)

    @cached_property
    def band_features(self) -> np.ndarray:
        """(S, 2 n_mels), dB, mean and standard deviation of each log-mel band, for the clips that have sound."""
        return np.hstack([self.descriptors["band_mean"], self.descriptors["band_std"]])[self.audible]

    @property
    def normalization(self) -> tuple[float, float]:
        """Mean and standard deviation of the usable clips' log-mels, dB; every clip has equal weight."""
        mean = self.descriptors["band_mean"]
        square = (mean**2 + self.descriptors["band_std"] ** 2).mean()
        # a constant log-mel has no variance to divide by
        return float(mean.mean()), float(np.sqrt(max(square - mean.mean() ** 2, 1e-6)))

    @cached_property
    def projection(self) -> Projection:
        """Principal components of `band_features`."""
        return project(self.band_features)

    @cached_property
    def profiles(self) -> ClassProfiles:
        """Classes by energy and spectral centroid."""
        present, n_classes = np.unique(self.targets), len(self.table.classes)
        energy = class_means(self.energy[self.audible], self.targets, n_classes)[present]
        centroid = class_means(self.descriptors["centroid"][self.audible], self.targets, n_classes)[present]
        return ClassProfiles(present, energy, centroid, thirds(energy), thirds(centroid))

    @cached_property
    def silence(self) -> np.ndarray:
        """(classes, 3), mean fraction of digital silence at the start, inside and at the end of usable clips."""
        fractions = np.array([[r.leading, r.inner, r.trailing] for r in self.reports])[self.usable]
        return class_means(fractions, self.table.targets[self.usable], len(self.table.classes))

    def examples(self, n_examples: int) -> dict[int, list[int]]:
        """Return rows of ``usable`` for each class, from most to least typical, evenly spaced by rank.

        A clip is typical if its `band_features` are close to the class mean.
        """
        rows_by_class = {}
        for target in np.unique(self.targets):
            members = np.flatnonzero(self.targets == target)
            features = self.band_features[members]
            distance = np.linalg.norm(features - features.mean(axis=0), axis=1)
            rows = self.audible[members[np.argsort(distance, kind="stable")]]
            ranks = np.unique(np.linspace(0, len(rows) - 1, min(n_examples, len(rows))).round().astype(int))
            rows_by_class[int(target)] = rows[ranks].tolist()
        return rows_by_class


def analyze_collection(
    name: str,
    table: ClipTable,
    audio: Path,
    logmel: LogMel,
    *,
    seconds: float,
    sample_rate: int,
    cache: Path,
    device: torch.device,
    progress: Progress = show_nothing,
) -> CollectionAnalysis:
    """Check every file, then decode and measure the usable ones.

    Unusable files are reported and skipped. File checks use the files as they are; descriptors and duplicates use the
    packed store that training would read, cut to ``seconds`` and resampled to ``sample_rate``.

    Args:
        name: of the collection.
        table: its clips.
        audio: folder of the audio files.
        logmel: computes the log-mels.
        seconds, sample_rate: length (s) and rate (Hz) of the stored clips.
        cache: folder of the packed stores.
        device: computes the descriptors.
        progress: wraps each loop, called with a description, the items and their number.

    Raises:
        InputError: no file can be decoded, all are silent, or the cache cannot be written.
    """
    reports = inspect(audio, table.files, lambda items, total: progress("Checking files", items, total))
    usable = _usable_clips(reports, audio)
    waves = store.open_store(
        audio,
        table.rows(usable).files,
        seconds=seconds,
        sample_rate=sample_rate,
        cache=cache,
        progress=lambda items, total: progress("Decoding", items, total),
    )
    audible = _audible(usable, reports, waves, audio, seconds)
    # some have sound only after the cut, or in the difference of their channels
    silent = np.delete(usable, audible).tolist()
    return CollectionAnalysis(
        name=name,
        table=table,
        reports=reports,
        faults={**faults_by_kind(reports), "silent": silent},
        usable=usable,
        waves=waves,
        audible=audible,
        descriptors=_describe_all(waves, logmel, device, progress),
        sound=_find_duplicates(table, usable, audible, waves, progress),
        shortcuts=audit_shortcuts(table.rows(usable), waves, progress),
    )


def _usable_clips(reports: list[FileReport], audio: Path) -> np.ndarray:
    usable = np.array([i for i, report in enumerate(reports) if report.fault not in UNUSABLE], dtype=np.int64)
    if not len(usable):
        raise InputError(
            f"None of the {len(reports)} audio files under {audio} can be decoded. The first is {reports[0].file}: "
            f"{reports[0].reason}. Set data.root to a folder with audio that libsndfile reads."
        )
    return usable


def _audible(
    usable: np.ndarray, reports: list[FileReport], waves: Waveforms, audio: Path, seconds: float
) -> np.ndarray:
    """Return the rows of the clips that have sound, also after they were cut and mixed to one channel."""
    rows = np.flatnonzero([not reports[clip].silent and waves.samples[row].any() for row, clip in enumerate(usable)])
    if not len(rows):
        raise InputError(
            f"All {len(usable)} decodable files under {audio} are digital silence in the part that is used "
            f"(data.seconds={seconds:g}, mixed to one channel), so there is nothing to analyze. Set data.root to a "
            "folder of clips that have sound."
        )
    return rows


def _describe_all(waves: Waveforms, logmel: LogMel, device: torch.device, progress: Progress) -> dict[str, np.ndarray]:
    logmel = logmel.to(device)
    batch_size = CPU_BATCH if device.type == "cpu" else GPU_BATCH
    starts = range(0, len(waves.samples), batch_size)
    batches = []
    for start in progress("Computing descriptors", starts, len(starts)):
        rows = slice(start, start + batch_size)
        wave = pcm_to_float(torch.from_numpy(waves.samples[rows]).to(device))
        batches.append(describe(wave, torch.from_numpy(waves.lengths[rows]).to(device), logmel))
    descriptors = Descriptors.concatenate(batches)
    return {field.name: getattr(descriptors, field.name).double().numpy() for field in fields(descriptors)}


def _find_duplicates(
    table: ClipTable, usable: np.ndarray, rows: np.ndarray, waves: Waveforms, progress: Progress
) -> SoundAudit:
    """Find identical and nearly identical clips, without the silent ones: those have a fault of their own."""
    audible = table.rows(usable[rows])
    pairs, compared = find_near_duplicates(waves, rows, audible.targets, progress)
    return audit_sound(audible, [waves.hashes[row] for row in rows], pairs, [], compared)
