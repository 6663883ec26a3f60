"""Explain a prediction: maps, the sound that they select, and curves that measure them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from soundfold.data.resampling import resample_blocks
from soundfold.data.store import to_int16
from soundfold.errors import InputError, is_out_of_memory
from soundfold.features.resynthesis import weight_sound
from soundfold.inference.prediction import Prediction
from soundfold.inference.predictor import Predictor
from soundfold.inference.streaming import windows
from soundfold.io.audio import Recording
from soundfold.io.pcm import pcm_to_float
from soundfold.models.faithfulness import Curves, mean_curves, rank_curves
from soundfold.models.occlusion import Score, block_labels, block_means, occlusion
from soundfold.models.scoring import ClipScorer

# by their names in the JSON file; the first two are maps, the others what a map has to beat
ORDERS = {"activation": "class activation", "occlusion": "occlusion", "loudest": "loudest first", "random": "random"}


@dataclass(frozen=True)
class ExplanationOptions:
    """How predictions are explained, and explanations measured.

    Attributes:
        rows, columns: of the blocks that are occluded, removed and added, over frequency and time.
        fill: of a block, see `soundfold.models.occlusion.fill_level`.
        steps: points of a curve, see `soundfold.models.faithfulness.rank_curves`.
        draws: number of random orders, whose curves are averaged.
    """

    rows: int = 8
    columns: int = 16
    fill: str = "mean"
    steps: int = 16
    draws: int = 3


@dataclass(frozen=True)
class Explanation:
    """Why a clip was assigned to a class.

    Attributes:
        target: index of the class.
        probability: of the class, of the entire clip.
        log_mel: (M, T), dB.
        maps: by `ORDERS`, (M, T) in [0, 1]; ``activation`` is missing if the network has no map over time.
        blocks: of each map, the means over its blocks (rows, columns); ``occlusion`` is the drop of the probability.
        curves: by `ORDERS`.
        agreement: Spearman's rank correlation over blocks between class activation and occlusion; None if it is
            undefined.
        heard_map: name of the map that selects the sound.
        heard: int16 (N,), the clip weighted by the map.
        rest: int16 (N,), the clip weighted by one minus the map; the two add up to the clip.
        heard_probability, rest_probability: of the class, given these sounds instead of the clip.
    """

    target: int
    probability: float
    log_mel: np.ndarray
    maps: dict[str, np.ndarray]
    blocks: dict[str, np.ndarray]
    curves: dict[str, Curves]
    agreement: float | None
    heard_map: str
    heard: np.ndarray
    rest: np.ndarray
    heard_probability: float
    rest_probability: float


def explain_clip(
    predictor: Predictor, pcm: np.ndarray, target: int | None = None, options: ExplanationOptions | None = None
) -> Explanation:
    """Explain the prediction of a clip of the training length and rate.

    The clip is scored as a whole, also by models that are tested on crops, so that one map covers it.

    Args:
        predictor: the models; maps and probabilities are means over them.
        pcm: int16 (samples,).
        target: index of the class; None explains the most probable one.
        options: None takes the defaults.

    Raises:
        InputError: the network takes images of one size only, that of the crops.
        ArgumentError: an option is invalid.
    """
    options = options or ExplanationOptions()
    scorer = ClipScorer(predictor.scorer.front_ends, predictor.scorer.networks).eval()
    wave = pcm_to_float(torch.from_numpy(pcm).to(predictor.device))
    log_mel = scorer.logmel(wave[None])
    probabilities = partial(_probabilities, scorer, predictor.temperatures)
    before = _entire_clip(probabilities, log_mel)
    target = int(before.argmax()) if target is None else target

    def score(images: Tensor) -> Tensor:
        return probabilities(images)[:, target]

    bands, frames = log_mel.shape[-2:]
    labels = block_labels(bands, frames, options.rows, options.columns).to(predictor.device)
    drops = occlusion(score, log_mel, labels, options.fill)
    maps = {"occlusion": _scaled(drops)[labels]}
    if (activation := scorer.activation(log_mel, target)) is not None:
        maps = {"activation": activation, **maps}
    ranked = {name: block_means(values, labels) for name, values in maps.items()} | {"occlusion": drops}
    heard_map = next(iter(maps))
    heard = weight_sound(wave, maps[heard_map], scorer.logmel)
    sounds = [to_int16(sound.cpu().numpy(), len(pcm)) for sound in (heard, wave - heard)]
    heard_score, rest_score = (float(score(scorer.logmel(s[None]))) for s in (heard, wave - heard))
    n_columns = int(labels[0].max()) + 1
    return Explanation(
        target=target,
        probability=float(before[0, target]),
        log_mel=log_mel[0, 0].cpu().numpy(),
        maps={name: values.cpu().numpy() for name, values in maps.items()},
        blocks={name: values.reshape(-1, n_columns).cpu().numpy() for name, values in ranked.items()},
        curves=_measure(score, log_mel, labels, ranked, options, _seed(pcm)),
        agreement=_rank_correlation(*ranked.values()) if len(ranked) == 2 else None,
        heard_map=heard_map,
        heard=sounds[0],
        rest=sounds[1],
        heard_probability=heard_score,
        rest_probability=rest_score,
    )


def most_probable_window(
    predictor: Predictor, path: Path, prediction: Prediction, target: int, hop: float | None = None
) -> tuple[int, np.ndarray]:
    """Return number and samples, int16 (samples,), of the window of a recording in which a class is most probable.

    Args:
        path: of the recording.
        prediction: of the recording, with the same ``hop``.
        target: index of the class.
    """
    number = int(prediction.windows[:, target].argmax())
    recording = Recording.open(path)
    resampled = resample_blocks(recording.blocks(), recording.sample_rate, predictor.sample_rate)
    stream = (to_int16(block, len(block)) for block in resampled)
    for index, (_, _, pcm) in enumerate(windows(stream, predictor.samples, predictor.hop_samples(hop))):
        if index == number:
            return number, pcm
    raise InputError(f"{path} became shorter while it was read. Run the command again.")


@torch.inference_mode()
def _probabilities(scorer: ClipScorer, temperatures: Tensor, log_mel: Tensor) -> Tensor:
    """Return the mean calibrated probabilities of log-mels (B, 1, M, T), dB, of entire clips: (B, C)."""
    return (scorer.logits(log_mel).double() / temperatures).softmax(dim=-1).mean(dim=0)


def _entire_clip(probabilities: partial[Tensor], log_mel: Tensor) -> Tensor:
    try:
        return probabilities(log_mel)
    except (RuntimeError, AssertionError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"The network cannot score an entire clip ({str(error).splitlines()[0]}): it takes images of one "
            "size, that of its crops, which an explanation does not use. Explain a model of "
            "crops.seconds=null."
        ) from error


def _measure(
    score: Score,
    log_mel: Tensor,
    labels: Tensor,
    ranked: dict[str, Tensor],
    options: ExplanationOptions,
    seed: int,
) -> dict[str, Curves]:
    """Return the curves of the maps' orders, of loudest first and of random orders."""
    generator = torch.Generator().manual_seed(seed)
    n_blocks = int(labels.max()) + 1
    random = [torch.randperm(n_blocks, generator=generator).to(labels.device) for _ in range(options.draws)]
    curve = partial(rank_curves, score, log_mel, labels, fill=options.fill, steps=options.steps)
    curves = {}
    for name, values in {**ranked, "loudest": block_means(log_mel[0, 0], labels)}.items():
        # blocks of equal values, such as those without activation, are in random order
        order = random[0][values[random[0]].argsort(descending=True, stable=True)]
        curves[name] = curve(order)
    return curves | {"random": mean_curves([curve(order) for order in random])}


def _scaled(drops: Tensor) -> Tensor:
    """Scale drops of a score to a maximum of 1; blocks whose removal raises the score get 0."""
    positive = drops.clamp(min=0)
    return (positive / positive.amax().clamp(min=1e-12)).float()


def _rank_correlation(a: Tensor, b: Tensor) -> float | None:
    # imported here: it takes half a second
    from scipy.stats import spearmanr

    if min(float(values.std()) for values in (a, b)) == 0:
        return None
    return float(spearmanr(a.cpu().numpy(), b.cpu().numpy()).statistic)


def _seed(pcm: np.ndarray) -> int:
    """Return a seed that differs between clips and is the same in each run."""
    return int.from_bytes(hashlib.sha256(pcm.tobytes()).digest()[:7], "big")
