"""Figures of an exploratory analysis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from soundfold.data.tables import ClipTable
from soundfold.eda.analysis import ClassProfiles
from soundfold.eda.augmentation_gallery import GalleryItem
from soundfold.eda.checks import FileReport
from soundfold.eda.class_map import THIRDS, Projection
from soundfold.eda.shortcuts import CUE_SETS, ShortcutAudit
from soundfold.report.drawing import COLORS, FOREGROUND, LOG_MEL_CMAP, MARKERS, new_figure, styled
from soundfold.report.page import display_name
from soundfold.report.point_labels import label_points

DESCRIPTORS = {
    "rms_db": "RMS energy, dBFS",
    "centroid": "spectral centroid, Hz",
    "bandwidth": "bandwidth, Hz",
    "rolloff": "roll-off (85 %), Hz",
    "crossing_rate": "zero-crossing rate",
    "seconds": "duration, s",
}
# more classes have no distinct pair of color and marker
MAX_MARKS = len(COLORS) * len(MARKERS)


@styled
def fold_counts(table: ClipTable) -> Figure:
    """Draw the number of clips of each class and fold as a heat map with numbers."""
    folds = table.fold_numbers
    counts = np.array(
        [[((table.targets == t) & (table.folds == k)).sum() for k in folds] for t in range(len(table.classes))]
    )
    figure = new_figure(1.9 + 0.5 * len(folds), 0.9 + 0.24 * len(counts))
    axes = figure.subplots()
    axes.grid(visible=False)
    # transparency instead of a color map: the background and the numbers show through in light and dark mode
    cells = np.tile(to_rgba(COLORS[0]), (*counts.shape, 1))
    cells[..., 3] = 0.45 * counts / max(1, counts.max())
    axes.imshow(cells, aspect="auto")
    for (target, fold), count in np.ndenumerate(counts):
        axes.text(fold, target, str(count), ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(folds)), [str(k) for k in folds])
    axes.set_yticks(range(len(counts)), [display_name(name) for name in table.classes], fontsize=8)
    axes.set_xlabel("fold")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@styled
def durations(reports: Sequence[FileReport]) -> Figure:
    """Draw a histogram of durations; the count axis is logarithmic, so that a single file is visible."""
    seconds = np.array([report.seconds for report in reports if report.fault is None])
    figure = new_figure(4.6, 2.4)
    axes = figure.subplots()
    margin = 0.02 * max(float(np.ptp(seconds)), 0.1)
    edges = np.linspace(seconds.min() - margin, seconds.max() + margin, 61)
    counts, _ = np.histogram(seconds, edges)
    axes.stairs(counts, edges, fill=True, color=COLORS[0])
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if counts.max() < 20 else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("duration, s")
    axes.set_ylabel("files")
    return figure


@styled
def silence_bars(silence: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw stacked bars of digital silence by class, most silence at the top.

    Args:
        silence: (classes, 3), fractions at the start, inside, and at the end; NaN for a class without usable clips.
        names: (classes,).
    """
    percent = 100 * np.nan_to_num(silence)
    order = np.argsort(percent.sum(axis=1), kind="stable")
    figure = new_figure(4.8, 0.95 + 0.22 * len(order))
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    total = np.zeros(len(order))
    for position, (label, color) in enumerate(zip(("at the start", "inside", "at the end"), COLORS, strict=False)):
        axes.barh(range(len(order)), percent[order, position], left=total, height=0.7, color=color, label=label)
        total += percent[order, position]
    for row, value in enumerate(total):
        axes.text(value, row, f" {value:.1f}", va="center", fontsize=7)
    axes.set_yticks(range(len(order)), [display_name(names[i]) for i in order], fontsize=8)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlim(0, max(1.0, total.max() * 1.1))
    axes.set_xlabel("digital silence, % of clip duration")
    figure.legend(loc="outside upper right", ncols=3)
    return figure


@styled
def shortcut_bars(audit: ShortcutAudit) -> Figure:
    """Draw the recall of each class from file-level cues, one panel per set of cues; dashed lines mark chance."""
    order = sorted(range(len(audit.classes)), key=lambda t: audit.scores["all_cues"].recall[t] or 0)
    figure = new_figure(9.2, 0.95 + 0.22 * len(order))
    panels = figure.subplots(1, len(CUE_SETS), sharey=True)
    for axes, name, color in zip(panels, CUE_SETS, COLORS, strict=False):
        axes.grid(visible=False, axis="y")
        axes.barh(range(len(order)), [100 * (audit.scores[name].recall[t] or 0) for t in order], color=color)
        axes.axvline(100 * audit.chance, color=FOREGROUND, linewidth=0.8, linestyle="--")
        axes.set_yticks(range(len(order)), [display_name(audit.classes[t]) for t in order], fontsize=8)
        axes.set_ylim(-0.6, len(order) - 0.4)
        axes.set_xlim(0, 100)
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel("recall, %")
    return figure


@styled
def descriptor_boxes(values: dict[str, np.ndarray], targets: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw a box plot by class for each descriptor.

    Args:
        values: (clips,) for each of `DESCRIPTORS`.
        targets: (clips,), class of each clip.
        names: of the classes.
    """
    present = [t for t in range(len(names)) if (targets == t).any()]
    figure = new_figure(9.2, 2 * (0.75 + 0.2 * len(present)))
    for axes, (name, label) in zip(figure.subplots(2, 3, sharey=True).flat, DESCRIPTORS.items(), strict=True):
        axes.grid(visible=False, axis="y")
        line = {"color": FOREGROUND, "linewidth": 0.8}
        axes.boxplot(
            [values[name][targets == t] for t in present],
            orientation="horizontal",
            widths=0.65,
            patch_artist=True,
            boxprops={"facecolor": COLORS[0], "alpha": 0.55, "linewidth": 0},
            medianprops={"color": FOREGROUND, "linewidth": 1.6},
            whiskerprops=line,
            capprops=line,
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": COLORS[1]},
        )
        axes.set_yticks(range(1, len(present) + 1), [display_name(names[t]) for t in present], fontsize=8)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        # not invert_yaxis: the panels share the axis, so a second call would undo the first
        axes.set_ylim(len(present) + 0.6, 0.4)
    return figure


@styled
def class_plane(profiles: ClassProfiles, names: Sequence[str]) -> Figure:
    """Draw the classes by energy and spectral centroid, with the edges of the thirds."""
    figure = new_figure(8.0, 5.2)
    axes = figure.subplots()
    axes.margins(0.12, 0.1)
    axes.grid(visible=False)
    axes.plot(profiles.energy, profiles.centroid, "o", color=COLORS[0], markersize=6)
    edge_style: Any = {"color": FOREGROUND, "linewidth": 0.8, "linestyle": "--", "alpha": 0.5}
    for edge in profiles.energy_thirds.edges:
        axes.axvline(edge, **edge_style)
    for edge in profiles.centroid_thirds.edges:
        axes.axhline(edge, **edge_style)
    axes.set_xlabel("energy: mean log-mel, dB")
    axes.set_ylabel("spectral centroid, Hz")
    _freeze_limits(axes)
    text_style: Any = {"fontsize": 8, "alpha": 0.75}
    for name, x in zip(THIRDS, _middles(axes.get_xlim(), profiles.energy_thirds.edges), strict=True):
        axes.text(x, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", **text_style)
    for name, y in zip(THIRDS, _middles(axes.get_ylim(), profiles.centroid_thirds.edges), strict=True):
        axes.text(1.01, y, name, transform=axes.get_yaxis_transform(), va="center", rotation=270, **text_style)
    label_points(axes, profiles.energy, profiles.centroid, [display_name(names[t]) for t in profiles.targets])
    return figure


def _freeze_limits(axes: Axes) -> None:
    """Turn autoscaling off, so that texts do not move the limits."""
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(axes.get_ylim())


def _middles(limits: tuple[float, float], edges: tuple[float, float]) -> list[float]:
    """Return the middle of each interval between the limits and edges of an axis."""
    return [(low + high) / 2 for low, high in pairwise((limits[0], *edges, limits[1]))]


@styled
def clip_map(projection: Projection, targets: np.ndarray, names: Sequence[str]) -> Figure:
    """Draw the clips on two principal components, colored by class.

    The marks of class ``t`` are one SVG group with the id ``class-<t>``. Up to 16 classes differ in color and marker
    and have a legend; more classes are labeled at their means.
    """
    present = np.unique(targets)
    distinct = len(present) <= MAX_MARKS
    figure = new_figure(8.6, 5.4)
    axes = figure.subplots()
    for index, target in enumerate(present):
        points = projection.points[targets == target]
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=16,
            color=COLORS[index % len(COLORS)],
            marker=MARKERS[index // len(COLORS) % len(MARKERS)],
            alpha=0.8 if distinct else 0.45,
            linewidths=0,
            label=display_name(names[target]),
            gid=f"class-{target}",
        )
    for axis, explained, nth in zip((axes.xaxis, axes.yaxis), projection.explained, ("first", "second"), strict=True):
        axis.set_label_text(f"{nth} principal component, dB ({100 * explained:.0f} % of the variance)")
    if distinct:
        figure.legend(loc="outside right upper", fontsize=8)
    else:
        _freeze_limits(axes)
        means = np.stack([projection.points[targets == t].mean(axis=0) for t in present])
        label_points(axes, means[:, 0], means[:, 1], [display_name(names[t]) for t in present])
    return figure


@styled
def gallery_figure(items: Sequence[GalleryItem], seconds: Sequence[float]) -> Figure:
    """Draw the log-mels of an augmentation gallery in a grid, on one color scale.

    Args:
        items: augmented versions of one clip.
        seconds: duration of each.
    """
    n_columns = 3
    n_rows = -(-len(items) // n_columns)
    figure = new_figure(9.2, 1.75 * n_rows)
    low, high = min(float(i.log_mel.min()) for i in items), max(float(i.log_mel.max()) for i in items)
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes, item, duration in zip(grid.flat, items, seconds, strict=False):
        image = item.log_mel.numpy()
        extent = (0, duration, 0, len(image))
        axes.imshow(image, origin="lower", aspect="auto", cmap=LOG_MEL_CMAP, vmin=low, vmax=high, extent=extent)
        axes.set_title(item.name, fontsize=8)
        axes.grid(visible=False)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
    for axes in grid.flat[len(items) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("mel band", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("time, s", fontsize=8)
    return figure
