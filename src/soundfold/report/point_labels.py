"""Names beside the points of a figure, set so that they do not cover each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

GAP = 5.0


def label_points(axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], size: float = 8.0) -> None:
    """Write each point's name at the free one of eight places around it that comes first, clockwise from its right.

    Where none is free, the place that covers least is taken. Limits of the axes must be final.

    Args:
        size: of the type, points.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    pixel = figure.dpi / 72
    points = axes.transData.transform(np.column_stack([x, y]))
    taken = [Bbox.from_bounds(px - 4 * pixel, py - 4 * pixel, 8 * pixel, 8 * pixel) for px, py in points]
    frame = axes.get_window_extent()
    for i, name in enumerate(names):
        # a letter of a sans-serif face is some 0.6 of its size wide
        width, height = 0.6 * size * len(name) * pixel, 1.2 * size * pixel
        options = []
        for across, up in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)):
            left = points[i, 0] + across * GAP * pixel + {1: 0.0, 0: -width / 2, -1: -width}[across]
            bottom = points[i, 1] + up * (GAP * pixel if across == 0 else 0) + (up - 1) * height / 2
            box = Bbox.from_bounds(left, bottom, width, height)
            covered = sum(_shared(box, other) for k, other in enumerate(taken) if k != i)
            outside = width * height - _shared(box, frame)
            options.append((covered + outside, across, up, box))
        _, across, up, box = min(options, key=lambda option: option[0])
        taken.append(box)
        axes.annotate(
            name,
            (x[i], y[i]),
            xytext=(across * GAP, up * (GAP if across == 0 else size / 2)),
            textcoords="offset points",
            ha={1: "left", 0: "center", -1: "right"}[across],
            va={1: "bottom", 0: "center", -1: "top"}[up],
            fontsize=size,
        )


def _shared(one: Bbox, other: Bbox) -> float:
    """Area of the common part, square pixels."""
    common = Bbox.intersection(one, other)
    return 0.0 if common is None else common.width * common.height
