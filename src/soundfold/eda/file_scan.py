"""Peak, clipping and digital silence of an audio file, block by block, so that memory does not grow with its length."""

from __future__ import annotations

import numpy as np

from soundfold.io.audio import MAX_AMPLITUDE

# half a step of 16-bit audio (-96 dBFS): smaller samples are zero in the packed store; silence stays below it through a
# lossy codec
ZERO = 2.0**-16
SILENCE_SECONDS = 0.01
CLIPPED_RUN = 3


class FileScan:
    """Measures consecutive blocks of a file.

    Silence is a run of 10 ms or more in which each sample of each channel is below `ZERO`; a shorter file that is
    silent throughout is one run. Clipping is a run of three or more samples of a channel at or beyond full scale, of
    one sign: a single sample at full scale is the peak of a normalized file, and three in a row are a clipped peak, or
    a loud low tone. Files that were attenuated after clipping are not detected.

    Args:
        sample_rate: Hz.
        channels: number of channels.
        full_scale: the magnitude from which a sample may be clipped.

    Attributes:
        frames: samples per channel so far.
        peak: largest absolute sample.
        invalid: number of samples, of all channels, that are NaN, infinite or above `MAX_AMPLITUDE`.
        clipped: number of clipped samples of all channels in the runs that ended.
        leading, inner, trailing: samples of silence at the start, inside, and at the end; final after `end`.
    """

    def __init__(self, sample_rate: int, channels: int, full_scale: float) -> None:
        self.frames, self.peak, self.invalid, self.clipped = 0, 0.0, 0, 0
        self.leading = self.inner = self.trailing = 0
        self._full_scale = full_scale
        self._shortest_silence = round(SILENCE_SECONDS * sample_rate)
        self._silence, self._clipping = _Runs(1), _Runs(2 * channels)

    def add(self, block: np.ndarray) -> None:
        """Measure the next block: float32 (samples, channels)."""
        magnitude = np.abs(block)
        self.frames += len(block)
        self.peak = max(self.peak, float(magnitude.max()))
        self.invalid += int((~(magnitude <= MAX_AMPLITUDE)).sum())
        for start, end in self._silence.add((magnitude < ZERO).all(axis=1)[:, None]).tolist():
            if end - start >= self._shortest_silence:
                self.leading += end - start if start == 0 else 0
                self.inner += end - start if start > 0 else 0
        self._count_clipped(self._clipping.add(np.hstack([block >= self._full_scale, block <= -self._full_scale])))

    def end(self) -> None:
        """Count the runs that last until the end of the file."""
        self._count_clipped(self._clipping.end())
        for start, end in self._silence.end().tolist():
            if start == 0:
                self.leading = end
            elif end - start >= self._shortest_silence:
                self.trailing = end - start

    def _count_clipped(self, runs: np.ndarray) -> None:
        lengths = runs[:, 1] - runs[:, 0]
        self.clipped += int(lengths[lengths >= CLIPPED_RUN].sum())


class _Runs:
    """Runs of True in a stream of flags, separately for each column. A run may extend over several blocks."""

    def __init__(self, columns: int) -> None:
        self._position = 0
        # where the run that reached the end of the last block started; -1 without one
        self._open = np.full(columns, -1)

    def add(self, flags: np.ndarray) -> np.ndarray:
        """Return start and end (exclusive) of the runs that have ended: bool (samples, columns) -> int (runs, 2)."""
        position, n_samples = self._position, len(flags)
        self._position += n_samples
        is_open = self._open >= 0
        if not flags.any() and not is_open.any():
            return np.empty((0, 2), dtype=np.int64)
        interrupted = self._open[is_open & ~flags[0]]
        padded = np.zeros((flags.shape[1], n_samples + 2), dtype=np.int8)
        padded[:, 1:-1] = flags.T
        edges = np.diff(padded, axis=1)
        column, start = np.nonzero(edges == 1)
        end = np.nonzero(edges == -1)[1]
        start = np.where((start == 0) & is_open[column], self._open[column], start + position)
        lasts = end == n_samples
        self._open = np.full_like(self._open, -1)
        self._open[column[lasts]] = start[lasts]
        ended = [[start[~lasts], end[~lasts] + position], [interrupted, np.full_like(interrupted, position)]]
        return np.concatenate([np.column_stack(pair) for pair in ended])

    def end(self) -> np.ndarray:
        """Return start and end of the runs that last until the end of the stream: int (runs, 2)."""
        last = self._open[self._open >= 0]
        return np.column_stack([last, np.full_like(last, self._position)])
