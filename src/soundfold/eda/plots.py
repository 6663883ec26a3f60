"""The figures of an exploratory analysis, from its numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from soundfold.data.tables import ClipTable
from soundfold.eda.analysis import ClassPlaces
from soundfold.eda.augmentation_gallery import GalleryItem
from soundfold.eda.checks import FileReport
from soundfold.eda.class_map import THIRDS, Map
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
# colours times markers: more classes cannot be told apart by them
MOST_MARKS = len(COLORS) * len(MARKERS)


@styled
def fold_counts(table: ClipTable) -> Figure:
    """Clips of each class and fold, as numbers on colours."""
    folds = table.fold_numbers
    counts = np.array(
        [[((table.targets == t) & (table.folds == k)).sum() for k in folds] for t in range(_count(table))]
    )
    figure = new_figure(1.9 + 0.5 * len(folds), 0.9 + 0.24 * len(counts))
    axes = figure.subplots()
    axes.grid(visible=False)
    # one colour by its density: the page's ground and text show through, light or dark
    colours = np.tile(to_rgba(COLORS[0]), (*counts.shape, 1))
    colours[..., 3] = 0.45 * counts / max(1, counts.max())
    axes.imshow(colours, aspect="auto")
    for (target, fold), count in np.ndenumerate(counts):
        axes.text(fold, target, str(count), ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(folds)), [str(k) for k in folds])
    axes.set_yticks(range(len(counts)), _names(table), fontsize=8)
    axes.set_xlabel("fold")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@styled
def durations(reports: Sequence[FileReport]) -> Figure:
    """How many files have which duration; the scale of the counts is logarithmic, so that one file shows."""
    seconds = np.array([report.seconds for report in reports if report.fault is None])
    figure = new_figure(4.6, 2.4)
    axes = figure.subplots()
    spread = max(float(np.ptp(seconds)), 0.1)
    edges = np.linspace(seconds.min() - 0.02 * spread, seconds.max() + 0.02 * spread, 61)
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
    """Share of digital silence of each class: (classes, 3), at the start, inside, at the end; most at the top."""
    shares = 100 * np.nan_to_num(silence)
    order = np.argsort(shares.sum(axis=1), kind="stable")
    figure = new_figure(4.8, 0.95 + 0.22 * len(order))
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    left = np.zeros(len(order))
    for part, (label, colour) in enumerate(zip(("at the start", "inside", "at the end"), COLORS, strict=False)):
        axes.barh(range(len(order)), shares[order, part], left=left, height=0.7, color=colour, label=label)
        left += shares[order, part]
    for place, total in enumerate(left):
        axes.text(total, place, f" {total:.1f}", va="center", fontsize=7)
    axes.set_yticks(range(len(order)), [display_name(names[i]) for i in order], fontsize=8)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xlim(0, max(1.0, left.max() * 1.1))
    axes.set_xlabel("digital silence, % of the clips' time")
    figure.legend(loc="outside upper right", ncols=3)
    return figure


@styled
def descriptor_boxes(values: dict[str, np.ndarray], targets: np.ndarray, names: Sequence[str]) -> Figure:
    """Descriptors of the clips by class: median, quartiles, and the rest of the clips but for the farthest.

    Args:
        values: (clips,) for each of `DESCRIPTORS`.
        targets: (clips,).
    """
    known = [t for t in range(len(names)) if (targets == t).any()]
    figure = new_figure(9.2, 2 * (0.75 + 0.2 * len(known)))
    for axes, (name, label) in zip(figure.subplots(2, 3, sharey=True).flat, DESCRIPTORS.items(), strict=True):
        axes.grid(visible=False, axis="y")
        line = {"color": FOREGROUND, "linewidth": 0.8}
        axes.boxplot(
            [values[name][targets == t] for t in known],
            orientation="horizontal",
            widths=0.65,
            patch_artist=True,
            boxprops={"facecolor": COLORS[0], "alpha": 0.55, "linewidth": 0},
            medianprops={"color": FOREGROUND, "linewidth": 1.6},
            whiskerprops=line,
            capprops=line,
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": COLORS[1]},
        )
        axes.set_yticks(range(1, len(known) + 1), [display_name(names[t]) for t in known], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        # sharing an axis, every second panel would turn it back
        axes.set_ylim(len(known) + 0.6, 0.4)
    return figure


@styled
def class_plane(places: ClassPlaces, names: Sequence[str]) -> Figure:
    """The classes by energy and tone, with the borders of the thirds."""
    figure = new_figure(8.0, 5.2)
    axes = figure.subplots()
    axes.margins(0.12, 0.1)
    axes.grid(visible=False)
    axes.plot(places.energy, places.tone, "o", color=COLORS[0], markersize=6)
    for edge in places.by_energy.edges:
        axes.axvline(edge, color=FOREGROUND, linewidth=0.8, linestyle="--", alpha=0.5)
    for edge in places.by_tone.edges:
        axes.axhline(edge, color=FOREGROUND, linewidth=0.8, linestyle="--", alpha=0.5)
    axes.set_xlabel("energy: mean log-mel level, dB")
    axes.set_ylabel("tone: spectral centroid, Hz")
    axes.set_xlim(axes.get_xlim())
    axes.set_ylim(axes.get_ylim())
    for limits, edges, horizontal in (
        (axes.get_xlim(), places.by_energy.edges, True),
        (axes.get_ylim(), places.by_tone.edges, False),
    ):
        for low, high, name in zip((limits[0], *edges), (*edges, limits[1]), THIRDS, strict=True):
            middle = (low + high) / 2
            at = (middle, 1.01) if horizontal else (1.01, middle)
            axes.text(
                *at,
                name,
                transform=axes.get_xaxis_transform() if horizontal else axes.get_yaxis_transform(),
                ha="center" if horizontal else "left",
                va="bottom" if horizontal else "center",
                rotation=0 if horizontal else 270,
                fontsize=8,
                alpha=0.75,
            )
    label_points(axes, places.energy, places.tone, [display_name(names[t]) for t in places.targets])
    return figure


@styled
def clip_map(found: Map, targets: np.ndarray, names: Sequence[str]) -> Figure:
    """Clips in two dimensions, coloured by class; the marks of class ``t`` are one group with the id ``class-<t>``.

    Up to 16 classes have a colour and marker of their own and a legend; more are named at their means.
    """
    known = np.unique(targets)
    few = len(known) <= MOST_MARKS
    figure = new_figure(8.6, 5.4)
    axes = figure.subplots()
    for place, target in enumerate(known):
        own = targets == target
        axes.scatter(
            found.points[own, 0],
            found.points[own, 1],
            s=16,
            color=COLORS[place % len(COLORS)],
            marker=MARKERS[place // len(COLORS) % len(MARKERS)],
            alpha=0.8 if few else 0.45,
            linewidths=0,
            label=display_name(names[target]),
            gid=f"class-{target}",
        )
    for axis, share, nth in zip((axes.xaxis, axes.yaxis), found.explained, ("first", "second"), strict=True):
        axis.set_label_text(f"{nth} component, dB ({100 * share:.0f} % of the variance)")
    if few:
        figure.legend(loc="outside right upper", fontsize=8)
    else:
        axes.set_xlim(axes.get_xlim())
        axes.set_ylim(axes.get_ylim())
        middle = np.stack([found.points[targets == t].mean(axis=0) for t in known])
        label_points(axes, middle[:, 0], middle[:, 1], [display_name(names[t]) for t in known])
    return figure


@styled
def gallery_figure(varied: Sequence[GalleryItem], seconds: Sequence[float]) -> Figure:
    """Log-mels of a clip's variations side by side, on one scale of levels.

    Args:
        seconds: of each.
    """
    columns = 3
    rows = -(-len(varied) // columns)
    figure = new_figure(9.2, 1.75 * rows)
    low, high = (float(f) for f in (min(v.level.min() for v in varied), max(v.level.max() for v in varied)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, one, length in zip(grid.flat, varied, seconds, strict=False):
        image = one.level.numpy()
        extent = (0, length, 0, len(image))
        axes.imshow(image, origin="lower", aspect="auto", cmap=LOG_MEL_CMAP, vmin=low, vmax=high, extent=extent)
        axes.set_title(one.name, fontsize=8)
        axes.grid(visible=False)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
    for axes in grid.flat[len(varied) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("mel band", fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("s", fontsize=8)
    return figure


def _count(table: ClipTable) -> int:
    return len(table.classes)


def _names(table: ClipTable) -> list[str]:
    return [display_name(name) for name in table.classes]
