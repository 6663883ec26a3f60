"""Most confident mistakes of a run, with audio, spectrogram and class activation map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.figure import Figure

from soundfold.data import store
from soundfold.data.attribution import Attribution, attribution, read_attributions
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.metrics import probabilities
from soundfold.experiment import build
from soundfold.experiment.model_bundle import WEIGHTS, ModelBundle
from soundfold.features.resynthesis import weight_sound
from soundfold.io.pcm import pcm_to_float
from soundfold.models.scoring import ClipScorer
from soundfold.report.clip_figure import clip_figure
from soundfold.report.drawing import inline_svg
from soundfold.report.page import audio_uri
from soundfold.report.run_audio import RunAudio


@dataclass(frozen=True)
class Mistake:
    """A misclassified clip.

    Attributes:
        filename, fold, true, predicted: file, fold and class names.
        confidence: probability of the predicted class.
        picture: waveform, log-mel and class activation as SVG; None without media.
        audio: data URI; None without media or sound.
        heard: data URI of the part that the class activation selects; None without one, or without sound.
        attribution: author of the recording; None without media.
    """

    filename: str
    fold: int
    true: str
    predicted: str
    confidence: float
    picture: Markup | None = None
    audio: str | None = None
    heard: str | None = None
    attribution: Attribution | None = None


def most_confident(run: RunResult, limit: int) -> np.ndarray:
    """Return indices of up to ``limit`` mistakes, most confident first, each clip once (repeats may share clips)."""
    confidence = probabilities(run.logits).max(axis=1)
    mistakes: dict[str, int] = {}
    for i in np.argsort(-confidence, kind="stable"):
        if not run.correct[i]:
            mistakes.setdefault(run.clips[i][1], i)
    return np.array(list(mistakes.values())[:limit], dtype=np.int64)


def list_mistakes(run: RunResult, limit: int) -> list[Mistake]:
    """Return up to ``limit`` mistakes without media, most confident first."""
    confidence = probabilities(run.logits).max(axis=1)
    classes = run.total.classes
    return [
        Mistake(run.clips[i][1], run.clips[i][0], classes[run.targets[i]], classes[run.predictions[i]], confidence[i])
        for i in most_confident(run, limit)
    ]


@dataclass(frozen=True)
class MistakeMedia:
    """Audio and picture of a mistake.

    Attributes:
        samples: int16 (N,), without the zero padding of a short clip.
        heard: int16 (N,), the samples weighted by the class activation; None without one.
        sample_rate: Hz.
        picture: waveform, log-mel and class activation; without it if the fold saved no weights, or its network has
            no maps over frequency and time.
        attribution: author of the recording.
    """

    samples: np.ndarray
    heard: np.ndarray | None
    sample_rate: int
    picture: Figure
    attribution: Attribution


def render_mistakes(folder: Path, run: RunResult, limit: int) -> Iterator[tuple[Mistake, MistakeMedia]]:
    """Yield the mistakes of `list_mistakes` with their media.

    Args:
        folder: folder of the run. Pictures have no class activation in folds without saved weights.

    Raises:
        InputError: the audio files are no longer at ``data.root``, a name leads out of it, a model cannot be read, or
            the stored configuration is invalid.
    """
    clips = RunAudio(folder, run)
    attributions = read_attributions(clips.root)
    scorers: dict[int, ClipScorer | None] = {}
    logmel = build.logmel(clips.cfg)
    band_centers = logmel.edges[1:-1].numpy()
    for mistake, i in zip(list_mistakes(run, limit), most_confident(run, limit), strict=True):
        if mistake.fold not in scorers:
            weights = folder / f"fold{mistake.fold}" / WEIGHTS
            scorers[mistake.fold] = _load_scorer(weights) if weights.is_file() else None
        scorer = scorers[mistake.fold]
        pcm, length = clips.read(mistake.filename)
        wave = pcm_to_float(torch.from_numpy(pcm))
        log_mel = logmel(wave[None])
        cam = None if scorer is None else scorer.activation(log_mel, int(run.predictions[i]))
        activation = None if cam is None else cam.numpy()
        picture = clip_figure(wave.numpy(), clips.seconds, log_mel[0, 0].numpy(), band_centers, activation)
        heard = None if cam is None else store.to_int16(weight_sound(wave, cam, logmel).numpy(), length)
        author = attribution(mistake.filename, run.sources[i], attributions)
        yield mistake, MistakeMedia(pcm[:length], heard, clips.sample_rate, picture, author)


def _load_scorer(weights: Path) -> ClipScorer:
    front_end, network = ModelBundle.load(weights).rebuild()
    return ClipScorer([front_end], [network])


def mistake_cards(folder: Path, run: RunResult, limit: int, audio: bool) -> list[Mistake]:
    """Return the mistakes for a page, with their pictures and, if ``audio``, sound; see `render_mistakes`."""
    return [
        replace(
            mistake,
            picture=inline_svg(
                media.picture,
                f"Waveform and log-mel of {mistake.filename}, {mistake.true}, predicted as {mistake.predicted}",
            ),
            audio=audio_uri(media.samples, media.sample_rate) if audio else None,
            heard=audio_uri(media.heard, media.sample_rate) if audio and media.heard is not None else None,
            attribution=media.attribution,
        )
        for mistake, media in render_mistakes(folder, run, limit)
    ]
