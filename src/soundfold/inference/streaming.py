"""Windows and a coarse spectrogram of a stream of samples, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil

import numpy as np
import torch

from soundfold.features.logmel import LogMel

STEP = 1 << 16


class OverlapBuffer:
    """Splits a stream into overlapping pieces, so that each can be filtered without seams.

    A piece is ``context`` samples, ``step`` samples, ``context`` samples; the last may be shorter. The stream is padded
    with ``context`` zeros at both ends.
    """

    def __init__(self, step: int, context: int) -> None:
        self.step, self.context = step, context
        self._buffer = np.zeros(context, dtype=np.float32)

    def add(self, block: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the pieces that a block, float32 (samples,), completes."""
        self._buffer = np.concatenate([self._buffer, block])
        while len(self._buffer) >= self.step + 2 * self.context:
            yield self._buffer[: self.step + 2 * self.context]
            self._buffer = self._buffer[self.step :]

    def end(self) -> Iterator[np.ndarray]:
        """Yield the last piece, if any samples remain."""
        if len(self._buffer) > self.context:
            yield np.concatenate([self._buffer, np.zeros(self.context, dtype=np.float32)])


def windows(blocks: Iterable[np.ndarray], samples: int, hop: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Divide a stream into overlapping windows, one every ``hop`` samples, and a last one that ends with the stream.

    A stream shorter than one window is padded with zeros. One that is longer by less than a tenth is cut, as clips are
    in training, since codecs and resamplers append a few samples.

    Args:
        blocks: (samples,) each.
        samples: length of a window.
        hop: samples.

    Yields:
        First sample in the stream, number of samples before padding, window (samples,).
    """
    buffer, offset, start, end = None, 0, 0, 0  # offset: of the buffer in the stream; end: of the last window
    for block in blocks:
        buffer = block if buffer is None else np.concatenate([buffer, block])
        while start + samples <= offset + len(buffer):
            end = start + samples
            yield start, samples, buffer[start - offset : end - offset]
            start += hop
        # keep the next window's samples, and those of a last window that would end here
        unused = min(start, offset + len(buffer) - samples) - offset
        if unused > 0:
            buffer, offset = buffer[unused:], offset + unused
    if buffer is None:
        return
    length = offset + len(buffer)
    if length <= samples and not end:
        yield 0, length, np.concatenate([buffer, np.zeros(samples - length, dtype=buffer.dtype)])
    elif end < length and not (end == samples and length - samples < samples / 10):
        yield length - samples, samples, buffer[length - samples - offset :]


class SpectrogramSketch:
    """Log-mel of a stream of any length, in a bounded number of columns.

    Args:
        logmel: of the model; its dynamic range is applied below the maximum of all columns.
        sample_rate: Hz.
        columns: maximum; beyond it, the power of neighboring columns is averaged.
    """

    def __init__(self, logmel: LogMel, sample_rate: int, columns: int = 2000) -> None:
        self.logmel, self.sample_rate, self.columns = logmel, sample_rate, columns
        hop = logmel.hop_length
        self._pieces = OverlapBuffer(ceil(STEP / hop) * hop, ceil(logmel.n_fft / 2 / hop) * hop)
        # mel power (M, columns), each the mean of `_frames_per_column` frames, and (M, frames) of the next column
        self._columns = self._pending = torch.zeros(len(logmel.bank), 0)
        self._frames_per_column = 1

    def add(self, block: np.ndarray) -> None:
        """Add float32 (samples,)."""
        for piece in self._pieces.add(block):
            self._add_piece(piece)

    def end(self) -> tuple[np.ndarray, float]:
        """Return dB, float32 (M, columns), and the seconds of a column; call it once, after the last block."""
        for piece in self._pieces.end():
            self._add_piece(piece)
        power = self._columns
        if self._pending.shape[1]:
            power = torch.cat([power, self._pending.mean(dim=1, keepdim=True)], dim=1)
        log_mel_db = 10 * torch.log10(power.clamp(min=1e-10))
        log_mel_db = torch.maximum(log_mel_db, log_mel_db.amax() - self.logmel.top_db)
        return log_mel_db.numpy(), self._frames_per_column * self.logmel.hop_length / self.sample_rate

    @torch.inference_mode()
    def _add_piece(self, piece: np.ndarray) -> None:
        hop, context = self.logmel.hop_length, self._pieces.context
        first, n_frames = context // hop, ceil((len(piece) - 2 * context) / hop)
        power = self.logmel.power(torch.from_numpy(piece)[None].to(self.logmel.bank.device))[0]
        self._append((self.logmel.bank @ power[:, first : first + n_frames]).cpu())
        while self._columns.shape[1] > self.columns:
            self._halve()

    def _append(self, frames: torch.Tensor) -> None:
        """Average frames (M, T) in columns; a remainder waits for more frames."""
        frames = torch.cat([self._pending, frames], dim=1)
        n_columns = frames.shape[1] // self._frames_per_column
        full, self._pending = frames.tensor_split([n_columns * self._frames_per_column], dim=1)
        columns = full.reshape(len(full), n_columns, self._frames_per_column).mean(dim=2)
        self._columns = torch.cat([self._columns, columns], dim=1)

    def _halve(self) -> None:
        """Merge pairs of columns; a last odd column becomes pending frames."""
        pairs = self._columns.shape[1] // 2
        merged, odd = self._columns.tensor_split([2 * pairs], dim=1)
        pending = torch.cat([odd.repeat_interleave(self._frames_per_column, dim=1), self._pending], dim=1)
        self._columns = merged.reshape(len(merged), pairs, 2).mean(dim=2)
        self._pending = pending[:, :0]
        self._frames_per_column *= 2
        self._append(pending)
