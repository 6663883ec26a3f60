"""The figures of a report, from arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from soundfold.evaluation.metrics import Calibration
from soundfold.report.drawing import COLOURS, COUNTS, FOREGROUND, MARKERS, new_figure, styled
from soundfold.report.page import display_name

# above this many classes a confusion matrix has no room for the counts of what is right
FEW_CLASSES = 20
DARKEST = -0.3


@styled
def learning_curves(curves: dict[str, list[np.ndarray]], accuracy: float) -> Figure:
    """Loss and accuracy by epoch: mean over folds, and the band from the least fold to the greatest.

    Args:
        curves: see `load_curves`.
        accuracy: of the scored clips, a fraction of 1; a dashed line.
    """
    figure = new_figure(7.4, 2.9)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        factor = 100 if metric == "accuracy" else 1
        for name, colour, dash in (("train", COLOURS[0], "-"), ("val", COLOURS[1], "--")):
            folds = curves.get(f"{name}/{metric}")
            if folds:
                label = "training clips, as varied" if name == "train" else "validation clips"
                _band(axes, [factor * fold for fold in folds], colour, dash, label)
        if metric == "accuracy":
            axes.axhline(100 * accuracy, color=COLOURS[2], linestyle=":", label="scored clips")
            # a legend over the curves would hide them
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        _epochs(axes, metric)
    return figure


@styled
def curves_beside(runs: dict[str, dict[str, list[np.ndarray]]]) -> Figure:
    """Loss and accuracy by epoch of several runs, mean over folds: solid in training, dashed in validation.

    Args:
        runs: by name, see `load_curves`.
    """
    figure = new_figure(7.4, 3.0 + 0.17 * len(runs))
    both = figure.subplots(1, 2)
    for axes, metric in zip(both, ("loss", "accuracy"), strict=True):
        for place, (run, curves) in enumerate(runs.items()):
            colour = COLOURS[place % len(COLOURS)]
            # more runs than colours are told apart by their marks
            marker = MARKERS[place // len(COLOURS) % len(MARKERS)] if len(runs) > len(COLOURS) else None
            for name, dash in (("train", "-"), ("val", "--")):
                folds = curves.get(f"{name}/{metric}")
                if folds:
                    mean = (100 if metric == "accuracy" else 1) * np.nanmean(_rows(folds), axis=0)
                    label = run if name == "train" else None
                    axes.plot(np.arange(1, len(mean) + 1), mean, dash, color=colour, marker=marker, ms=3, label=label)
        _epochs(axes, metric)
    figure.legend(*both[1].get_legend_handles_labels(), loc="outside lower left", fontsize=8)
    return figure


def _epochs(axes: Axes, metric: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy, %" if metric == "accuracy" else "cross entropy, nats")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 102 if metric == "accuracy" else None)


def _rows(folds: Sequence[np.ndarray]) -> np.ndarray:
    """Folds as rows; those that stopped early leave the later epochs to the others."""
    values = np.full((len(folds), max(map(len, folds))), np.nan)
    for row, fold in zip(values, folds, strict=True):
        row[: len(fold)] = fold
    return values


def _band(axes: Axes, folds: Sequence[np.ndarray], colour: str, dash: str, label: str) -> None:
    values = _rows(folds)
    kept = ~np.isnan(values).all(axis=0)
    epochs, values = np.arange(1, values.shape[1] + 1)[kept], values[:, kept]
    marker = "o" if len(epochs) == 1 else None
    axes.plot(epochs, np.nanmean(values, axis=0), dash, color=colour, label=label, marker=marker)
    axes.fill_between(epochs, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=colour, alpha=0.2, lw=0)


@styled
def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], linked: bool = False) -> Figure:
    """Counts, rows are true classes; a cell's colour is its share of the row.

    Args:
        confusion: int (C, C).
        linked: each cell that is not 0 leads to ``#cell-<true>-<predicted>``.
    """
    size = len(classes)
    few = size <= FEW_CLASSES
    cell = 0.42 if few else 0.21
    figure = new_figure(size * cell + 2.3, size * cell + 1.9)
    axes = figure.subplots()
    axes.grid(visible=False)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    # empty cells show the page, and the palette's darkest part is left out: a dark page has that colour
    axes.imshow(
        np.ma.masked_equal(share, 0), cmap=COUNTS, vmin=DARKEST, vmax=1, aspect="equal", interpolation="nearest"
    )
    for true, predicted in zip(*np.nonzero(confusion), strict=True):
        box = Rectangle((predicted - 0.5, true - 0.5), 1, 1, facecolor="none", edgecolor="none")
        # a face of no colour is not to be hit by a pointer
        box.set(facecolor=(0, 0, 0, 0.001), linewidth=0)
        if linked:
            box.set_url(f"#cell-{true}-{predicted}")
        axes.add_patch(box)
        if few or true != predicted:
            axes.annotate(
                str(confusion[true, predicted]),
                (predicted, true),
                ha="center",
                va="center",
                fontsize=8 if few else 6,
                color="black" if share[true, predicted] > 0.4 else "white",
            )
    names = [display_name(name) for name in classes]
    axes.set_xticks(range(size), names, rotation=90, fontsize=8 if few else 7)
    axes.set_yticks(range(size), names, fontsize=8 if few else 7)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for edge in axes.spines.values():
        edge.set_visible(True)
        edge.set_alpha(0.4)
    return figure


@styled
def reliability_diagram(found: Calibration) -> Figure:
    """Accuracy against confidence, over how many clips each confidence has."""
    figure = new_figure(3.9, 4.3)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.linspace(0, 1, len(found.clips) + 1)
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    filled = found.clips > 0
    axes.plot((0, 1), (0, 1), "--", color=FOREGROUND, linewidth=1, alpha=0.6, label="perfectly calibrated")
    axes.bar(middle[filled], found.accuracy[filled], 0.94 * width, color=COLOURS[0], alpha=0.75, label="accuracy")
    axes.plot(found.confidence[filled], found.accuracy[filled], "o", color=COLOURS[1], ms=4, label="at mean confidence")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0, 1)
    axes.set_ylabel("accuracy")
    figure.legend(loc="outside upper left", fontsize=8)
    below.bar(middle, found.clips, 0.94 * width, color=COLOURS[0], alpha=0.75)
    below.set_xlabel("confidence")
    below.set_ylabel("clips")
    below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    return figure


@styled
def class_bars(f1: np.ndarray, classes: Sequence[str]) -> Figure:
    """F1 of each class, the best at the top."""
    order = np.argsort(f1, kind="stable")
    figure = new_figure(5.6, 0.19 * len(classes) + 0.9)
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    axes.hlines(range(len(order)), 0, 100 * f1[order], color=COLOURS[0], linewidth=1, alpha=0.5)
    axes.plot(100 * f1[order], range(len(order)), "o", color=COLOURS[0], markersize=4)
    axes.set_yticks(range(len(order)), [display_name(classes[i]) for i in order], fontsize=8)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(0, 102)
    axes.set_xlabel("F1, %")
    return figure


@styled
def accuracies(
    names: Sequence[str], pooled: np.ndarray, intervals: np.ndarray, folds: Sequence[Sequence[float]], leaky: list[bool]
) -> Figure:
    """Runs beside each other: pooled accuracy with its 95 % interval, and the folds as small dots.

    Args:
        pooled: (runs,), fractions of 1; intervals: (runs, 2).
        folds: per run its folds' accuracies.
        leaky: per run; drawn in another colour and mark.
    """
    figure = new_figure(7.0, 0.5 * len(names) + 1.1)
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    for place in range(len(names)):
        mark = int(leaky[place])
        colour, marker = COLOURS[mark], MARKERS[mark]
        axes.plot(intervals[place] * 100, [place, place], color=colour, linewidth=2)
        axes.plot(100 * pooled[place], place, marker, color=colour, markersize=7)
        axes.plot([100 * fold for fold in folds[place]], [place + 0.24] * len(folds[place]), ".", color=colour, ms=4)
        if leaky[place]:
            place_left = (100 * intervals[place, 0] - 0.4, place)
            axes.annotate("LEAKY ", place_left, ha="right", va="center", fontsize=8, color=colour, weight="bold")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.set_xlabel("accuracy, %: all clips with 95 % interval, folds as dots")
    return figure
