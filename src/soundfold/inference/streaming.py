"""Streams of samples cut, resampled and sketched piece by piece, as if they were whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil

import numpy as np
import torch

from soundfold.features.logmel import LogMel

STEP = 1 << 16


class OverlapBuffer:
    """Cuts a stream into pieces that overlap, so that each can be filtered without seams.

    Every piece is ``context`` samples, then its own, then ``context`` samples; beyond the stream's ends lie zeros. A
    piece has ``step`` samples of its own, the last whatever is left.
    """

    def __init__(self, step: int, context: int) -> None:
        self.step, self.context = step, context
        self._held = np.zeros(context, dtype=np.float32)

    def add(self, block: np.ndarray) -> Iterator[np.ndarray]:
        """The pieces that are whole once float32 (samples,) has come."""
        self._held = np.concatenate([self._held, block])
        while len(self._held) >= self.step + 2 * self.context:
            yield self._held[: self.step + 2 * self.context]
            self._held = self._held[self.step :]

    def end(self) -> Iterator[np.ndarray]:
        """The last piece, if anything is left."""
        if len(self._held) > self.context:
            yield np.concatenate([self._held, np.zeros(self.context, dtype=np.float32)])


def windows(blocks: Iterable[np.ndarray], samples: int, hop: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Overlapping windows of a stream: (first sample, samples before padding, window (samples,)).

    A window begins every ``hop`` samples; a last one ends where the stream ends. A stream shorter than one window is
    filled up with zeros, and one that is longer by less than a tenth is cut, as clips are in training: coders and
    resamplers leave a few samples more.
    """
    kept, base, at, covered = None, 0, 0, 0
    for block in blocks:
        kept = block if kept is None else np.concatenate([kept, block])
        while at + samples <= base + len(kept):
            covered = at + samples
            yield at, samples, kept[at - base : covered - base]
            at += hop
        # the next window's samples, and those of one that would end here
        free = min(at, base + len(kept) - samples) - base
        if free > 0:
            kept, base = kept[free:], base + free
    if kept is None:
        return
    end = base + len(kept)
    if end <= samples and not covered:
        yield 0, end, np.concatenate([kept, np.zeros(samples - end, dtype=kept.dtype)])
    elif covered < end and not (covered == samples and end - samples < samples / 10):
        yield end - samples, samples, kept[end - samples - base :]


class SpectrogramSketch:
    """The log-mel of a stream of any length, in a bounded number of columns.

    Args:
        logmel: of the model; its dynamic range is kept below the loudest of all columns.
        sample_rate: Hz.
        columns: at most; when there are more, neighbours are averaged, as power.
    """

    def __init__(self, logmel: LogMel, sample_rate: int, columns: int = 2000) -> None:
        self.logmel, self.sample_rate, self.columns = logmel, sample_rate, columns
        hop = logmel.hop_length
        self._pieces = OverlapBuffer(max(1, STEP // hop) * hop, ceil(logmel.n_fft / 2 / hop) * hop)
        self._cells = self._left = torch.zeros(len(logmel.bank), 0)
        self._frames = 1

    def add(self, block: np.ndarray) -> None:
        """float32 (samples,)."""
        for piece in self._pieces.add(block):
            self._draw(piece)

    def end(self) -> tuple[np.ndarray, float]:
        """After the last block: dB float32 (M, columns), and how many seconds a column lasts."""
        for piece in self._pieces.end():
            self._draw(piece)
        cells = self._cells
        if self._left.shape[1]:
            cells = torch.cat([cells, self._left.mean(dim=1, keepdim=True)], dim=1)
        level = 10 * torch.log10(cells.clamp(min=1e-10))
        level = torch.maximum(level, level.amax() - self.logmel.top_db)
        return level.numpy(), self._frames * self.logmel.hop_length / self.sample_rate

    @torch.inference_mode()
    def _draw(self, piece: np.ndarray) -> None:
        hop, context = self.logmel.hop_length, self._pieces.context
        device = self.logmel.bank.device
        power = self.logmel.power(torch.from_numpy(piece)[None].to(device))[0]
        first, own = context // hop, ceil((len(piece) - 2 * context) / hop)
        mel = (self.logmel.bank @ power[:, first : first + own]).cpu()
        frames = torch.cat([self._left, mel], dim=1)
        self._fold(frames)
        while self._cells.shape[1] > self.columns:
            bands, cells = self._cells.shape
            odd = self._cells[:, cells // 2 * 2 :].repeat_interleave(self._frames, dim=1)
            self._cells = self._cells[:, : cells // 2 * 2].reshape(bands, -1, 2).mean(dim=2)
            self._frames *= 2
            self._fold(torch.cat([odd, self._left], dim=1))

    def _fold(self, frames: torch.Tensor) -> None:
        whole = frames.shape[1] // self._frames
        cells = frames[:, : whole * self._frames].reshape(len(frames), whole, self._frames).mean(dim=2)
        self._cells = torch.cat([self._cells, cells], dim=1)
        self._left = frames[:, whole * self._frames :]
