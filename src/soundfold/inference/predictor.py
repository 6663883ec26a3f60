"""A trained model, or the average of several, that says what a recording sounds like."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from soundfold.data.resampling import resample_blocks
from soundfold.data.store import to_int16
from soundfold.errors import InputError
from soundfold.features.logmel import LogMel
from soundfold.inference.fold_models import FoldModel, read_models
from soundfold.inference.scoring import rebuild_scorer
from soundfold.inference.streaming import SpectrogramSketch, windows
from soundfold.io.audio import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Recording, to_mono
from soundfold.io.pcm import FULL_SCALE, pcm_to_float

BATCH = 8


@dataclass(frozen=True)
class Prediction:
    """What one recording sounds like.

    Attributes:
        classes: names.
        probabilities: float64 (C,), the mean over windows.
        windows: float64 (W, C), of each window; one where the recording is no longer than a training clip.
        starts, ends: float64 (W,), s, of the windows in the recording.
        seconds: length of the recording.
        calibrated: whether a temperature scaled every model's logits.
        seen: the folds whose model was trained or chosen on this very clip: its probabilities are then no evidence.
        notes: what is to be known beside the figures, in words.
        level, column: log-mel of the whole recording, dB (M, columns), and the seconds of a column; None where it was
            not asked for.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    windows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    seconds: float
    calibrated: bool
    seen: tuple[str, ...]
    notes: tuple[str, ...]
    level: np.ndarray | None = None
    column: float = 0.0

    def top(self, most: int = 5) -> list[tuple[str, float]]:
        """The most probable classes with their probabilities, in descending order."""
        order = np.argsort(-self.probabilities, kind="stable")[:most]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]


class Predictor:
    """Front end, statistics, network and temperature of one or several kept models.

    Several are averaged: the mean of their probabilities, each after its own temperature.

    Args:
        models: see `read_models`.
        device: where they compute.

    Attributes:
        classes: names.
        sample_rate, samples: of a training clip, Hz and its length.
        scorer: see `soundfold.models.scoring.ClipScorer`.
        calibrated: whether every model has a temperature.

    Raises:
        InputError: a model cannot be rebuilt, or the models differ in more than their weights and statistics.
    """

    def __init__(self, models: Sequence[FoldModel], device: torch.device | str = "cpu") -> None:
        self.models, self.device = tuple(models), torch.device(device)
        scorer, sections = rebuild_scorer([model.bundle for model in models])
        self.scorer = scorer.to(self.device)
        self.classes = models[0].bundle.classes
        self.sample_rate = int(sections.data.sample_rate)
        self.samples = round(sections.data.seconds * sections.data.sample_rate)
        self.calibrated = all(model.temperature is not None for model in models)
        # 1 where there is none
        scale = [model.temperature or 1.0 for model in models]
        self.temperatures = torch.tensor(scale, dtype=torch.float64, device=self.device)[:, None, None]

    @classmethod
    def load(cls, path: str | Path, fold: int | str | None = None, device: torch.device | str = "cpu") -> Predictor:
        """A run's finished folds averaged, one of them, or one kept model's file; see `read_models`.

        Raises:
            InputError: there is no such model, or it cannot be read.
        """
        return cls(read_models(Path(path), None if fold is None else str(fold)), device)

    @property
    def seconds(self) -> float:
        """Length of a training clip, and of a window."""
        return self.samples / self.sample_rate

    @property
    def logmel(self) -> LogMel:
        """The models' log-mel, all alike."""
        return self.scorer.logmel

    @property
    def centres(self) -> np.ndarray:
        """(M,), centre frequencies of its bands, Hz."""
        return self.logmel.edges[1:-1].cpu().numpy()

    def probabilities(self, wave: Tensor) -> Tensor:
        """Clips of the training length and rate: int16 (B, samples) -> float64 (B, C), on the CPU."""
        logits = self.scorer(wave.to(self.device)).double()
        return (logits / self.temperatures).softmax(dim=-1).mean(dim=0).cpu()

    def __call__(self, wave: Any, sample_rate: int, hop: float | None = None) -> Prediction:
        """Predict a recording that is at hand as samples.

        Args:
            wave: (samples,), or (samples, channels) as ``soundfile.read`` gives it, which are averaged; floating point
                in [-1, 1] or int16. NumPy array or tensor, of any length: a longer one than the training clips is
                scored in overlapping windows, a shorter one filled up with zeros, as in training.
            sample_rate: Hz.
            hop: seconds from one window to the next; None is half a window.

        Raises:
            InputError: no samples, samples that are not numbers, another type or shape.
        """
        array = np.asarray(wave)
        if array.ndim not in (1, 2) or not (array.dtype == np.int16 or np.issubdtype(array.dtype, np.floating)):
            raise InputError(
                f"The waveform is {array.dtype} {array.shape}; give (samples,) or (samples, channels), floating point "
                "in [-1, 1] or int16."
            )
        if not array.size:
            raise InputError("The waveform holds no samples.")
        if not (MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE and sample_rate == int(sample_rate)):
            raise InputError(
                f"sample_rate={sample_rate} must be a whole number from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz."
            )
        if array.dtype == np.int16:
            array = pcm_to_float(array)
        block = to_mono(array.reshape(len(array), -1), "The waveform", 0, sample_rate)
        return self._over([block], int(sample_rate), hop, None, None)

    def file(
        self,
        path: str | Path,
        hop: float | None = None,
        most_seconds: float | None = None,
        sketch: bool = False,
        progress: Callable[[float, float], None] | None = None,
    ) -> Prediction:
        """Predict a sound file of any format, rate, number of channels and length, in bounded memory.

        Args:
            path: of the file.
            hop: seconds from one window to the next; None is half a window.
            most_seconds: a longer recording is refused.
            sketch: keep the log-mel of a recording that is longer than one window.
            progress: is told the seconds read, and those that the header speaks of.

        Raises:
            InputError: it is no audio, holds no samples or such as are not numbers, or is too long.
        """
        recording = Recording.open(Path(path))
        claimed = recording.header_frames / recording.sample_rate

        def watched() -> Iterator[np.ndarray]:
            came = 0
            for block in recording.blocks():
                came += len(block)
                if most_seconds is not None and came > most_seconds * recording.sample_rate:
                    raise InputError(f"{path} is longer than {most_seconds:g} s. Give a part of it.")
                yield block
                if progress is not None:
                    progress(came / recording.sample_rate, claimed)

        kept = SpectrogramSketch(self.logmel, self.sample_rate) if sketch else None
        return self._over(watched(), recording.sample_rate, hop, kept, claimed)

    def _over(
        self,
        blocks: Iterable[np.ndarray],
        rate: int,
        hop: float | None,
        sketch: SpectrogramSketch | None,
        claimed: float | None,
    ) -> Prediction:
        step = self.hop_samples(hop)
        came, loudest = 0, 0.0

        def quantised() -> Iterator[np.ndarray]:
            nonlocal came, loudest
            for block in resample_blocks(blocks, rate, self.sample_rate):
                came += len(block)
                loudest = max(loudest, float(np.abs(block).max(initial=0)))
                if sketch is not None:
                    sketch.add(block)
                yield to_int16(block, len(block))

        found = windows(quantised(), self.samples, step)
        first = next(found)
        # as the packed store names a clip: what is behind its end does not count
        heard = hashlib.sha256(first[2][: first[1]].tobytes()).hexdigest()
        starts, scored = [], []
        rest = chain([first], found)
        while batch := list(islice(rest, BATCH)):
            starts += [start for start, _, _ in batch]
            scored.append(self.probabilities(torch.from_numpy(np.stack([wave for _, _, wave in batch]))).numpy())
        probabilities = np.concatenate(scored)
        begins = np.array(starts) / self.sample_rate
        seconds = came / self.sample_rate
        seen = tuple(model.fold for model in self.models if heard in model.bundle.seen.hashes)
        level, column = sketch.end() if sketch is not None and len(starts) > 1 else (None, 0.0)
        return Prediction(
            self.classes,
            probabilities.mean(axis=0),
            probabilities,
            begins,
            np.minimum(begins + self.seconds, seconds),
            seconds,
            self.calibrated,
            seen,
            tuple(self._notes(rate, seconds, loudest, seen, claimed)),
            level,
            column,
        )

    def hop_samples(self, hop: float | None) -> int:
        """Samples from one window to the next, for seconds; None is half a window.

        Raises:
            InputError: windows would not move, or leave gaps.
        """
        # nan is neither, and infinity no number of samples
        samples = self.samples // 2 if hop is None else round(hop * self.sample_rate) if 0 < hop <= self.seconds else 0
        if not samples:
            raise InputError(
                f"A hop of {hop:g} s must be above 0 and at most the window's {self.seconds:g} s: more would leave "
                "parts of the recording unheard."
            )
        return samples

    def _notes(
        self, rate: int, seconds: float, loudest: float, seen: tuple[str, ...], claimed: float | None
    ) -> Iterator[str]:
        if seen:
            which = "the model" if len(self.models) == 1 else f"{len(seen)} of {len(self.models)} models"
            yield f"{which} met this very clip in training, so the probabilities are no evidence of skill"
        bands = self.centres
        if missing := int((bands > rate / 2).sum()):
            yield (
                f"sampled at {rate} Hz, so {missing} of the {len(bands)} mel bands that the model was trained on, "
                f"those above {rate // 2} Hz, are empty"
            )
        if loudest < 0.5 / FULL_SCALE:
            yield "digital silence"
        # decoding and resampling overshoot full scale a little; this is another scale
        elif loudest > 1.5:
            yield f"far above full scale (peak {loudest:.3g}), so it was clipped"
        if seconds < self.seconds:
            yield f"shorter than the training clips, so filled up with silence to {self.seconds:g} s"
        if claimed is not None and claimed - seconds > 0.1:
            yield f"breaks off: its header speaks of {claimed:,.1f} s"
