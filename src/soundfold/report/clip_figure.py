"""One clip to look at: its waveform over its log-mel, and what a network looked at."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from soundfold.report.drawing import COLOURS, FOREGROUND, LEVELS, new_figure, styled

TICKS_HZ = (100, 500, 1000, 2000, 5000, 10000, 20000)
COLUMNS = 400


@styled
def clip_figure(
    wave: np.ndarray | None,
    seconds: float,
    level: np.ndarray,
    centres: np.ndarray,
    activation: np.ndarray | None = None,
) -> Figure:
    """Waveform, as its least and greatest values, over the log-mel on one time axis.

    Args:
        wave: (N,), nominally in [-1, 1]; None leaves the waveform out.
        seconds: length of the clip.
        level: log-mel (M, T), dB.
        centres: (M,), the bands' centre frequencies, Hz.
        activation: (M, T) in [0, 1], drawn as contours at a half and at nine tenths.
    """
    figure = new_figure(4.2, 2.7 if wave is not None else 2.0, layout=None)
    bottom, left, right = 0.17, 0.12, 0.985
    top = 0.70 if wave is not None else 0.97
    below = figure.add_axes((left, bottom, right - left, top - bottom))
    below.grid(visible=False)
    bands = len(level)
    below.imshow(level, origin="lower", aspect="auto", cmap=LEVELS, extent=(0, seconds, 0, bands))
    if activation is not None:
        places = (
            (np.arange(n) + 0.5) / n * end for n, end in zip(activation.shape[::-1], (seconds, bands), strict=True)
        )
        columns, rows = places
        below.contour(columns, rows, activation, levels=(0.5, 0.9), colors="white", linewidths=(0.9, 1.6))
    shown = [hz for hz in TICKS_HZ if centres[0] <= hz <= centres[-1]]
    below.set_yticks(np.interp(shown, centres, np.arange(bands) + 0.5))
    below.set_yticklabels([f"{hz // 1000}k" if hz >= 1000 else str(hz) for hz in shown])
    below.set_xlabel("s", labelpad=0)
    below.set_ylabel("Hz", labelpad=0)
    below.set_xlim(0, seconds)
    if wave is not None:
        above = figure.add_axes((left, 0.74, right - left, 0.23), sharex=below)
        parts = np.array_split(wave, min(COLUMNS, len(wave)))
        instants = (np.arange(len(parts)) + 0.5) / len(parts) * seconds
        above.fill_between(instants, [p.min() for p in parts], [p.max() for p in parts], color=COLOURS[0])
        greatest = max(float(np.abs(wave).max()), 1e-4)
        above.set_ylim(-greatest, greatest)
        above.set_yticks([0], [""])
        above.text(0.995, 0.97, f"peak {greatest:.2g}", transform=above.transAxes, ha="right", va="top", fontsize=7)
        above.grid(visible=False)
        above.tick_params(labelbottom=False, length=0)
        above.spines[["left", "bottom"]].set_visible(False)
    for axes in figure.axes:
        axes.tick_params(colors=FOREGROUND, labelsize=8)
    return figure
