"""What an exploratory analysis finds out about a collection: numbers, without a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from soundfold.data import store
from soundfold.data.store import Waveforms
from soundfold.data.tables import ClipTable
from soundfold.eda.checks import UNUSABLE, FileReport, faults, inspect
from soundfold.eda.class_map import THIRDS, Map, Thirds, class_means, principal_map, thirds
from soundfold.eda.collection_audit import SoundAudit, audit_sound
from soundfold.eda.descriptors import Descriptors, describe
from soundfold.eda.duplicates import fingerprints, near_pairs
from soundfold.errors import InputError
from soundfold.features.logmel import LogMel
from soundfold.io.pcm import pcm_to_float

# clips whose spectra together stay in a processor's cache; an accelerator wants more at once
CPU_BATCH, AT_ONCE = 2, 64
PER_CLIP = ("rms_db", "centroid", "bandwidth", "rolloff", "crossing_rate")
Progress = Callable[[str, Iterable, int], Iterable]


@dataclass(frozen=True)
class CollectionAnalysis:
    """A collection, looked at and listened to.

    Attributes:
        name: of the collection.
        table: all its clips.
        reports: of their files, in the table's order.
        faults: indices of clips by what is wrong with them, see `soundfold.eda.checks.KINDS`.
        usable: int64 (U,), indices of the clips that can be decoded.
        waves: the packed store of these.
        descriptors: arrays (U, ...) by name, see `Descriptors`.
        sound: copies among the usable clips that are not silent.
    """

    name: str
    table: ClipTable
    reports: list[FileReport]
    faults: dict[str, list[int]]
    usable: np.ndarray
    waves: Waveforms
    descriptors: dict[str, np.ndarray]
    sound: SoundAudit

    @cached_property
    def sounding(self) -> np.ndarray:
        """int64 (S,), rows of ``usable`` that are not digital silence; classes and the map are made of these."""
        return np.flatnonzero([not self.reports[clip].silent for clip in self.usable])

    @cached_property
    def targets(self) -> np.ndarray:
        """int64 (S,), classes of the sounding clips."""
        return self.table.targets[self.usable[self.sounding]]

    @cached_property
    def level(self) -> np.ndarray:
        """(U,), dB, each clip's mean log-mel level: its energy, as the network sees it."""
        return self.descriptors["band_mean"].mean(axis=1)

    @cached_property
    def statistics(self) -> np.ndarray:
        """(S, 2 n_mels), dB, mean and standard deviation of each band of the sounding clips."""
        both = np.concatenate([self.descriptors["band_mean"], self.descriptors["band_std"]], axis=1)
        return both[self.sounding]

    @property
    def band_statistics(self) -> tuple[float, float]:
        """Mean and standard deviation of all cells of all clips' log-mels, dB, each clip counting alike."""
        mean = self.descriptors["band_mean"]
        square = (mean**2 + self.descriptors["band_std"] ** 2).mean()
        # a collection of one constant level has no spread to divide by
        return float(mean.mean()), float(np.sqrt(max(square - mean.mean() ** 2, 1e-6)))

    @cached_property
    def map(self) -> Map:
        """The sounding clips by `statistics`, in two dimensions."""
        return principal_map(self.statistics)

    @cached_property
    def places(self) -> ClassPlaces:
        """The classes in the plane of energy and tone."""
        known = np.unique(self.targets)
        count = len(self.table.classes)
        energy = class_means(self.level[self.sounding], self.targets, count)[known]
        tone = class_means(self.descriptors["centroid"][self.sounding], self.targets, count)[known]
        return ClassPlaces(known, energy, tone, thirds(energy), thirds(tone))

    @cached_property
    def silence(self) -> np.ndarray:
        """(classes, 3), mean share of digital silence at the start, inside and at the end of usable clips."""
        shares = np.array([[r.leading, r.inner, r.trailing] for r in self.reports])[self.usable]
        return class_means(shares, self.table.targets[self.usable], len(self.table.classes))

    def examples(self, count: int) -> dict[int, list[int]]:
        """For each class rows of ``usable``, from the most to the least typical, evenly spaced by rank.

        Typical is what lies near the mean of the class's `statistics`.
        """
        chosen = {}
        for target in np.unique(self.targets):
            own = np.flatnonzero(self.targets == target)
            away = np.linalg.norm(self.statistics[own] - self.statistics[own].mean(axis=0), axis=1)
            order = self.sounding[own[np.argsort(away, kind="stable")]]
            ranks = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
            chosen[int(target)] = order[ranks].tolist()
        return chosen


@dataclass(frozen=True)
class ClassPlaces:
    """Classes in the plane of energy and tone.

    Attributes:
        targets: (C,), the classes that have a sounding clip.
        energy: (C,), dB, mean log-mel level over their clips.
        tone: (C,), Hz, mean spectral centroid.
        by_energy, by_tone: their thirds.
    """

    targets: np.ndarray
    energy: np.ndarray
    tone: np.ndarray
    by_energy: Thirds
    by_tone: Thirds


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
    progress: Progress = lambda description, items, total: items,
) -> CollectionAnalysis:
    """Look at every file, then listen to those that can be decoded.

    Files that cannot are reported and left out, where training refuses them. What is heard is what training would hear:
    the packed store, cut to ``seconds`` and resampled to ``sample_rate``; the files are reported as they are.

    Args:
        name: of the collection.
        table: its clips.
        audio: folder of their files.
        logmel: of the images.
        cache: folder of the packed stores.
        device: computes the descriptors.
        progress: wraps each loop, given a description, its items and their number.

    Raises:
        InputError: no file can be decoded, all are silent, or the cache cannot be written.
    """
    reports = inspect(audio, table.files, lambda items, total: progress("Looking", items, total))
    found = faults(reports)
    usable = np.array([i for i, report in enumerate(reports) if report.fault not in UNUSABLE], dtype=np.int64)
    if not len(usable):
        raise InputError(
            f"None of the {len(table)} audio files under {audio} can be decoded; the first, {table.files[0]}: "
            f"{reports[0].reason}. Give a data.root whose audio libsndfile reads."
        )
    if all(reports[clip].silent for clip in usable):
        raise InputError(
            f"Every one of the {len(usable)} files under {audio} that can be decoded is digital silence; there is "
            "nothing to explore. Give data.root=DIRECTORY with sound."
        )
    heard = table.rows(usable)
    waves = store.open_store(
        audio,
        heard.files,
        seconds=seconds,
        sample_rate=sample_rate,
        cache=cache,
        progress=lambda items, total: progress("Decoding", items, total),
    )
    return CollectionAnalysis(
        name=name,
        table=table,
        reports=reports,
        faults=found,
        usable=usable,
        waves=waves,
        descriptors=_described(waves, logmel, device, progress),
        sound=_copies(table, usable, reports, waves, progress),
    )


def _described(waves: Waveforms, logmel: LogMel, device: torch.device, progress: Progress) -> dict[str, np.ndarray]:
    logmel = logmel.to(device)
    size = CPU_BATCH if device.type == "cpu" else AT_ONCE
    starts = range(0, len(waves.samples), size)
    parts = []
    for start in progress("Describing", starts, len(starts)):
        rows = slice(start, start + size)
        wave = pcm_to_float(torch.from_numpy(waves.samples[rows]).to(device))
        parts.append(describe(wave, torch.from_numpy(waves.lengths[rows]).to(device), logmel))
    joined = Descriptors.joined(parts)
    return {field.name: getattr(joined, field.name).double().numpy() for field in fields(joined)}


def _copies(
    table: ClipTable, usable: np.ndarray, reports: list[FileReport], waves: Waveforms, progress: Progress
) -> SoundAudit:
    """Identical and nearly identical clips; silence is like silence, and is reported as such instead."""
    rows = [row for row, clip in enumerate(usable) if not reports[clip].silent]
    prints = fingerprints(
        waves.samples[rows],
        waves.lengths[rows],
        waves.sample_rate,
        lambda items, total: progress("Listening", items, total),
    )
    pairs = near_pairs(prints, progress=lambda items, total: progress("Comparing", items, total))
    return audit_sound(table.rows(usable[rows]), [waves.hashes[row] for row in rows], pairs, [])


def clips_csv(found: CollectionAnalysis) -> str:
    """A row per clip: what the table says, what its file holds, what it sounds like."""
    kinds = {clip: [k for k, clips in found.faults.items() if clip in clips] for clip in range(len(found.table))}
    row_of = {int(clip): row for row, clip in enumerate(found.usable)}
    point_of = {int(found.usable[row]): point for row, point in zip(found.sounding, found.map.points, strict=True)}
    head = ["file", "class", "fold", "source", "faults", "reason", "rate_hz", "channels", "coding", "seconds", "peak"]
    head += ["clipped_samples", "silence_leading", "silence_inner", "silence_trailing", "level_db", "rms_dbfs"]
    head += ["centroid_hz", "bandwidth_hz", "rolloff_hz", "crossing_rate", "map_1", "map_2"]
    rows = []
    for clip, report in enumerate(found.reports):
        table, row = found.table, row_of.get(clip)
        values: list[Any] = [report.file, table.classes[table.targets[clip]], table.folds[clip], table.sources[clip]]
        values += ["; ".join(kinds[clip]), report.reason]
        values += [report.rate or "", report.channels or "", report.subtype]
        if row is not None:
            values += [f"{report.seconds:.6g}", f"{report.peak:.6g}", report.clipped]
            values += [f"{share:.4f}" for share in (report.leading, report.inner, report.trailing)]
            values += [f"{found.level[row]:.2f}", f"{found.descriptors['rms_db'][row]:.2f}"]
            values += [f"{found.descriptors[name][row]:.1f}" for name in ("centroid", "bandwidth", "rolloff")]
            values += [f"{found.descriptors['crossing_rate'][row]:.5f}"]
        values += [f"{value:.2f}" for value in point_of.get(clip, ())]
        rows.append(values + [""] * (len(head) - len(values)))
    return _csv(head, rows)


def classes_csv(found: CollectionAnalysis) -> str:
    """A row per class: clips of each fold, sources, duration, silence, energy and tone with their thirds."""
    table, places = found.table, found.places
    place_of = {int(target): i for i, target in enumerate(places.targets)}
    seconds = class_means(
        np.array([found.reports[clip].seconds for clip in found.usable]),
        table.targets[found.usable],
        len(table.classes),
    )
    head = ["class", "clips", *(f"fold_{fold}" for fold in table.fold_numbers), "sources", "usable", "seconds"]
    head += ["silence", "energy_db", "energy_third", "tone_hz", "tone_third"]
    rows = []
    for target, name in enumerate(table.classes):
        own = np.flatnonzero(table.targets == target)
        values: list[Any] = [name, len(own), *(int((table.folds[own] == fold).sum()) for fold in table.fold_numbers)]
        values += [len({table.sources[clip] for clip in own}), int(np.isin(own, found.usable).sum())]
        if values[-1]:
            values += [f"{seconds[target]:.4f}", f"{found.silence[target].sum():.4f}"]
        if target in place_of:
            i = place_of[target]
            values += [f"{places.energy[i]:.2f}", THIRDS[places.by_energy.third[i]]]
            values += [f"{places.tone[i]:.1f}", THIRDS[places.by_tone.third[i]]]
        rows.append(values + [""] * (len(head) - len(values)))
    return _csv(head, rows)


def _csv(head: list[str], rows: list[list[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue()
