"""Write the predictions of a long recording over time: CSV, figure and Audacity label track."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from soundfold.errors import InputError
from soundfold.inference.prediction import Prediction
from soundfold.io.atomic import write_text
from soundfold.io.csv_text import csv_text


def timeline_csv(prediction: Prediction) -> str:
    """Return a row per window: start and end in seconds, top class and its probability, probability of every class."""
    names = (f"p_{name}" for name in prediction.classes)
    rows: list[list[object]] = [["start", "end", "prediction", "probability", *names]]
    windows = zip(prediction.starts, prediction.ends, prediction.window_labels, prediction.windows, strict=True)
    for start, end, label, row in windows:
        values = [f"{value:.6f}" for value in (row.max(), *row)]
        rows.append([f"{start:.3f}", f"{end:.3f}", label, *values])
    return csv_text(rows)


def labels(prediction: Prediction) -> list[tuple[float, float, str]]:
    """Merge neighboring windows of the same top class to segments (start, end, class), in seconds, without gaps.

    Windows overlap, so the boundary between two is halfway between their centers.
    """
    centers = (prediction.starts + prediction.ends) / 2
    bounds = [0.0, *((centers[1:] + centers[:-1]) / 2), prediction.seconds]
    names = prediction.window_labels
    changes = [0, *(i for i in range(1, len(names)) if names[i] != names[i - 1]), len(names)]
    return [(float(bounds[a]), float(bounds[b]), names[a]) for a, b in pairwise(changes)]


def audacity(prediction: Prediction) -> str:
    """Return a label track: start, end and class, separated by tabs.

    Source: Audacity manual, Importing and Exporting Labels.
    """
    return "".join(f"{start:.6f}\t{end:.6f}\t{' '.join(name.split())}\n" for start, end, name in labels(prediction))


def write_timeline(prediction: Prediction, band_centers: np.ndarray, folder: Path, name: str) -> list[Path]:
    """Write ``name.csv``, ``name.png`` and ``name.txt`` (Audacity labels) to a folder, each atomically.

    Args:
        prediction: with its log-mel.
        band_centers: (M,), Hz.
        folder: created if missing.
        name: of the files, without suffix.

    Raises:
        InputError: the folder cannot be written.
    """
    # Matplotlib takes a second to import
    from soundfold.inference.timeline_figure import timeline_figure
    from soundfold.report.drawing import save_figure

    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{name}.csv", timeline_csv(prediction))
        write_text(folder / f"{name}.txt", audacity(prediction))
        save_figure(timeline_figure(prediction, band_centers), folder, name, ("png",))
    except OSError as error:
        raise InputError(
            f"The timeline cannot be written to {folder}: {error}. Choose another --timelines=DIRECTORY."
        ) from error
    return [folder / f"{name}.{suffix}" for suffix in ("csv", "png", "txt")]
