"""``explore.html``: a collection to look at and to listen to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from soundfold.eda import plots
from soundfold.eda.analysis import PER_CLIP, CollectionAnalysis
from soundfold.eda.checks import KINDS, FileReport, common_seconds
from soundfold.eda.class_map import THIRDS
from soundfold.eda.clip_cards import Card
from soundfold.report.drawing import inline_svg, save_figure
from soundfold.report.page import display_name, write_page

SECTIONS = {
    "clips": "Clips",
    "integrity": "Integrity",
    "silence": "Silence",
    "descriptors": "Descriptors",
    "plane": "Energy and tone",
    "map": "Map",
    "examples": "Examples",
    "augmentations": "Augmentations",
}
# longer lists are folded up
SHORT = 12


def write_eda_page(
    folder: Path,
    found: CollectionAnalysis,
    examples: list[tuple[str, list[Card]]],
    copies: list[tuple[str, list[Card]]],
    varied: list[Card],
    varied_clip: str,
) -> Path:
    """Write ``<folder>/explore.html``, and its figures to ``<folder>/figures`` as PDF, PNG and SVG.

    Args:
        folder: exists, and ``figures`` in it.
        found: the numbers.
        examples, copies, varied: see `soundfold.eda.clip_cards.ClipCards`; may be empty.
        varied_clip: whose variations they are.

    Returns:
        The page.
    """
    figures = eda_figures(found)
    for name, figure in figures.items():
        save_figure(figure, folder / "figures", name)
    table, reports = found.table, found.reports
    left_out = {"examples": not examples, "augmentations": not varied}
    path = folder / "explore.html"
    write_page(
        path,
        "eda.html.j2",
        title=f"{found.name}: look and listen",
        found=found,
        hours=sum(report.seconds for report in reports) / 3600,
        sources=len(set(table.sources)),
        troubles=_troubles(found),
        kinds=_kind_rows(found),
        faulty=[(kind, len(clips), _fault_rows(found, kind, clips)) for kind, clips in found.faults.items() if clips],
        short=SHORT,
        identical=found.sound.identical,
        pairs=_pair_rows(found),
        codings=_coding_rows(reports),
        lengths=_lengths(reports),
        grid=_grid(found),
        class_rows=_class_rows(found),
        silence_rows=[
            [display_name(name), *(f"{100 * share:.1f}" for share in (*shares, shares.sum()))]
            for name, shares in zip(table.classes, found.silence, strict=True)
        ],
        map_classes=[(int(t), display_name(table.classes[t])) for t in np.unique(found.targets)],
        figures={name: inline_svg(figure, _alt(name, found)) for name, figure in figures.items()},
        examples=examples,
        copies=copies,
        varied=varied,
        varied_clip=varied_clip,
        sections=[(key, name) for key, name in SECTIONS.items() if not left_out.get(key)],
        footer="Written by soundfold. Clips belong to their authors.",
    )
    return path


def eda_figures(found: CollectionAnalysis) -> dict[str, Figure]:
    """The figures that are not of single clips, by name."""
    names = found.table.classes
    values = {name: found.descriptors[name][found.sounding] for name in PER_CLIP}
    values["seconds"] = np.array([found.reports[clip].seconds for clip in found.usable[found.sounding]])
    return {
        "clips": plots.fold_counts(found.table),
        "durations": plots.durations(found.reports),
        "silence": plots.silence_bars(found.silence, names),
        "descriptors": plots.descriptor_boxes(values, found.targets, names),
        "plane": plots.class_plane(found.places, names),
        "map": plots.clip_map(found.map, found.targets, names),
    }


def _alt(name: str, found: CollectionAnalysis) -> str:
    explained = 100 * found.map.explained.sum()
    return {
        "clips": f"Number of clips of {len(found.table.classes)} classes in {len(found.table.fold_numbers)} folds",
        "durations": f"Histogram of durations; {_lengths(found.reports)}",
        "silence": "Share of digital silence of each class; the figures stand in the table below",
        "descriptors": "Box plots by class of RMS energy, centroid, bandwidth, roll-off, crossing rate and duration",
        "plane": "Classes by energy and tone; the table below names the classes of each third",
        "map": f"{len(found.targets)} clips on two principal components, {explained:.0f} % of the variance, by class",
    }[name]


def _troubles(found: CollectionAnalysis) -> list[str]:
    """What is wrong, in a few words each."""
    counted = [f"{len(clips)} {kind}" for kind, clips in found.faults.items() if clips]
    if identical := sum(len(names) for names in found.sound.identical):
        counted.append(f"{identical} with the very same samples as another")
    near = len(found.sound.near) - _identical_pairs(found)
    return [*counted, f"{near} pair{'s' * (near != 1)} nearly alike"] if near else counted


def _identical_pairs(found: CollectionAnalysis) -> int:
    group_of = {name: i for i, names in enumerate(found.sound.identical) for name in names}
    return sum(
        pair["first"] in group_of and group_of[pair["first"]] == group_of.get(pair["second"])
        for pair in found.sound.near
    )


def _kind_rows(found: CollectionAnalysis) -> list[list[Any]]:
    identical = sum(len(names) for names in found.sound.identical)
    return [
        *([kind, len(found.faults[kind]), rule] for kind, rule in KINDS.items()),
        ["identical", identical, "has the very same samples as another clip"],
        ["nearly alike", len(found.sound.near), "pairs of clips whose bands move alike, at a shift of up to 100 ms"],
    ]


def _fault_rows(found: CollectionAnalysis, kind: str, clips: list[int]) -> list[list[Any]]:
    common = common_seconds(found.reports)
    table = found.table
    return [
        [
            table.files[clip],
            _detail(kind, found.reports[clip], common),
            display_name(table.classes[table.targets[clip]]),
            int(table.folds[clip]),
        ]
        for clip in clips
    ]


def _detail(kind: str, report: FileReport, common: float | None) -> str:
    if kind in ("truncated", "too long"):
        return f"{report.seconds:.3f} s, most have {common:.3f} s"
    if kind == "clipped":
        share = report.clipped / (report.frames * report.channels)
        return f"{report.clipped} samples, {100 * share:.2g} % of all; peak {report.peak:.3f}"
    if kind == "silent":
        return f"{report.seconds:.3f} s of silence"
    if kind == "cut short":
        return f"{report.frames} of {report.promised} samples"
    return report.reason


def _pair_rows(found: CollectionAnalysis) -> list[list[Any]]:
    return [
        [
            pair["first"],
            pair["second"],
            f"{pair['similarity']:.3f}",
            f"{1000 * pair['later']:.0f}",
            " and ".join(display_name(name) for name in dict.fromkeys(pair["classes"])),
            " and ".join(str(fold) for fold in dict.fromkeys(pair["folds"])),
            " and ".join(dict.fromkeys(pair["sources"])),
        ]
        for pair in found.sound.near
    ]


def _coding_rows(reports: list[FileReport]) -> list[list[Any]]:
    known = Counter((report.rate, report.channels, report.subtype) for report in reports if report.rate)
    return [[subtype, rate, channels, count] for (rate, channels, subtype), count in known.most_common()]


def _lengths(reports: list[FileReport]) -> str:
    """Sentence on the durations."""
    seconds = [report.seconds for report in reports if report.fault is None]
    common = common_seconds(reports)
    spread = f"the shortest has {min(seconds):.2f} s, the longest {max(seconds):.2f} s"
    if common is None:
        return f"no duration is common to half of the clips; {spread}"
    exactly = sum(round(value, 3) == common for value in seconds)
    return f"{exactly} of {len(seconds)} clips have {common:.3f} s; {spread}"


def _grid(found: CollectionAnalysis) -> list[list[str]]:
    """Names of the classes of each third of tone (rows, high first) and energy."""
    places, names = found.places, found.table.classes
    return [
        [THIRDS[tone]]
        + [
            ", ".join(
                display_name(names[target])
                for target, e, t in zip(places.targets, places.by_energy.third, places.by_tone.third, strict=True)
                if (e, t) == (energy, tone)
            )
            or "—"
            for energy in range(3)
        ]
        for tone in (2, 1, 0)
    ]


def _class_rows(found: CollectionAnalysis) -> list[list[Any]]:
    """Energy and tone of each class, loudest first."""
    places, names = found.places, found.table.classes
    return [
        [
            display_name(names[places.targets[i]]),
            f"{places.energy[i]:.1f}".replace("-", "−"),
            THIRDS[places.by_energy.third[i]],
            f"{places.tone[i]:.0f}",
            THIRDS[places.by_tone.third[i]],
        ]
        for i in np.argsort(-places.energy, kind="stable")
    ]
