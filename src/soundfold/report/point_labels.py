"""Labels beside the points of a scatter plot, placed to avoid overlaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

GAP = 5.0  # between a point and its label, points
# (horizontal, vertical) direction from the point, in order of preference: clockwise from the right
POSITIONS = ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
ALIGN_X = {1: "left", 0: "center", -1: "right"}
ALIGN_Y = {1: "bottom", 0: "center", -1: "top"}


def label_points(axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], size: float = 8.0) -> None:
    """Write each point's name at the position around it that overlaps points and earlier labels least.

    The limits of the axes must be final.

    Args:
        size: font size, points.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    points = axes.transData.transform(np.column_stack([x, y]))
    obstacles = [Bbox.from_bounds(px - 4 * scale, py - 4 * scale, 8 * scale, 8 * scale) for px, py in points]
    frame = axes.get_window_extent()
    for i, name in enumerate(names):
        # a sans-serif letter is about 0.6 of the font size wide
        width, height = 0.6 * size * len(name) * scale, 1.2 * size * scale
        candidates = []
        for dx, dy in POSITIONS:
            left = points[i, 0] + dx * GAP * scale + {1: 0.0, 0: -width / 2, -1: -width}[dx]
            bottom = points[i, 1] + dy * (GAP * scale if dx == 0 else 0) + (dy - 1) * height / 2
            box = Bbox.from_bounds(left, bottom, width, height)
            covered = sum(_overlap(box, other) for k, other in enumerate(obstacles) if k != i)
            outside = width * height - _overlap(box, frame)
            candidates.append((covered + outside, dx, dy, box))
        _, dx, dy, box = min(candidates, key=lambda candidate: candidate[0])
        obstacles.append(box)
        axes.annotate(
            name,
            (x[i], y[i]),
            xytext=(dx * GAP, dy * (GAP if dx == 0 else size / 2)),
            textcoords="offset points",
            ha=ALIGN_X[dx],
            va=ALIGN_Y[dy],
            fontsize=size,
        )


def _overlap(a: Bbox, b: Bbox) -> float:
    """Return the area of the intersection, square pixels."""
    intersection = Bbox.intersection(a, b)
    return 0.0 if intersection is None else intersection.width * intersection.height
