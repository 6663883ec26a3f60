"""Draw deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from soundfold.inference.explanation import ORDERS
from soundfold.models.faithfulness import Curves
from soundfold.report.drawing import COLORS, FOREGROUND, MARKERS, new_figure, styled


@styled
def curves_figure(curves: Mapping[str, Curves], width: float = 6.4) -> Figure:
    """Draw deletion beside insertion, a line per order; the legend has the areas.

    Args:
        curves: by the names of `ORDERS`.
        width: inches.
    """
    figure = new_figure(width, 0.46 * width)
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("deletion", "insertion"), strict=True):
        for number, (name, curve) in enumerate(curves.items()):
            axes.plot(
                curve.fraction,
                getattr(curve, kind),
                color=COLORS[number],
                marker=MARKERS[number],
                markersize=3,
                linestyle="-" if number < 2 else "--",
                label=f"{ORDERS[name]}: {getattr(curve, f'{kind}_area'):.2f}",
            )
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("removed" if kind == "deletion" else "added")
        axes.set_title(f"{kind}, area {'(lower' if kind == 'deletion' else '(higher'} is better)")
        axes.legend(fontsize=7)
        axes.tick_params(colors=FOREGROUND, labelsize=8)
    figure.axes[0].set_ylabel("probability of the class")
    return figure
