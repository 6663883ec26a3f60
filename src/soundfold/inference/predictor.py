"""Predict recordings with a trained model, or with the average of several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from soundfold.data.store_build import row_hash
from soundfold.errors import ArgumentError, InputError
from soundfold.features.logmel import LogMel
from soundfold.inference.fold_models import FoldModel, read_models
from soundfold.inference.notes import model_notes, recording_notes
from soundfold.inference.novelty import Novelty
from soundfold.inference.prediction import EmbeddedWindows, Prediction
from soundfold.inference.scoring import rebuild_scorer
from soundfold.inference.streaming import SpectrogramSketch, windows
from soundfold.inference.waveforms import PcmStream, to_channels
from soundfold.io.audio import Recording, is_canceled, to_mono

BATCH = 8


class Predictor:
    """Class probabilities of recordings, from the front ends, networks and temperatures of trained models.

    The prediction of several models is the mean of their calibrated probabilities.

    >>> predictor = Predictor.load(folder, fold=1)  # such as "outputs/esc50-1a2b3c4d"
    >>> prediction = predictor(np.zeros(3 * 44100, np.float32), 44100)
    >>> prediction.seconds, len(prediction.classes) == len(prediction.probabilities)
    (3.0, True)
    >>> name, probability = prediction.top()[0]

    Args:
        models: see `read_models`.
        device: of the computation.

    Attributes:
        classes: names.
        sample_rate: of the training clips, Hz.
        samples: length of a training clip.
        scorer: see `soundfold.models.scoring.ClipScorer`.
        calibrated: whether every model has a temperature.
        novelty: by which sounds are reported as unknown, see `read_novelty`; None, the default, reports none.

    Raises:
        InputError: a model cannot be rebuilt, or the models differ in more than weights and statistics.
    """

    def __init__(self, models: Sequence[FoldModel], device: torch.device | str = "cpu") -> None:
        self.models, self.device = tuple(models), torch.device(device)
        scorer, sections = rebuild_scorer([model.bundle for model in models])
        self.scorer = scorer.to(self.device)
        self.classes = models[0].bundle.classes
        self.sample_rate = int(sections.data.sample_rate)
        self.samples = round(sections.data.seconds * sections.data.sample_rate)
        self.calibrated = all(model.temperature is not None for model in models)
        self.novelty: Novelty | None = None
        temperatures = [model.temperature or 1.0 for model in models]
        self.temperatures = torch.tensor(temperatures, dtype=torch.float64, device=self.device)[:, None, None]

    @classmethod
    def load(cls, path: str | Path, fold: int | str | None = None, device: torch.device | str = "cpu") -> Predictor:
        """Load a run's finished folds, one of them, or a single weights file; see `read_models`.

        Raises:
            InputError: the model does not exist or cannot be read.
        """
        return cls(read_models(Path(path), None if fold is None else str(fold)), device)

    @property
    def seconds(self) -> float:
        """Length of a training clip, and of a window."""
        return self.samples / self.sample_rate

    @property
    def logmel(self) -> LogMel:
        """The log-mel that the models share."""
        return self.scorer.logmel

    @property
    def band_centers(self) -> np.ndarray:
        """Center frequencies (M,) of the mel bands, Hz."""
        return self.logmel.edges[1:-1].cpu().numpy()

    def probabilities(self, wave: Tensor) -> Tensor:
        """Predict clips of the training length and rate: int16 (B, samples) -> float64 (B, C), on the CPU.

        Raises:
            InputError: a probability is not finite.
        """
        return self._probabilities(self.scorer(wave.to(self.device)))

    def _probabilities(self, logits: Tensor) -> Tensor:
        logits = logits.double()
        probabilities = (logits / self.temperatures).softmax(dim=-1).mean(dim=0).cpu()
        if not probabilities.isfinite().all():
            raise InputError("The model's outputs are not finite: its weights are damaged. Train the fold again.")
        return probabilities

    def __call__(self, wave: Any, sample_rate: int, hop: float | None = None) -> Prediction:
        """Predict a waveform.

        Recordings longer than a training clip are scored in overlapping windows; shorter ones are padded with zeros, as
        in training.

        Args:
            wave: array or tensor (samples,), or (samples, channels) as ``soundfile.read`` returns it; channels are
                averaged. Floating point in [-1, 1], or int16.
            sample_rate: Hz.
            hop: seconds from one window to the next; None is half a window.

        Raises:
            ArgumentError: the waveform has no samples or an unsupported type or shape, or another argument is invalid.
            InputError: a sample is not finite.
        """
        channels = to_channels(wave, sample_rate)
        block = to_mono(channels, "The waveform", 0, sample_rate)
        return self._predict([block], int(sample_rate), hop, lambda peak: is_canceled(channels, peak))

    def file(
        self,
        path: str | Path,
        hop: float | None = None,
        max_seconds: float | None = None,
        sketch: bool = False,
        progress: Callable[[float, float], None] | None = None,
    ) -> Prediction:
        """Predict a sound file of any format, rate, number of channels and length, in bounded memory.

        Args:
            path: of the file.
            hop: seconds from one window to the next; None is half a window.
            max_seconds: longer recordings are refused.
            sketch: compute the log-mel of a recording that is longer than one window.
            progress: called with the seconds read and the total seconds according to the header.

        Raises:
            InputError: the file is not audio, has no samples or samples that are not finite, or is too long.
        """
        recording = Recording.open(Path(path))
        header_seconds = recording.header_frames / recording.sample_rate

        def blocks() -> Iterator[np.ndarray]:
            n_frames = 0
            for block in recording.blocks():
                n_frames += len(block)
                if max_seconds is not None and n_frames > max_seconds * recording.sample_rate:
                    raise InputError(f"{path} is longer than {max_seconds:g} s. Use a shorter excerpt.")
                yield block
                if progress is not None:
                    progress(n_frames / recording.sample_rate, header_seconds)

        spectrogram = SpectrogramSketch(self.logmel, self.sample_rate) if sketch else None
        return self._predict(blocks(), recording.sample_rate, hop, recording.cancels, spectrogram, header_seconds)

    def embed(self, wave: Any, sample_rate: int, hop: float | None = None, layer: str | None = None) -> np.ndarray:
        """Embed a waveform in windows, as `__call__` scores them: float32 (W, D).

        Args:
            wave, sample_rate, hop: see `__call__`.
            layer: see `soundfold.models.layers.layer_vectors`; None is the input of the last layer.

        Raises:
            ArgumentError: an argument is invalid, or the predictor has several models, whose embeddings differ.
            InputError: a sample is not finite.
        """
        if len(self.models) > 1:
            raise ArgumentError(
                f"The models of folds {', '.join(model.fold for model in self.models)} embed sounds in different "
                "spaces, which cannot be averaged or compared. Load one of them by `fold`."
            )
        block = to_mono(to_channels(wave, sample_rate), "The waveform", 0, sample_rate)
        batches = self.embed_stream(PcmStream([block], int(sample_rate), self.sample_rate), hop, layer)
        return np.concatenate([batch.vectors[0] for batch in batches])

    def embed_stream(
        self, stream: PcmStream, hop: float | None = None, layer: str | None = None
    ) -> Iterator[EmbeddedWindows]:
        """Yield embeddings of a recording's windows, a few at a time, in bounded memory; see `embed`."""
        for batch in self._batches(stream, hop):
            vectors = self.scorer.embeddings(batch.pcm.to(self.device), layer)
            starts = np.array(batch.starts) / self.sample_rate
            ends = np.minimum(starts + self.seconds, stream.n_samples / self.sample_rate)
            yield EmbeddedWindows(starts, ends, tuple(v.cpu().numpy() for v in vectors), batch.seen)

    def hop_samples(self, hop: float | None) -> int:
        """Convert the hop between windows from seconds to samples; None is half a window.

        Raises:
            ArgumentError: the windows would not advance, or would leave gaps.
        """
        if hop is None:
            return self.samples // 2
        # the comparison excludes nan and infinity, which `round` cannot convert
        samples = round(hop * self.sample_rate) if 0 < hop <= self.seconds else 0
        if not samples:
            raise ArgumentError(
                f"`hop`={hop:g} must be above 0 and at most the window's {self.seconds:g} s, so that the windows "
                "cover the recording."
            )
        return samples

    def _predict(
        self,
        blocks: Iterable[np.ndarray],
        sample_rate: int,
        hop: float | None,
        cancels: Callable[[float], bool],
        sketch: SpectrogramSketch | None = None,
        header_seconds: float | None = None,
    ) -> Prediction:
        stream = PcmStream(blocks, sample_rate, self.sample_rate, sketch)
        starts: list[int] = []
        scored, familiar = [], []
        seen: tuple[str, ...] = ()
        for batch in self._batches(stream, hop):
            seen = seen or batch.seen
            starts += batch.starts
            pcm = batch.pcm.to(self.device)
            logits = self.scorer(pcm)
            scored.append(self._probabilities(logits).numpy())
            if self.novelty is not None:
                familiar.append(self._familiarity(self.novelty, pcm, logits))
        probabilities = np.concatenate(scored)
        start_seconds = np.array(starts) / self.sample_rate
        seconds = stream.n_samples / self.sample_rate
        log_mel_db, seconds_per_column = sketch.end() if sketch is not None and len(starts) > 1 else (None, 0.0)
        return Prediction(
            classes=self.classes,
            probabilities=probabilities.mean(axis=0),
            windows=probabilities,
            starts=start_seconds,
            ends=np.minimum(start_seconds + self.seconds, seconds),
            seconds=seconds,
            calibrated=self.calibrated,
            seen_in_training=seen,
            notes=(
                *model_notes(len(self.models), len(seen), self.band_centers, sample_rate),
                *recording_notes(seconds, self.seconds, stream.peak, cancels, header_seconds),
            ),
            log_mel_db=log_mel_db,
            seconds_per_column=seconds_per_column,
            familiarity=np.concatenate(familiar) if familiar else None,
            threshold=None if self.novelty is None else self.novelty.threshold,
        )

    def _familiarity(self, novelty: Novelty, pcm: Tensor, logits: Tensor) -> np.ndarray:
        def embed() -> list[np.ndarray]:
            return [vectors.cpu().numpy() for vectors in self.scorer.embeddings(pcm)]

        return novelty.familiarity(logits.cpu().numpy(), self.temperatures.flatten().tolist(), embed)

    def _batches(self, stream: PcmStream, hop: float | None) -> Iterator[_Batch]:
        """Yield the windows of a recording, a few at a time."""
        pcm_windows = windows(stream, self.samples, self.hop_samples(hop))
        while windows_ := list(islice(pcm_windows, BATCH)):
            starts, lengths, pcm = zip(*windows_, strict=True)
            # the packed store hashes a clip without its padding, too
            seen = () if starts[0] else self._seen(pcm[0][: lengths[0]])
            yield _Batch(starts, torch.from_numpy(np.stack(pcm)), seen)

    def _seen(self, pcm: np.ndarray) -> tuple[str, ...]:
        clip_hash = row_hash(pcm, len(pcm))
        return tuple(model.fold for model in self.models if clip_hash in model.bundle.seen.hashes)


@dataclass(frozen=True)
class _Batch:
    """Some windows of a recording.

    Attributes:
        starts: of each window, samples.
        pcm: int16 (B, samples).
        seen: see `Prediction.seen_in_training`; only in the batch with the recording's first window.
    """

    starts: tuple[int, ...]
    pcm: Tensor
    seen: tuple[str, ...]
