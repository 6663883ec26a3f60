"""A long recording to look at: its log-mel over the probabilities of its classes."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from soundfold.inference.predictor import Prediction
from soundfold.report.clip_figure import TICKS_HZ
from soundfold.report.drawing import COLORS, FOREGROUND, LOG_MEL_CMAP, MARKERS, new_figure, styled

# more could not be told apart
CLASSES = len(COLORS)


@styled
def timeline_figure(prediction: Prediction, centres: np.ndarray, width: float = 8.0) -> Figure:
    """Log-mel and class probabilities on one time axis.

    Args:
        prediction: with its log-mel; the classes that are the most probable one longest are drawn, at most four.
        centres: (M,), the bands' centre frequencies, Hz.
        width: inches; a narrow one reads on a phone.
    """
    assert prediction.level is not None
    figure = new_figure(width, 4.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.1))
    bands, columns = prediction.level.shape
    end = columns * prediction.column
    above.imshow(prediction.level, origin="lower", aspect="auto", cmap=LOG_MEL_CMAP, extent=(0, end, 0, bands))
    shown = [hz for hz in TICKS_HZ if centres[0] <= hz <= centres[-1]]
    above.set_yticks(np.interp(shown, centres, np.arange(bands) + 0.5))
    above.set_yticklabels([f"{hz // 1000}k" if hz >= 1000 else str(hz) for hz in shown])
    above.set_ylabel("Hz")
    above.grid(visible=False)
    instants = (prediction.starts + prediction.ends) / 2
    won = np.bincount(prediction.windows.argmax(axis=1), minlength=len(prediction.classes))
    order = np.lexsort((-prediction.probabilities, -won))[:CLASSES]
    marked = len(instants) <= 60
    for place, number in enumerate(order):
        below.plot(
            instants,
            prediction.windows[:, number],
            color=COLORS[place],
            marker=MARKERS[place] if marked else None,
            linestyle=("-", "--", ":", "-.")[place],
            markersize=4,
            label=prediction.classes[number].replace("_", " "),
        )
    below.set_ylim(-0.02, 1.02)
    below.set_ylabel("probability" if prediction.calibrated else "probability, uncalibrated")
    below.set_xlabel("s")
    below.set_xlim(0, prediction.seconds)
    below.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=CLASSES if width > 6 else CLASSES // 2, fontsize=8
    )
    for axes in figure.axes:
        axes.tick_params(colors=FOREGROUND, labelsize=8)
    return figure
