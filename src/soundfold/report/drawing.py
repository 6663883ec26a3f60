"""How every figure looks, on a page and in a paper: one style, one palette, one way to save."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from soundfold.io.atomic import atomic_file

# M. Okabe and K. Ito's colours that have a contrast of 3 to 1 both to white and to the dark page
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D")
# perceptually uniform, and alike to all kinds of colour vision
LEVELS, COUNTS = "magma", "cividis"
# stands for the text's colour: near black in a paper, and on a page whatever its theme says
FOREGROUND = "#010203"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "text.parse_math": False,  # a class may have dollars in its name
    "pdf.fonttype": 42,  # fonts that a publisher can edit, not outlines
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"), FOREGROUND),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), FOREGROUND),
    # a transparent ground, so that the page's shows
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), "none"),
}
FORMATS = ("pdf", "png", "svg")
# embedding a font in a PDF tells every table of the font, where Hydra lets information through
logging.getLogger("fontTools").setLevel(logging.WARNING)
_numbers = count()


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """An empty figure in the house's style, inches; without pyplot, which would keep every figure alive."""
    with mpl.rc_context(STYLE):
        return Figure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]


def styled(draw: Any) -> Any:
    """Decorate a function that draws: artists take the style when they are made."""

    def wrapped(*args: Any, **options: Any) -> Any:
        with mpl.rc_context(STYLE):
            return draw(*args, **options)

    wrapped.__doc__, wrapped.__name__ = draw.__doc__, draw.__name__
    return wrapped


def save_figure(figure: Figure, folder: Path, name: str, formats: Iterable[str] = FORMATS) -> None:
    """Write ``folder/name.<format>`` on white, each whole or not at all; text in SVG becomes outlines."""
    for form in formats:
        with atomic_file(folder / f"{name}.{form}") as stream, mpl.rc_context(STYLE):
            figure.savefig(stream, format=form, dpi=200, facecolor="white", metadata=_undated(form))


def pixels(figure: Figure) -> np.ndarray:
    """A figure on white as an image: uint8 (H, W, 4)."""
    with mpl.rc_context(STYLE):
        figure.set(dpi=150, facecolor="white")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def inline_svg(figure: Figure, alt: str, links: Mapping[str, str] | None = None) -> Markup:
    """A figure as part of a page: text stays text in the page's colour, and ids are unique on the page.

    Args:
        alt: what the figure shows, for those who do not see it.
        links: by the addresses that artists of the figure lead to (``set_url``), what each says to those; an image
            that holds links is a group to them, as an image's parts are not told.
    """
    out = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", dpi=100, transparent=True, metadata=_undated("svg"))
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace(FOREGROUND, "currentColor")
    # the page's width decides; the view box keeps the proportions
    width = re.search(r'width="([\d.]+)pt"', svg)
    svg = re.sub(r'(<svg\b[^>]*?) height="[\d.]+pt"', r"\1", svg, count=1)
    style = f'style="max-width:{float(width[1]) * 4 / 3:.0f}px"' if width else ""
    svg = re.sub(r'(<svg\b[^>]*?) width="[\d.]+pt"', rf"\1 {style}", svg, count=1)
    role = "group" if links else "img"
    svg = svg.replace("<svg ", f'<svg role="{role}" aria-label="{escape(alt)}" ', 1)
    if links:
        # matplotlib would open a new window for each
        svg = re.sub(
            r'<a xlink:href="([^"]+)" target="_blank">',
            lambda m: f'<a href="{m[1]}" aria-label="{escape(links[m[1]])}">',
            svg,
        )
    own, prefix = set(re.findall(r'\bid="([^"]+)"', svg)), f"f{next(_numbers)}-"
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r'(url\(#|href="#)([^")]+)', lambda m: m[1] + (prefix if m[2] in own else "") + m[2], svg)
    return Markup(svg)


def _undated(form: str) -> dict[str, Any]:
    """Metadata without a date: the same figure is the same file."""
    return {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]
