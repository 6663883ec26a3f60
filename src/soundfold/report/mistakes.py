"""The most confident mistakes of a run, to hear and to see, with what the network looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from soundfold.data import store
from soundfold.data.attribution import Attribution, attribution, read_attributions
from soundfold.data.layouts import LAYOUTS
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.metrics import probabilities
from soundfold.experiment import build
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.io.pcm import pcm_to_float
from soundfold.models.scoring import ClipScorer
from soundfold.report.clip_figure import clip_figure
from soundfold.report.drawing import inline_svg
from soundfold.report.page import audio_uri


@dataclass(frozen=True)
class Mistake:
    """A clip that was got wrong.

    Attributes:
        filename, fold, true, predicted: of the clip.
        confidence: probability of the predicted class.
        picture: waveform, log-mel and class activation; None where the audio is not at hand.
        audio: data URI; None likewise, or where no sound was asked for.
        attribution: whose sound it is.
    """

    filename: str
    fold: int
    true: str
    predicted: str
    confidence: float
    picture: Markup | None = None
    audio: str | None = None
    attribution: Attribution | None = None


def most_confident(run: RunResult, most: int) -> np.ndarray:
    """Indices of up to ``most`` mistakes of a run, the most confident first; a clip that several repeats score once."""
    confidence = probabilities(run.logits).max(axis=1)
    order = [i for i in np.argsort(-confidence, kind="stable") if not run.correct[i]]
    first = {run.clips[i][1]: i for i in reversed(order)}
    return np.array([i for i in order if first[run.clips[i][1]] == i][:most], dtype=np.int64)


def list_mistakes(run: RunResult, most: int) -> list[Mistake]:
    """The mistakes without sound and pictures."""
    confidence = probabilities(run.logits).max(axis=1)
    classes = run.total.classes
    return [
        Mistake(run.clips[i][1], run.clips[i][0], classes[run.targets[i]], classes[run.predictions[i]], confidence[i])
        for i in most_confident(run, most)
    ]


@dataclass(frozen=True)
class MistakeMedia:
    """What a mistake sounds and looks like.

    Attributes:
        samples: int16 (N,), without the silence that fills a short clip.
        sample_rate: Hz.
        picture: waveform, log-mel and, where the fold kept its weights, class activation.
        attribution: whose sound it is.
    """

    samples: np.ndarray
    sample_rate: int
    picture: Figure
    attribution: Attribution


def render_mistakes(folder: Path, run: RunResult, most: int) -> Iterator[tuple[Mistake, MistakeMedia]]:
    """The mistakes of `list_mistakes`, each with its sound and its picture.

    Args:
        folder: of the run; a fold that kept no weights gives no activation.

    Raises:
        InputError: the clips' audio is not where the run found it, or a kept model cannot be read.
    """
    source = folder / f"fold{run.total.folds[0]['fold']}" / "config.yaml"
    cfg = build.stored_sections(OmegaConf.create(run.config), str(source))
    root, rate = Path(cfg.data.root), cfg.data.sample_rate
    frames = round(cfg.data.seconds * rate)
    named = read_attributions(root)
    scorers: dict[int, ClipScorer | None] = {}
    logmel = build.logmel(cfg)
    for mistake, i in zip(list_mistakes(run, most), most_confident(run, most), strict=True):
        if mistake.fold not in scorers:
            weights = folder / f"fold{mistake.fold}" / "checkpoints" / "weights.pt"
            scorers[mistake.fold] = _scorer(weights) if weights.is_file() else None
        scorer = scorers[mistake.fold]
        mono = store.decode(root / LAYOUTS[cfg.data.layout].audio / mistake.filename, rate, frames)
        wave = store.to_int16(mono, frames)
        log_mel = logmel(pcm_to_float(torch.from_numpy(wave)[None]))
        cam = None if scorer is None else scorer.activation(log_mel, int(run.predictions[i])).numpy()
        centres = logmel.edges[1:-1].numpy()
        picture = clip_figure(pcm_to_float(wave), cfg.data.seconds, log_mel[0, 0].numpy(), centres, cam)
        whose = attribution(mistake.filename, run.sources[i], named)
        yield mistake, MistakeMedia(wave[: len(mono)], rate, picture, whose)


def _scorer(weights: Path) -> ClipScorer:
    front_end, network = ModelBundle.load(weights).rebuild()
    return ClipScorer([front_end], [network])


def mistake_cards(folder: Path, run: RunResult, most: int, audio: bool) -> list[Mistake]:
    """The mistakes for a page, with their pictures and, with ``audio``, their sound; see `render_mistakes`."""
    return [
        replace(
            mistake,
            picture=inline_svg(
                evidence.picture,
                f"Waveform and log-mel of {mistake.filename}, {mistake.true}, predicted {mistake.predicted}",
            ),
            audio=audio_uri(evidence.samples, evidence.sample_rate) if audio else None,
            attribution=evidence.attribution,
        )
        for mistake, evidence in render_mistakes(folder, run, most)
    ]
