"""Figure of one clip: waveform, log-mel, and optionally a class activation map."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from soundfold.report.drawing import COLORS, FOREGROUND, LOG_MEL_CMAP, new_figure, styled

TICKS_HZ = (100, 500, 1000, 2000, 5000, 10000, 20000)
WAVE_COLUMNS = 400


@styled
def clip_figure(
    wave: np.ndarray | None,
    seconds: float,
    log_mel: np.ndarray,
    band_centers: np.ndarray,
    activation: np.ndarray | None = None,
) -> Figure:
    """Draw the waveform's envelope above the log-mel, on one time axis.

    Args:
        wave: (N,), nominally in [-1, 1]; None omits it.
        seconds: length of the clip.
        log_mel: (M, T), dB.
        band_centers: (M,), Hz.
        activation: (M, T) in [0, 1], drawn as contours at 0.5 and 0.9.
    """
    figure = new_figure(4.2, 2.7 if wave is not None else 2.0, layout=None)
    left, width, bottom = 0.12, 0.865, 0.17
    lower = figure.add_axes((left, bottom, width, (0.70 if wave is not None else 0.97) - bottom))
    _draw_log_mel(lower, seconds, log_mel, band_centers, activation)
    if wave is not None:
        _draw_wave(figure.add_axes((left, 0.74, width, 0.23), sharex=lower), seconds, wave)
    for axes in figure.axes:
        axes.tick_params(colors=FOREGROUND, labelsize=8)
    return figure


def _draw_log_mel(
    axes: Axes, seconds: float, log_mel: np.ndarray, band_centers: np.ndarray, activation: np.ndarray | None
) -> None:
    n_mels = len(log_mel)
    axes.grid(visible=False)
    axes.imshow(log_mel, origin="lower", aspect="auto", cmap=LOG_MEL_CMAP, extent=(0, seconds, 0, n_mels))
    if activation is not None:
        rows, columns = activation.shape
        x, y = (np.arange(columns) + 0.5) / columns * seconds, (np.arange(rows) + 0.5) / rows * n_mels
        axes.contour(x, y, activation, levels=(0.5, 0.9), colors="white", linewidths=(0.9, 1.6))
        if rows > 1 and not np.ptp(activation, axis=0).any():
            # the last feature maps of few mels have one row
            axes.text(
                0.01, 0.97, "activation over time only", transform=axes.transAxes, va="top", fontsize=7, color="w"
            )
    ticks = [hz for hz in TICKS_HZ if band_centers[0] <= hz <= band_centers[-1]]
    axes.set_yticks(np.interp(ticks, band_centers, np.arange(n_mels) + 0.5))
    axes.set_yticklabels([f"{hz // 1000}k" if hz >= 1000 else str(hz) for hz in ticks])
    axes.set_xlabel("time, s", labelpad=0)
    axes.set_ylabel("frequency, Hz", labelpad=0)
    axes.set_xlim(0, seconds)


def _draw_wave(axes: Axes, seconds: float, wave: np.ndarray) -> None:
    columns = np.array_split(wave, min(WAVE_COLUMNS, len(wave)))
    times = (np.arange(len(columns)) + 0.5) / len(columns) * seconds
    axes.fill_between(times, [c.min() for c in columns], [c.max() for c in columns], color=COLORS[0])
    peak = max(float(np.abs(wave).max()), 1e-4)
    axes.set_ylim(-peak, peak)
    axes.set_yticks([0], [""])
    axes.text(0.995, 0.97, f"peak {peak:.2g}", transform=axes.transAxes, ha="right", va="top", fontsize=7)
    axes.grid(visible=False)
    axes.tick_params(labelbottom=False, length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
