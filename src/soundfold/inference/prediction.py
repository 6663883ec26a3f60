"""The results of predicting and of embedding one recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import escape

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Prediction:
    """Class probabilities of one recording and of its windows.

    >>> import numpy as np
    >>> windows = np.array([[0.25, 0.75], [0.75, 0.25], [0.5, 0.5], [1.0, 0.0]])
    >>> starts = np.array([0.0, 2.5, 5.0, 7.5])
    >>> classes = ("dog", "rain")
    >>> prediction = Prediction(classes, windows.mean(axis=0), windows, starts, starts + 5, 12.5, True, (), ())
    >>> prediction.top(1)
    [('dog', 0.625)]

    Attributes:
        classes: names.
        probabilities: float64 (C,), the mean over windows.
        windows: float64 (W, C); one window if the recording is no longer than a training clip.
        starts, ends: float64 (W,), seconds, of the windows in the recording.
        seconds: length of the recording.
        calibrated: whether every model's logits were divided by a fitted temperature.
        seen_in_training: the folds whose model was trained or selected on this clip, so that the probabilities are no
            evidence of skill. A clip is recognized by the SHA-256 of its samples as they were used in training: a copy
            with other samples, such as an MP3, is not, nor a training clip within a longer recording.
        notes: remarks that affect how the probabilities should be read.
        log_mel_db: log-mel of the entire recording (M, columns); None if it was not requested.
        seconds_per_column: of `log_mel_db`.
        familiarity: float64 (W,), the score of novelty of each window; None if none was requested.
        threshold: of the familiarity; below it, a window is unknown, and so is a recording by the mean of its windows.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    windows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    seconds: float
    calibrated: bool
    seen_in_training: tuple[str, ...]
    notes: tuple[str, ...]
    log_mel_db: np.ndarray | None = None
    seconds_per_column: float = 0.0
    familiarity: np.ndarray | None = None
    threshold: float | None = None

    @property
    def mean_familiarity(self) -> float | None:
        """The mean of `familiarity` over windows."""
        return None if self.familiarity is None else float(self.familiarity.mean())

    @property
    def is_unknown(self) -> bool:
        """Whether the recording is unlike the training clips; False without a threshold."""
        score = self.mean_familiarity
        return score is not None and self.threshold is not None and score < self.threshold

    @property
    def label(self) -> str:
        """The most probable class, or `UNKNOWN`."""
        return UNKNOWN if self.is_unknown else self.top(1)[0][0]

    @property
    def window_labels(self) -> list[str]:
        """The most probable class of each window, or `UNKNOWN`."""
        names = [self.classes[best] for best in self.windows.argmax(axis=1)]
        if self.familiarity is None or self.threshold is None:
            return names
        known = self.familiarity >= self.threshold
        return [name if is_known else UNKNOWN for name, is_known in zip(names, known, strict=True)]

    def top(self, n: int = 5) -> list[tuple[str, float]]:
        """Return the ``n`` most probable classes with their probabilities, in descending order."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    def _repr_html_(self) -> str:
        """Return the most probable classes and the notes, for notebooks."""
        rows = "".join(
            f'<tr><td>{escape(name)}</td><td style="text-align: right">{100 * value:.1f}</td></tr>'
            for name, value in self.top()
        )
        title = "probability %" if self.calibrated else "probability %, uncalibrated"
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return (
            f"<p>{self.seconds:.1f} s, {len(self.windows)} window{'s' * (len(self.windows) > 1)}</p>"
            f"<table><tr><th>class</th><th>{title}</th></tr>{rows}</table><ul>{notes}</ul>"
        )


@dataclass(frozen=True)
class EmbeddedWindows:
    """Embeddings of some windows of a recording.

    Attributes:
        starts, ends: float64 (B,), seconds, of the windows in the recording.
        vectors: float32 (B, D), one array per model.
        seen_in_training: see `Prediction`; known for the recording's first window, empty for later ones.
    """

    starts: np.ndarray
    ends: np.ndarray
    vectors: tuple[np.ndarray, ...]
    seen_in_training: tuple[str, ...]
