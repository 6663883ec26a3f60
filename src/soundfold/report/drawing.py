"""Figure style, palette and file formats shared by all figures, on pages and in papers."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from cycler import cycler
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from soundfold.io.atomic import atomic_file

# Okabe and Ito's colors with a contrast of 3:1 to both white and the dark theme
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D")
# perceptually uniform and readable with color vision deficiency
LOG_MEL_CMAP, COUNT_CMAP = "magma", "Blues"
# placeholder for the text color: near black in files, replaced by currentColor on a page, to follow its theme
FOREGROUND = "#010203"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "text.parse_math": False,  # class names may contain dollar signs
    "pdf.fonttype": 42,  # TrueType: text stays editable for publishers
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"), FOREGROUND),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), FOREGROUND),
    # transparent, so that the page's background shows through
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), "none"),
}
FORMATS = ("pdf", "png", "svg")
# fontTools logs every table of an embedded font at INFO, the level that Hydra enables
logging.getLogger("fontTools").setLevel(logging.WARNING)
_svg_numbers = count()
P = ParamSpec("P")


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """Create an empty figure in the shared style (inches), without pyplot, which would keep every figure in memory."""
    with mpl.rc_context(STYLE):
        return Figure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a drawing function: matplotlib reads the style when artists are created."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


def save_figure(figure: Figure, folder: Path, name: str, formats: Iterable[str] = FORMATS) -> None:
    """Write ``folder/name.<format>`` atomically on a white background; text in SVG becomes outlines."""
    for form in formats:
        with atomic_file(folder / f"{name}.{form}") as stream, mpl.rc_context(STYLE):
            figure.savefig(stream, format=form, dpi=200, facecolor="white", metadata=_undated_metadata(form))


def pixels(figure: Figure) -> np.ndarray:
    """Render a figure on white: uint8 (H, W, 4)."""
    with mpl.rc_context(STYLE):
        figure.set(dpi=150, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def inline_svg(figure: Figure, alt: str, links: Mapping[str, str] | None = None) -> Markup:
    """Return a figure as SVG for a page: text stays text in the page's color, and ids are unique on the page.

    Args:
        alt: text alternative for screen readers.
        links: accessible label of each link in the figure, by its target (``set_url``). With links, the role is
            ``group``: screen readers do not announce the content of an ``img``.
    """
    out = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", dpi=100, transparent=True, metadata=_undated_metadata("svg"))
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace(FOREGROUND, "currentColor")
    # scale with the page: the view box keeps the aspect ratio
    width = re.search(r'width="([\d.]+)pt"', svg)
    svg = re.sub(r'(<svg\b[^>]*?) height="[\d.]+pt"', r"\1", svg, count=1)
    style = f'style="max-width:{float(width[1]) * 4 / 3:.0f}px"' if width else ""
    svg = re.sub(r'(<svg\b[^>]*?) width="[\d.]+pt"', rf"\1 {style}", svg, count=1)
    role = "group" if links else "img"
    svg = svg.replace("<svg ", f'<svg role="{role}" aria-label="{escape(alt)}" ', 1)
    if links:
        # matplotlib's links open a new window
        svg = re.sub(
            r'<a xlink:href="([^"]+)" target="_blank">',
            lambda m: f'<a href="{m[1]}" aria-label="{escape(links[m[1]])}">',
            svg,
        )
    ids, prefix = set(re.findall(r'\bid="([^"]+)"', svg)), f"f{next(_svg_numbers)}-"
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r'(url\(#|href="#)([^")]+)', lambda m: m[1] + (prefix if m[2] in ids else "") + m[2], svg)
    return Markup(svg)


def _undated_metadata(form: str) -> dict[str, Any]:
    """Return metadata without a date, so that the same figure is written as the same bytes."""
    return {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]
