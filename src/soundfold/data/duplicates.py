"""Clips that are the same sound, though not the same bytes: re-encoded, softer, or a little later."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from soundfold.frontend.logmel import LogMel

BANDS, HOP_SECONDS, WINDOW_SECONDS, RANGE_DB = 32, 0.01, 0.046, 30.0
LONGEST_SHIFT = 0.1
THRESHOLD = 0.93
AT_ONCE = 512


@dataclass(frozen=True)
class Pair:
    """Two clips alike.

    Attributes:
        first, second: their indices, first < second.
        similarity: correlation of their fingerprints, at most 1.
        later: seconds by which the second's sound comes later.
    """

    first: int
    second: int
    similarity: float
    later: float


def _all(items: Iterable, total: int) -> Iterable:
    return items


@torch.no_grad()
def fingerprints(samples: np.ndarray, sample_rate: int, progress: Callable[[Iterable, int], Iterable] = _all) -> Tensor:
    """Coarse log-mels, in which a copy shows: int16 (clips, N) -> float32 (clips, bands, frames), dB.

    32 bands and 10 ms frames over the loudest 30 dB of the clip: what a lossy coder changes lies mostly below.
    """
    window, hop = round(WINDOW_SECONDS * sample_rate), round(HOP_SECONDS * sample_rate)
    logmel = LogMel(sample_rate, window, hop, BANDS, 50.0, min(16000.0, sample_rate / 2), top_db=RANGE_DB)
    prints = []
    for wave in progress(samples, len(samples)):
        prints.append(logmel(torch.from_numpy(np.asarray(wave))[None].float() / 32768)[0, 0])
    return torch.stack(prints)


@torch.no_grad()
def near_pairs(
    prints: Tensor, threshold: float = THRESHOLD, progress: Callable[[Iterable, int], Iterable] = _all
) -> list[Pair]:
    """Pairs of clips whose bands move alike, by ``threshold`` or more, at some shift of up to 100 ms; most alike first.

    The measure is the correlation of the fingerprints less each band's mean over time: the mean is what two stationary
    sounds of a class share, and what moves around it is a clip's own.

    At 0.93 every one of 100 ESC-10 clips was found again after Ogg Vorbis at a low rate (correlation at least 0.958),
    MP3 (0.972), 6 dB less (1.000) and 50 ms of delay (0.999). Of the 79,800 pairs of ESC-10's clips one is claimed, by
    0.986, two cuts of a fire whose waveforms correlate by 0.967; the next pair, two sneezes, has 0.889. A copy with
    another sound on top of it, at another speed, or moved by more than 100 ms is not found.

    Args:
        prints: (clips, bands, frames), see `fingerprints`; silent clips are never paired.
    """
    frames = prints.shape[2]
    longest = min(round(LONGEST_SHIFT / HOP_SECONDS), frames - 1)
    starts = range(0, len(prints), AT_ONCE)
    blocks = [(a, b) for a in starts for b in starts if a <= b]
    pairs = []
    for a, b in progress(blocks, len(blocks)):
        one, other = prints[a : a + AT_ONCE], prints[b : b + AT_ONCE]
        best = torch.full((len(one), len(other)), -1.0)
        later = torch.zeros_like(best)
        for shift in range(-longest, longest + 1):
            early = _moving(one[:, :, max(0, -shift) : frames - max(0, shift)])
            late = _moving(other[:, :, max(0, shift) : frames - max(0, -shift)])
            norms = early.norm(dim=1)[:, None] * late.norm(dim=1)
            alike = torch.where(norms > 0, early @ late.T / norms.clamp(min=1e-12), -1.0)
            later = torch.where(alike > best, shift * HOP_SECONDS, later)
            best = torch.maximum(best, alike)
        for i, j in torch.nonzero(best >= threshold).tolist():
            if a + i < b + j:
                pairs.append(Pair(a + i, b + j, float(best[i, j]), float(later[i, j])))
    return sorted(pairs, key=lambda pair: -pair.similarity)


def _moving(prints: Tensor) -> Tensor:
    """Bands less their means over time, flat: (B, bands, frames) -> (B, bands * frames)."""
    return (prints - prints.mean(dim=2, keepdim=True)).flatten(1)
