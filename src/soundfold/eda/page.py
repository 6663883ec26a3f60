"""``explore.html``, the page of an exploratory analysis."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from soundfold.eda import plots
from soundfold.eda.analysis import CollectionAnalysis
from soundfold.eda.checks import KINDS, FileReport, common_seconds
from soundfold.eda.class_map import THIRDS
from soundfold.eda.clip_cards import Card
from soundfold.eda.cues import BAND_CUES, FILE_FACTS, LEVEL_CUES
from soundfold.eda.shortcuts import CUE_SETS, score_sentence, shortcut_rows
from soundfold.report.drawing import inline_svg, save_figure
from soundfold.report.page import display_name, write_page

SECTIONS = {
    "clips": "Clips",
    "integrity": "Integrity",
    "silence": "Silence",
    "shortcuts": "Shortcuts",
    "descriptors": "Descriptors",
    "plane": "Energy and centroid",
    "map": "Map",
    "examples": "Examples",
    "augmentations": "Augmentations",
}
# longer lists are collapsed
MAX_OPEN_ROWS = 12


@dataclass(frozen=True)
class Media:
    """Clips with picture and sound, see `soundfold.eda.clip_cards.ClipCards`. All lists may be empty.

    Attributes:
        examples: cards by class.
        duplicates: cards by pair of similar clips.
        augmentations: cards of one clip.
        augmented_clip: file name of that clip.
    """

    examples: list[tuple[str, list[Card]]]
    duplicates: list[tuple[str, list[Card]]]
    augmentations: list[Card]
    augmented_clip: str


def write_eda_page(folder: Path, analysis: CollectionAnalysis, media: Media) -> Path:
    """Write ``<folder>/explore.html``, and its figures to ``<folder>/figures`` as PDF, PNG and SVG.

    Args:
        folder: must exist, with a folder ``figures`` in it.
        analysis: of the collection.
        media: clips to show.

    Returns:
        Path of the page.
    """
    figures = eda_figures(analysis)
    for name, figure in figures.items():
        save_figure(figure, folder / "figures", name)
    omitted = {
        "shortcuts": analysis.shortcuts is None,
        "examples": not media.examples,
        "augmentations": not media.augmentations,
    }
    path = folder / "explore.html"
    write_page(
        path,
        "eda.html.j2",
        title=f"{analysis.name}: exploratory analysis",
        analysis=analysis,
        media=media,
        max_open_rows=MAX_OPEN_ROWS,
        figures={name: inline_svg(figure, _alt_text(name, analysis)) for name, figure in figures.items()},
        sections=[(key, name) for key, name in SECTIONS.items() if not omitted.get(key)],
        footer="Written by soundfold. Clips belong to their authors.",
        **_clip_values(analysis),
        **_integrity_values(analysis),
        **_class_values(analysis),
        **_shortcut_values(analysis),
    )
    return path


def _clip_values(analysis: CollectionAnalysis) -> dict[str, Any]:
    reports = analysis.reports
    encodings = Counter((report.subtype, report.rate, report.channels) for report in reports if report.rate)
    return {
        "hours": sum(report.seconds for report in reports) / 3600,
        "n_sources": len(set(analysis.table.sources)) if analysis.table.has_sources else "unknown",
        "durations": _duration_sentence(reports),
        "encodings": [[*encoding, count] for encoding, count in encodings.most_common()],
    }


def _integrity_values(analysis: CollectionAnalysis) -> dict[str, Any]:
    faults = analysis.faults
    return {
        "problems": _problems(analysis),
        "checks": _check_rows(analysis),
        "faulty": [(kind, len(clips), _fault_rows(analysis, kind)) for kind, clips in faults.items() if clips],
        "identical": analysis.sound.identical,
        "pairs": _pair_rows(analysis),
    }


def _class_values(analysis: CollectionAnalysis) -> dict[str, Any]:
    classes = analysis.table.classes
    return {
        "grid": _class_grid(analysis),
        "class_rows": _class_rows(analysis),
        "silence_rows": [
            [display_name(name), *(f"{100 * fraction:.1f}" for fraction in (*fractions, fractions.sum()))]
            for name, fractions in zip(classes, analysis.silence, strict=True)
        ],
        "map_classes": [(int(t), display_name(classes[t])) for t in np.unique(analysis.targets)],
    }


def _shortcut_values(analysis: CollectionAnalysis) -> dict[str, Any]:
    if (audit := analysis.shortcuts) is None:
        return {}
    groups = {"file fact": FILE_FACTS, "band limit": BAND_CUES, "level, roll-off": LEVEL_CUES}
    return {
        "shortcut_scores": [
            (name.replace("_", " "), description, score_sentence(audit.scores[name]))
            for name, (_, description) in CUE_SETS.items()
        ],
        "shortcut_rows": [[display_name(row["class"]), *list(row.values())[1:]] for row in shortcut_rows(audit)],
        "cue_rows": [[name, group, text] for group, cues in groups.items() for name, text in cues.items()],
    }


def eda_figures(analysis: CollectionAnalysis) -> dict[str, Figure]:
    """Return the figures that show more than one clip, by name."""
    names, rows = analysis.table.classes, analysis.audible
    durations = np.array([report.seconds for report in analysis.reports])
    values = {name: array[rows] for name, array in analysis.descriptors.items()}
    values["seconds"] = durations[analysis.usable[rows]]
    shortcuts = {} if analysis.shortcuts is None else {"shortcuts": plots.shortcut_bars(analysis.shortcuts)}
    return {
        "clips": plots.fold_counts(analysis.table),
        "durations": plots.durations(analysis.reports),
        "silence": plots.silence_bars(analysis.silence, names),
        **shortcuts,
        "descriptors": plots.descriptor_boxes(values, analysis.targets, names),
        "plane": plots.class_plane(analysis.profiles, names),
        "map": plots.clip_map(analysis.projection, analysis.targets, names),
    }


def _alt_text(name: str, analysis: CollectionAnalysis) -> str:
    table, explained = analysis.table, 100 * analysis.projection.explained.sum()
    return {
        "clips": f"Number of clips of {len(table.classes)} classes in {len(table.fold_numbers)} folds",
        "durations": f"Histogram of durations. {_duration_sentence(analysis.reports)}",
        "silence": "Digital silence by class; the table next to the figure has the numbers",
        "shortcuts": "Recall by class from file-level cues; the table next to the figure has the numbers",
        "descriptors": "Box plots of RMS energy, centroid, bandwidth, roll-off, zero crossings and duration by class",
        "plane": "Classes by energy and spectral centroid; the table below lists the classes of each third",
        "map": f"{len(analysis.targets)} clips on two principal components with {explained:.0f} % of the variance",
    }[name]


def _problems(analysis: CollectionAnalysis) -> list[str]:
    problems = [f"{len(clips)} {kind}" for kind, clips in analysis.faults.items() if clips]
    if n_identical := sum(len(names) for names in analysis.sound.identical):
        problems.append(f"{n_identical} identical")
    if n_near := len(analysis.sound.near) - _identical_pairs(analysis):
        problems.append(f"{n_near} pair{'s' * (n_near != 1)} of near duplicates")
    return problems


def _identical_pairs(analysis: CollectionAnalysis) -> int:
    group_of = {name: i for i, names in enumerate(analysis.sound.identical) for name in names}
    return sum(
        pair["first"] in group_of and group_of[pair["first"]] == group_of.get(pair["second"])
        for pair in analysis.sound.near
    )


def _check_rows(analysis: CollectionAnalysis) -> list[list[Any]]:
    n_identical = sum(len(names) for names in analysis.sound.identical)
    return [
        *([kind, len(analysis.faults[kind]), definition] for kind, definition in KINDS.items()),
        ["identical", n_identical, "has the same samples as another clip"],
        [
            "near duplicates",
            len(analysis.sound.near),
            "pairs of clips whose mel bands correlate, at a lag of up to 100 ms; includes identical clips",
        ],
    ]


def _fault_rows(analysis: CollectionAnalysis, kind: str) -> list[list[Any]]:
    table, common = analysis.table, common_seconds(analysis.reports)
    return [
        [
            table.files[clip],
            _fault_detail(kind, analysis.reports[clip], common),
            display_name(table.classes[table.targets[clip]]),
            int(table.folds[clip]),
        ]
        for clip in analysis.faults[kind]
    ]


def _fault_detail(kind: str, report: FileReport, common: float | None) -> str:
    if kind in ("truncated", "too long"):
        return f"{report.seconds:.3f} s; most clips have {common:.3f} s"
    if kind == "clipped":
        percent = 100 * report.clipped / (report.frames * report.channels)
        return f"{report.clipped} samples ({percent:.2g} %); peak {report.peak:.3f}"
    if kind == "silent":
        return f"{report.seconds:.3f} s{' of silence' if report.silent else ', with sound that is cut or cancels out'}"
    if kind == "incomplete":
        return f"{report.frames} of {report.declared_frames} samples"
    return report.reason


def _pair_rows(analysis: CollectionAnalysis) -> list[list[Any]]:
    return [
        [
            pair["first"],
            pair["second"],
            f"{pair['similarity']:.3f}",
            f"{1000 * pair['lag_seconds']:.0f}",
            " and ".join(display_name(name) for name in dict.fromkeys(pair["classes"])),
            " and ".join(str(fold) for fold in dict.fromkeys(pair["folds"])),
            " and ".join(dict.fromkeys(pair["sources"])),
        ]
        for pair in analysis.sound.near
    ]


def _duration_sentence(reports: list[FileReport]) -> str:
    seconds = [report.seconds for report in reports if report.fault is None]
    common = common_seconds(reports)
    extremes = f"The shortest has {min(seconds):.2f} s, the longest {max(seconds):.2f} s."
    if common is None:
        return f"No duration is shared by half of the clips. {extremes}"
    n_exact = sum(round(value, 3) == common for value in seconds)
    return f"{n_exact} of {len(seconds)} clips have {common:.3f} s. {extremes}"


def _class_grid(analysis: CollectionAnalysis) -> list[list[str]]:
    """Return class names by third of the centroid (rows, high first) and of the energy (columns)."""
    profiles, names = analysis.profiles, analysis.table.classes
    cells: dict[tuple[int, int], list[str]] = {}
    thirds = zip(profiles.centroid_thirds.third, profiles.energy_thirds.third, strict=True)
    for target, cell in zip(profiles.targets, thirds, strict=True):
        cells.setdefault(cell, []).append(display_name(names[target]))
    return [
        [THIRDS[centroid], *(", ".join(cells.get((centroid, energy), ["—"])) for energy in range(3))]
        for centroid in (2, 1, 0)
    ]


def _class_rows(analysis: CollectionAnalysis) -> list[list[Any]]:
    """Return energy and spectral centroid of each class, loudest first."""
    profiles, names = analysis.profiles, analysis.table.classes
    return [
        [
            display_name(names[profiles.targets[i]]),
            f"{profiles.energy[i]:.1f}".replace("-", "−"),
            THIRDS[profiles.energy_thirds.third[i]],
            f"{profiles.centroid[i]:.0f}",
            THIRDS[profiles.centroid_thirds.third[i]],
        ]
        for i in np.argsort(-profiles.energy, kind="stable")
    ]
