"""Draw a long recording: its log-mel above the class probabilities over time."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from soundfold.inference.prediction import Prediction
from soundfold.report.clip_figure import TICKS_HZ
from soundfold.report.drawing import COLORS, FOREGROUND, LOG_MEL_CMAP, MARKERS, new_figure, styled

# drawn in any case, one per distinguishable color
MIN_CLASSES = len(COLORS)
LINE_STYLES = ("-", "--", ":", "-.")


@styled
def timeline_figure(prediction: Prediction, band_centers: np.ndarray, width: float = 8.0) -> Figure:
    """Draw the log-mel and class probabilities on one time axis.

    The curves are those of every class that is the most probable one of a window, and at least of four classes.

    Args:
        prediction: with its log-mel.
        band_centers: (M,), Hz.
        width: inches; a narrow figure is readable on a phone.
    """
    log_mel_db = prediction.log_mel_db
    assert log_mel_db is not None
    figure = new_figure(width, 4.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.1))
    n_bands, n_columns = log_mel_db.shape
    extent = (0, n_columns * prediction.seconds_per_column, 0, n_bands)
    upper.imshow(log_mel_db, origin="lower", aspect="auto", cmap=LOG_MEL_CMAP, extent=extent)
    ticks = [hz for hz in TICKS_HZ if band_centers[0] <= hz <= band_centers[-1]]
    upper.set_yticks(np.interp(ticks, band_centers, np.arange(n_bands) + 0.5))
    upper.set_yticklabels([f"{hz // 1000}k" if hz >= 1000 else str(hz) for hz in ticks])
    upper.set_ylabel("frequency, Hz")
    upper.grid(visible=False)
    times = (prediction.starts + prediction.ends) / 2
    n_top = np.bincount(prediction.windows.argmax(axis=1), minlength=len(prediction.classes))
    order = np.lexsort((-prediction.probabilities, -n_top))[: max(MIN_CLASSES, np.count_nonzero(n_top))]
    for i, target in enumerate(order):
        # classes that share a color differ in style and marker
        style = (i + i // len(COLORS)) % len(LINE_STYLES)
        lower.plot(
            times,
            prediction.windows[:, target],
            color=COLORS[i % len(COLORS)],
            marker=MARKERS[i % len(MARKERS)] if len(times) <= 60 else None,
            linestyle=LINE_STYLES[style],
            markersize=4,
            label=prediction.classes[target].replace("_", " "),
        )
    lower.set_ylim(-0.02, 1.02)
    lower.set_ylabel("probability" if prediction.calibrated else "probability, uncalibrated")
    lower.set_xlabel("time, s")
    lower.set_xlim(0, prediction.seconds)
    n_legend_columns = MIN_CLASSES if width > 6 else MIN_CLASSES // 2
    lower.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=n_legend_columns, fontsize=8)
    for axes in figure.axes:
        axes.tick_params(colors=FOREGROUND, labelsize=8)
    return figure
