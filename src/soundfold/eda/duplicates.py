"""Near-duplicate clips: the same sound after re-encoding, attenuation or a small delay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from soundfold.features.logmel import LogMel
from soundfold.io.pcm import pcm_to_float

BANDS, HOP_SECONDS, WINDOW_SECONDS, RANGE_DB = 32, 0.01, 0.046, 30.0
MAX_LAG_SECONDS = 0.1
MIN_OVERLAP_SECONDS = 0.4
# dB^2 per frame: the variation of constant bands is rounding error, whose correlation means nothing
MIN_VARIATION = 1e-3
THRESHOLD = 0.93
BLOCK_SIZE = 512


@dataclass(frozen=True)
class Pair:
    """Two similar clips.

    Attributes:
        first, second: indices of the clips, first < second.
        similarity: correlation of the fingerprints, at most 1.
        lag: seconds by which the second clip is delayed.
    """

    first: int
    second: int
    similarity: float
    lag: float


@dataclass(frozen=True)
class Fingerprints:
    """Coarse log-mels of clips.

    Attributes:
        log_mel: float32 (clips, bands, frames), dB.
        n_frames: int64 (clips,), number of frames inside each clip; the frames after them are padding.
    """

    log_mel: Tensor
    n_frames: Tensor


def _no_progress(items: Iterable, total: int) -> Iterable:
    return items


@torch.no_grad()
def fingerprints(
    samples: Iterable[np.ndarray],
    lengths: np.ndarray,
    sample_rate: int,
    progress: Callable[[Iterable, int], Iterable] = _no_progress,
) -> Fingerprints:
    """Compute the fingerprints of a packed store's clips, see `soundfold.data.store.Waveforms`.

    The fingerprint has 32 bands and 10 ms frames, floored 30 dB below the maximum of the clip, because lossy codecs
    mostly change quieter parts.

    Args:
        samples: int16 (N,) of each clip.
        lengths: int64 (clips,), samples of each clip without the zero padding.
        sample_rate: Hz.
        progress: wraps the loop, called with the items and their number.
    """
    window, hop = round(WINDOW_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)
    logmel = LogMel(sample_rate, window, hop, BANDS, 50.0, min(16000.0, sample_rate / 2), top_db=RANGE_DB)
    log_mels = []
    for wave in progress(samples, len(lengths)):
        log_mels.append(logmel(pcm_to_float(torch.from_numpy(np.asarray(wave))[None]))[0, 0])
    # frame t is centered on sample t * hop: count the frames that end before the clip does
    n_frames = torch.from_numpy(np.maximum(0, (lengths - window // 2) // hop + 1))
    return Fingerprints(torch.stack(log_mels), n_frames)


@torch.no_grad()
def near_pairs(
    prints: Fingerprints, threshold: float = THRESHOLD, progress: Callable[[Iterable, int], Iterable] = _no_progress
) -> list[Pair]:
    """Return pairs of clips whose similarity is at least ``threshold`` at some lag of up to 100 ms, most similar first.

    The similarity is the correlation of the fingerprints over the frames that both clips have, after each band's mean
    over these frames is subtracted. The band means describe the timbre, which stationary sounds of one class share; the
    variation around them is specific to a recording.

    Evidence for the threshold of 0.93, measured on ESC-10:

    - Recall: of 100 clips, 99 were detected after Ogg Vorbis at a low bit rate (all but one of them with at least
      0.957), and all after MP3 (at least 0.972), attenuation by 6 dB (1.000) and a delay of 50 ms (0.999). Of clips cut
      to 1 s and padded to 4 s, all except silent ones were detected, except one after Ogg (the others: at least 0.938).
    - Precision: of 79,800 pairs of clips one is reported, with 0.986: two excerpts of one fire whose waveforms
      correlate by 0.967. The next pair, two sneezes, has 0.890.
    - Minimum overlap: the same single pair is reported if all clips are cut to 1 s or 0.4 s. Clips cut to 0.3 s have
      two more, to 0.2 s 38 more and to 0.12 s 122 more, because attack and decay of a single event are similar in many
      clips. Therefore a pair needs an overlap of 0.4 s.

    Limitations: a copy with another sound mixed in, at another speed, or delayed by more than 100 ms is not detected.
    An excerpt may be missed if the original is much louder elsewhere: the first seconds of 100 clips were detected in
    80 of them.

    Args:
        prints: see `fingerprints`; silent clips and clips shorter than 0.4 s are never paired.
        threshold: minimum similarity.
        progress: wraps the loop over blocks of pairs, called with the items and their number.
    """
    # sorted by length, one side of most blocks ends first in all pairs, which halves the work of `_products`
    order = torch.argsort(prints.n_frames, stable=True)
    n_frames = prints.n_frames[order]
    log_mel = prints.log_mel[order]
    log_mel = _subtract_mean(log_mel.mul_(_frame_mask(log_mel, n_frames)), n_frames)
    max_lag = min(round(MAX_LAG_SECONDS / HOP_SECONDS), log_mel.shape[2] - 1)
    # variation[k]: of the clips without their first k frames
    variation = [
        torch.cat([_variation(block[:, :, k:]) for block in log_mel.split(BLOCK_SIZE)]) for k in range(max_lag + 1)
    ]
    starts = range(0, len(log_mel), BLOCK_SIZE)
    blocks = [(slice(a, a + BLOCK_SIZE), slice(b, b + BLOCK_SIZE)) for a in starts for b in starts if a <= b]
    pairs = []
    for a, b in progress(blocks, len(blocks)):
        similarity, lag = _block_similarity(log_mel, n_frames, variation, a, b)
        for i, j in torch.nonzero(similarity >= threshold).tolist():
            if a.start + i < b.start + j:
                first, second, seconds = int(order[a][i]), int(order[b][j]), float(lag[i, j])
                if first > second:
                    first, second, seconds = second, first, -seconds
                pairs.append(Pair(first, second, float(similarity[i, j]), seconds))
    return sorted(pairs, key=lambda pair: -pair.similarity)


def _block_similarity(
    log_mel: Tensor, n_frames: Tensor, variation: list[Tensor], a: slice, b: slice
) -> tuple[Tensor, Tensor]:
    """Return maximum similarity over all lags, and that lag in seconds, of the clips a and b: two (A, B)."""
    total, max_lag = log_mel.shape[2], len(variation) - 1
    min_overlap = round(MIN_OVERLAP_SECONDS / HOP_SECONDS)
    best = torch.full((len(n_frames[a]), len(n_frames[b])), -1.0)
    best_lag = torch.zeros_like(best)
    for lag in range(-max_lag, max_lag + 1):
        # at a positive lag, frame t of a corresponds to frame t + lag of b
        skip_a, skip_b = max(0, -lag), max(0, lag)
        n_a, n_b = (n_frames[a] - skip_a).clamp(min=0), (n_frames[b] - skip_b).clamp(min=0)
        overlap = torch.minimum(n_a[:, None], n_b)
        var_a, var_b = variation[skip_a][a].gather(1, overlap), variation[skip_b][b].gather(1, overlap.T).T
        products = _products(log_mel[a, :, skip_a : total - skip_b], log_mel[b, :, skip_b : total - skip_a], n_a, n_b)
        comparable = (overlap >= min_overlap) & (torch.minimum(var_a, var_b) > MIN_VARIATION * overlap)
        similarity = torch.where(comparable, products / (var_a * var_b).sqrt(), -1.0).clamp(max=1)
        best_lag = torch.where(similarity > best, lag * HOP_SECONDS, best_lag)
        best = torch.maximum(best, similarity)
    return best, best_lag


def _frame_mask(log_mel: Tensor, n_frames: Tensor) -> Tensor:
    """Return a mask of the first ``n_frames`` (B,) frames: (B, bands, frames) -> float (B, 1, frames)."""
    return (torch.arange(log_mel.shape[2]) < n_frames[:, None])[:, None].to(log_mel.dtype)


def _subtract_mean(log_mel: Tensor, n_frames: Tensor) -> Tensor:
    """Subtract each band's mean over the first ``n_frames`` (B,) frames and zero the others: (B, bands, frames)."""
    mean = log_mel.sum(dim=2, keepdim=True) / n_frames.clamp(min=1)[:, None, None]
    return (log_mel - mean).mul_(_frame_mask(log_mel, n_frames))


def _variation(log_mel: Tensor) -> Tensor:
    """Return the sum of squares around the band means over the first k frames: (B, bands, frames) -> (B, k), dB^2."""
    squares = log_mel.square().sum(dim=1).cumsum(dim=1)
    variation = squares - log_mel.cumsum(dim=2).square().sum(dim=1) / torch.arange(1, log_mel.shape[2] + 1)
    return functional.pad(variation, (1, 0))


def _products(x: Tensor, y: Tensor, n_x: Tensor, n_y: Tensor) -> Tensor:
    """Return the sums of products of x and y, both around their band means over the common frames: (A, B).

    Args:
        x, y: (A, bands, frames) and (B, bands, frames), 0 after the last frame of a clip.
        n_x, n_y: (A,) and (B,), frames of each clip; a pair has the smaller number in common.
    """
    x_ends_first = n_x[:, None] <= n_y
    products = torch.zeros(x_ends_first.shape)
    # subtracting the mean from one factor is enough; the clip that ends first has the same mean in all its pairs
    if x_ends_first.any():
        products = _subtract_mean(x, n_x).flatten(1) @ y.flatten(1).T
    if not x_ends_first.all():
        products = torch.where(x_ends_first, products, x.flatten(1) @ _subtract_mean(y, n_y).flatten(1).T)
    return products
