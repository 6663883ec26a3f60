"""Figures of run and comparison pages, drawn from arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from soundfold.evaluation.metrics import Calibration
from soundfold.report.drawing import COLORS, COUNT_CMAP, FOREGROUND, MARKERS, new_figure, styled
from soundfold.report.page import display_name

# with more classes, the confusion matrix has no room for the counts on its diagonal
MAX_CLASSES_WITH_COUNTS = 20


@styled
def learning_curves(curves: dict[str, list[np.ndarray]], accuracy: float, n_classes: int) -> Figure:
    """Plot loss and accuracy by epoch: mean over folds, with a band from minimum to maximum.

    Args:
        curves: see `load_curves`.
        accuracy: accuracy on the scored clips, in [0, 1], drawn as a dotted line.
        n_classes: of the run, for the limit of the loss axis.
    """
    figure = new_figure(7.4, 2.9)
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for name, color, style, label in (
            ("train", COLORS[0], "-", "training clips, augmented"),
            ("val", COLORS[1], "--", "validation clips"),
        ):
            if folds := curves.get(f"{name}/{metric}"):
                _band(axes, _scale(metric) * _stack(folds), color, style, label)
        if metric == "accuracy":
            axes.axhline(100 * accuracy, color=COLORS[2], linestyle=":", label="scored clips")
            # outside, where it hides no curve
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        _format_epochs(axes, metric, n_classes)
    return figure


@styled
def learning_curves_of_runs(runs: dict[str, dict[str, list[np.ndarray]]], n_classes: int) -> Figure:
    """Plot loss and accuracy by epoch of several runs, mean over folds: training solid, validation dashed.

    Args:
        runs: name -> curves, see `load_curves`.
        n_classes: of the run with the most classes.
    """
    figure = new_figure(7.4, 3.0 + 0.17 * len(runs))
    both = figure.subplots(1, 2)
    for axes, metric in zip(both, ("loss", "accuracy"), strict=True):
        for i, (run, curves) in enumerate(runs.items()):
            color = COLORS[i % len(COLORS)]
            # markers distinguish runs that share a color
            marker = MARKERS[i // len(COLORS) % len(MARKERS)] if len(runs) > len(COLORS) else None
            for name, style in (("train", "-"), ("val", "--")):
                if folds := curves.get(f"{name}/{metric}"):
                    mean = _scale(metric) * np.nanmean(_stack(folds), axis=0)
                    label = run if name == "train" else None
                    axes.plot(np.arange(1, len(mean) + 1), mean, style, color=color, marker=marker, ms=3, label=label)
        _format_epochs(axes, metric, n_classes)
    figure.legend(*both[1].get_legend_handles_labels(), loc="outside lower left", fontsize=8)
    return figure


def _scale(metric: str) -> int:
    return 100 if metric == "accuracy" else 1


def _format_epochs(axes: Axes, metric: str, n_classes: int) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy, %" if metric == "accuracy" else "cross entropy, nats")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 102 if metric == "accuracy" else _loss_limit(axes, n_classes))


def _loss_limit(axes: Axes, n_classes: int) -> float | None:
    """Return the upper end of the loss axis, without values far above chance, which would flatten all others."""
    limit = 2 * np.log(n_classes) + 2
    highest = axes.dataLim.y1
    if not np.isfinite(highest) or highest <= limit:
        return None
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    top = 1.1 * float(max(values[values <= limit], default=limit))
    axes.text(0.99, 0.98, f"cut off: up to {highest:.3g}", transform=axes.transAxes, ha="right", va="top", fontsize=8)
    return top


def _stack(folds: Sequence[np.ndarray]) -> np.ndarray:
    """Stack folds as rows; folds that stopped early are padded with NaN."""
    values = np.full((len(folds), max(map(len, folds))), np.nan)
    for row, fold in zip(values, folds, strict=True):
        row[: len(fold)] = fold
    return values


def _band(axes: Axes, values: np.ndarray, color: str, style: str, label: str) -> None:
    logged = ~np.isnan(values).all(axis=0)
    epochs, values = np.arange(1, values.shape[1] + 1)[logged], values[:, logged]
    marker = "o" if len(epochs) == 1 else None
    axes.plot(epochs, np.nanmean(values, axis=0), style, color=color, label=label, marker=marker)
    axes.fill_between(epochs, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=color, alpha=0.2, lw=0)


@styled
def confusion_matrix(confusion: np.ndarray, classes: Sequence[str], linked: bool = False) -> Figure:
    """Draw counts, rows are true classes; a cell's color is its share of the row, from white to dark.

    Args:
        confusion: int (C, C).
        linked: link each nonzero cell to ``#cell-<true>-<predicted>``.
    """
    size = len(classes)
    small = size <= MAX_CLASSES_WITH_COUNTS
    cell, fontsize = (0.42, 8) if small else (0.21, 7)
    figure = new_figure(size * cell + 3.1, size * cell + 1.9)
    axes = figure.subplots()
    axes.grid(visible=False)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    # white in both themes of a page, so that a darker cell is always a larger share
    image = axes.imshow(100 * share, cmap=COUNT_CMAP, vmin=0, vmax=100, aspect="equal", interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, label="share of the true class, %")
    bar.outline.set_visible(False)
    for true, predicted in zip(*np.nonzero(confusion), strict=True):
        # nearly transparent: a patch without a face color does not receive clicks
        box = Rectangle((predicted - 0.5, true - 0.5), 1, 1, facecolor=(0, 0, 0, 0.001), linewidth=0)
        if linked:
            box.set_url(f"#cell-{true}-{predicted}")
        axes.add_patch(box)
        if small or true != predicted:
            axes.annotate(
                str(confusion[true, predicted]),
                (predicted, true),
                ha="center",
                va="center",
                fontsize=8 if small else 6,
                color="white" if share[true, predicted] > 0.5 else "black",
            )
    names = [display_name(name) for name in classes]
    axes.set_xticks(range(size), names, rotation=90, fontsize=fontsize)
    axes.set_yticks(range(size), names, fontsize=fontsize)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for edge in axes.spines.values():
        edge.set_visible(True)
        edge.set_alpha(0.4)
    return figure


@styled
def reliability_diagram(calibration: Calibration) -> Figure:
    """Plot accuracy against confidence, above the number of clips per confidence bin."""
    figure = new_figure(3.9, 4.3)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    edges = np.linspace(0, 1, len(calibration.clips) + 1)
    centers, width = (edges[1:] + edges[:-1]) / 2, 0.94 * (edges[1] - edges[0])
    filled = calibration.clips > 0
    accuracy, confidence = calibration.accuracy[filled], calibration.confidence[filled]
    upper.plot((0, 1), (0, 1), "--", color=FOREGROUND, linewidth=1, alpha=0.6, label="perfectly calibrated")
    upper.bar(centers[filled], accuracy, width, color=COLORS[0], alpha=0.75, label="accuracy")
    upper.plot(confidence, accuracy, "o", color=COLORS[1], ms=4, label="at mean confidence")
    upper.set_ylim(0, 1.02)
    upper.set_xlim(0, 1)
    upper.set_ylabel("accuracy")
    figure.legend(loc="outside upper left", fontsize=8)
    lower.bar(centers, calibration.clips, width, color=COLORS[0], alpha=0.75)
    lower.set_xlabel("confidence")
    lower.set_ylabel("clips")
    lower.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    return figure


@styled
def class_bars(f1: np.ndarray, classes: Sequence[str]) -> Figure:
    """Plot F1 of each class, best at the top."""
    order = np.argsort(f1, kind="stable")
    figure = new_figure(5.6, 0.19 * len(classes) + 0.9)
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    axes.hlines(range(len(order)), 0, 100 * f1[order], color=COLORS[0], linewidth=1, alpha=0.5)
    axes.plot(100 * f1[order], range(len(order)), "o", color=COLORS[0], markersize=4)
    axes.set_yticks(range(len(order)), [display_name(classes[i]) for i in order], fontsize=8)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(0, 102)
    axes.set_xlabel("F1, %")
    return figure


@styled
def accuracies(
    names: Sequence[str], pooled: np.ndarray, intervals: np.ndarray, folds: Sequence[Sequence[float]], leaky: list[bool]
) -> Figure:
    """Plot each run's pooled accuracy with its 95 % interval, and its folds as small dots.

    Args:
        names: one per run, top to bottom.
        pooled: (runs,), in [0, 1].
        intervals: (runs, 2).
        folds: accuracies of each run's folds.
        leaky: True for runs to mark as leaky.
    """
    figure = new_figure(7.0, 0.5 * len(names) + 1.1)
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    for y in range(len(names)):
        color, marker = COLORS[leaky[y]], MARKERS[leaky[y]]
        axes.plot(intervals[y] * 100, [y, y], color=color, linewidth=2)
        axes.plot(100 * pooled[y], y, marker, color=color, markersize=7)
        axes.plot([100 * fold for fold in folds[y]], [y + 0.24] * len(folds[y]), ".", color=color, ms=4)
        if leaky[y]:
            left = (100 * intervals[y, 0] - 0.4, y)
            axes.annotate("LEAKY ", left, ha="right", va="center", fontsize=8, color=color, weight="bold")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.6)
    axes.set_xlabel("pooled accuracy, %, with 95 % interval; dots: folds")
    return figure


@styled
def few_shot_curves(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], full: Mapping[str, float]
) -> Figure:
    """Plot accuracy by the number of training clips of a class, with 95 % intervals; dotted lines are all clips.

    Args:
        lines: by probe: clips of a class (n,), accuracies (n,) and intervals (n, 2), in [0, 1].
        full: accuracy of each probe with all training clips.
    """
    figure = new_figure(5.0, 3.4)
    axes = figure.subplots()
    for i, (name, (shots, accuracy, interval)) in enumerate(lines.items()):
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        axes.plot(shots, 100 * accuracy, "-", marker=marker, ms=5, color=color, label=name)
        axes.fill_between(shots, 100 * interval[:, 0], 100 * interval[:, 1], color=color, alpha=0.2, lw=0)
        axes.axhline(100 * full[name], color=color, linestyle=":", linewidth=1)
    ticks = next(iter(lines.values()))[0]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(count) for count in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, 102)
    axes.set_xlabel("training clips of a class (dotted: all)")
    axes.set_ylabel("accuracy, %")
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    return figure
