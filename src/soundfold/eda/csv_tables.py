"""CSV tables of an exploratory analysis, one row per clip or per class."""

from __future__ import annotations

from typing import Any

import numpy as np

from soundfold.eda.analysis import CollectionAnalysis
from soundfold.eda.class_map import THIRDS, class_means
from soundfold.eda.cues import CUES
from soundfold.eda.shortcuts import ShortcutAudit, shortcut_rows


def clips_csv(analysis: CollectionAnalysis) -> str:
    """Return a row per clip: its table entry, file properties and descriptors. Unusable clips have no descriptors."""
    table, descriptors = analysis.table, analysis.descriptors
    row_of = {int(clip): row for row, clip in enumerate(analysis.usable)}
    point_of = dict(zip(analysis.usable[analysis.audible].tolist(), analysis.projection.points, strict=True))
    faults = {kind: set(clips) for kind, clips in analysis.faults.items()}
    rows = []
    for clip, report in enumerate(analysis.reports):
        values: dict[str, Any] = {
            "file": report.file,
            "class": table.classes[table.targets[clip]],
            "fold": table.folds[clip],
            "source": table.sources[clip],
            "faults": "; ".join(kind for kind, clips in faults.items() if clip in clips),
            "reason": report.reason,
            "sample_rate_hz": report.rate or "",
            "channels": report.channels or "",
            "encoding": report.subtype,
        }
        if (row := row_of.get(clip)) is not None:
            values |= {
                "seconds": f"{report.seconds:.6g}",
                "peak": f"{report.peak:.6g}",
                "clipped_samples": report.clipped,
                "silence_leading": f"{report.leading:.4f}",
                "silence_inner": f"{report.inner:.4f}",
                "silence_trailing": f"{report.trailing:.4f}",
                "mean_log_mel_db": f"{analysis.energy[row]:.2f}",
                "rms_dbfs": f"{descriptors['rms_db'][row]:.2f}",
                "centroid_hz": f"{descriptors['centroid'][row]:.1f}",
                "bandwidth_hz": f"{descriptors['bandwidth'][row]:.1f}",
                "rolloff_hz": f"{descriptors['rolloff'][row]:.1f}",
                "zero_crossing_rate": f"{descriptors['crossing_rate'][row]:.5f}",
            }
        if clip in point_of:
            values |= {f"pc_{axis}": f"{value:.2f}" for axis, value in enumerate(point_of[clip], start=1)}
        rows.append(values)
    return _to_csv(rows)


def classes_csv(analysis: CollectionAnalysis) -> str:
    """Return a row per class: clips per fold, sources, duration, silence, energy and centroid with their thirds."""
    table, profiles = analysis.table, analysis.profiles
    profile_of = {int(target): i for i, target in enumerate(profiles.targets)}
    durations = np.array([analysis.reports[clip].seconds for clip in analysis.usable])
    seconds = class_means(durations, table.targets[analysis.usable], len(table.classes))
    rows = []
    for target, name in enumerate(table.classes):
        clips = np.flatnonzero(table.targets == target)
        n_usable = int(np.isin(clips, analysis.usable).sum())
        values: dict[str, Any] = {
            "class": name,
            "clips": len(clips),
            **{f"fold_{fold}": int((table.folds[clips] == fold).sum()) for fold in table.fold_numbers},
            "sources": len({table.sources[clip] for clip in clips}),
            "usable": n_usable,
        }
        if n_usable:
            values |= {"seconds": f"{seconds[target]:.4f}", "silence": f"{analysis.silence[target].sum():.4f}"}
        if (i := profile_of.get(target)) is not None:
            values |= {
                "energy_db": f"{profiles.energy[i]:.2f}",
                "energy_third": THIRDS[profiles.energy_thirds.third[i]],
                "centroid_hz": f"{profiles.centroid[i]:.1f}",
                "centroid_third": THIRDS[profiles.centroid_thirds.third[i]],
            }
        rows.append(values)
    return _to_csv(rows)


def shortcuts_csv(audit: ShortcutAudit) -> str:
    """Return a row per class: recall, precision and strongest cue with each set of file-level cues."""
    return _to_csv(shortcut_rows(audit))


def cues_csv(analysis: CollectionAnalysis, audit: ShortcutAudit) -> str:
    """Return a row per usable clip with its file-level cues."""
    table = analysis.table.rows(analysis.usable)
    rows = []
    for file, target, values in zip(table.files, table.targets, audit.cues, strict=True):
        cues = {name: f"{value:.6g}" for name, value in zip(CUES, values, strict=True)}
        rows.append({"file": file, "class": table.classes[target], **cues})
    return _to_csv(rows)


def _to_csv(rows: list[dict[str, Any]]) -> str:
    import pandas

    # as objects, so that integers of a column with gaps stay integers
    return pandas.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n")
