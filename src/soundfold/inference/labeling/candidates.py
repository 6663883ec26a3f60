"""Windows of recordings to label, and their order: the most uncertain or the most diverse first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soundfold.errors import InputError
from soundfold.inference.predictor import Predictor
from soundfold.inference.waveforms import PcmStream
from soundfold.io.audio import Recording
from soundfold.io.console import escape_bytes


@dataclass(frozen=True)
class Candidate:
    """A window of a recording.

    Attributes:
        path: of the recording.
        start, end: s.
        probabilities: float64 (C,).
        vector: embedding by the first model, float32 (D,); None if the order does not need it.
    """

    path: Path
    start: float
    end: float
    probabilities: np.ndarray
    vector: np.ndarray | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Recording and start in milliseconds, by which labels refer to the window."""
        return escape_bytes(str(self.path)), round(1000 * self.start)


def find_candidates(
    predictor: Predictor,
    files: Iterable[Path],
    hop: float,
    *,
    embed: bool,
    skip: Callable[[Path, str], None],
) -> Iterator[Candidate]:
    """Yield the windows of recordings with their probabilities; one window at a time, in bounded memory.

    Args:
        predictor: the models.
        files: recordings.
        hop: seconds from one window to the next.
        embed: also compute `Candidate.vector`.
        skip: called with each file that cannot be read, and the reason.
    """
    for path in files:
        try:
            prediction = predictor.file(path, hop)
            vectors: Iterable[np.ndarray | None] = [None] * len(prediction.windows)
            if embed:
                recording = Recording.open(path)
                stream = PcmStream(recording.blocks(), recording.sample_rate, predictor.sample_rate)
                vectors = np.concatenate([batch.vectors[0] for batch in predictor.embed_stream(stream, hop)])
        except InputError as error:
            skip(path, str(error))
            continue
        for window in zip(prediction.starts, prediction.ends, prediction.windows, vectors, strict=True):
            start, end, probabilities, vector = window
            yield Candidate(path, float(start), float(end), probabilities, vector)


def order_by_margin(candidates: Sequence[Candidate]) -> list[int]:
    """Order by the difference of the two largest probabilities, smallest first.

    T. Scheffer, C. Decomain and S. Wrobel, Active Hidden Markov Models for Information Extraction, 2001.
    """
    top_two = np.sort(np.stack([candidate.probabilities for candidate in candidates]))[:, -2:]
    return np.argsort(top_two[:, 1] - top_two[:, 0], kind="stable").tolist()


def order_by_distance(candidates: Sequence[Candidate], labeled: Sequence[int] = ()) -> list[int]:
    """Order so that each next window is the farthest from all earlier ones by cosine distance of embeddings.

    O. Sener and S. Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018, section
    4.3 (k-center-greedy).

    Args:
        candidates: all windows, with vectors.
        labeled: indices of windows that are labeled; they are first in the order. Without any, the first window is the
            one nearest to the mean.
    """
    vectors = np.stack([np.asarray(candidate.vector, np.float64) for candidate in candidates])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    order = list(labeled) or [int((vectors @ vectors.mean(axis=0)).argmax())]
    nearest = np.full(len(vectors), np.inf)
    for index in order:
        nearest = np.minimum(nearest, 1 - vectors @ vectors[index])
    nearest[order] = -np.inf
    while len(order) < len(vectors):
        index = int(nearest.argmax())
        order.append(index)
        nearest = np.minimum(nearest, 1 - vectors @ vectors[index])
        nearest[order] = -np.inf
    return order
