"""What a long recording sounds like over time, as files: CSV, picture, Audacity's label track."""

from __future__ import annotations

import csv
import io
from itertools import pairwise
from pathlib import Path

import numpy as np

from soundfold.errors import InputError
from soundfold.inference.predictor import Prediction
from soundfold.io.atomic import write_text


def timeline_csv(prediction: Prediction) -> str:
    """A row per window: start and end, s, the most probable class, its probability, then that of every class."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["start", "end", "prediction", "probability", *(f"p_{name}" for name in prediction.classes)])
    for start, end, row in zip(prediction.starts, prediction.ends, prediction.windows, strict=True):
        best = int(row.argmax())
        values = [f"{value:.6f}" for value in (row[best], *row)]
        writer.writerow([f"{start:.3f}", f"{end:.3f}", prediction.classes[best], *values])
    return out.getvalue()


def labels(prediction: Prediction) -> list[tuple[float, float, str]]:
    """Stretches of one most probable class: (start, end, class), s, without gaps.

    Windows overlap, so each speaks for the time that is nearer to its centre than to any other's.
    """
    centres = (prediction.starts + prediction.ends) / 2
    bounds = [0.0, *((centres[1:] + centres[:-1]) / 2), prediction.seconds]
    best = prediction.windows.argmax(axis=1)
    changes = [0, *(np.flatnonzero(np.diff(best)) + 1), len(best)]
    return [(float(bounds[a]), float(bounds[b]), prediction.classes[best[a]]) for a, b in pairwise(changes)]


def audacity(prediction: Prediction) -> str:
    """A label track: start, end and class between tabs, s. Source: Audacity manual, Importing and Exporting Labels."""
    return "".join(f"{start:.6f}\t{end:.6f}\t{' '.join(name.split())}\n" for start, end, name in labels(prediction))


def write_timeline(prediction: Prediction, centres: np.ndarray, folder: Path, name: str) -> list[Path]:
    """Write ``name.csv``, ``name.png`` and ``name.txt`` (Audacity's labels) to a folder, each whole or not at all.

    Args:
        prediction: with its log-mel.
        centres: (M,), centre frequencies of the bands, Hz.

    Raises:
        InputError: the folder cannot be written.
    """
    # imported here: drawing takes a second to import
    from soundfold.inference.timeline_figure import timeline_figure
    from soundfold.report.drawing import save_figure

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{name}.csv", timeline_csv(prediction))
        write_text(folder / f"{name}.txt", audacity(prediction))
        save_figure(timeline_figure(prediction, centres), folder, name, ("png",))
    except OSError as error:
        raise InputError(f"The timeline cannot be written to {folder}: {error}. Give --timelines=DIRECTORY.") from error
    return [folder / f"{name}.{suffix}" for suffix in ("csv", "png", "txt")]
