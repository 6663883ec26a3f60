"""File-level cues of a clip: numbers about how the file was made, computed from its stored samples.

`FILE_FACTS` say nothing about the sound itself. `BAND_CUES` and `LEVEL_CUES` follow from recording and processing
(gain, codec, resampling), but also from the sound: thunder is loud and dark by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from soundfold.data.store import Waveforms
from soundfold.eda.checks import FULL_SCALE
from soundfold.eda.file_scan import FileScan
from soundfold.io.pcm import pcm_to_float

FILE_FACTS = {
    "duration_s": "duration, without the padding of the store",
    "leading_silence_s": "digital silence at the start",
    "trailing_silence_s": "digital silence at the end",
    "inner_silence_share": "fraction of the clip in other runs of digital silence",
    "clipped_share": "fraction of the samples in runs of three or more at full scale",
    "step_bits": "log2 of the smallest distance between sample values: 0 for 16 bits, 8 for 8 bits",
    "dc_offset_db": "mean of the samples, dBFS, if it exceeds twice the standard deviation over blocks of 0.1 s",
}
BAND_CUES = {
    "bandwidth_hz": "highest frequency within 60 dB of the maximum of the mean spectrum",
    "cliff_db": "depth of the deepest low-pass edge of the mean spectrum above 2 kHz; 0 below 6 dB",
    "cliff_hz": "frequency of that edge; half the sample rate if there is none",
}
LEVEL_CUES = {
    "peak_db": "largest absolute sample, dBFS",
    "rms_db": "RMS without digital silence at the ends, dBFS",
    "floor_db": "5th percentile of the RMS of frames that are not silent, dBFS: the background",
    "rolloff_hz": "frequency below which 99 % of the energy is",
}
CUES = FILE_FACTS | BAND_CUES | LEVEL_CUES

FRAME = 2048
FLOOR_DB = -120.0
OFFSET_BLOCK_SECONDS, OFFSET_MIN_BLOCKS, OFFSET_FACTOR = 0.1, 5, 2.0
BANDWIDTH_DB, ROLLOFF = 60.0, 0.99
CLIFF_FROM_HZ, BELOW_HZ, EDGE_HZ, CLIFF_DB = 2000.0, 500.0, 250.0, 6.0


def measure_cues(
    waves: Waveforms, progress: Callable[[Iterable, int], Iterable] = lambda items, total: items
) -> np.ndarray:
    """Compute the cues of every clip: float64 (clips, cues), in the order of `CUES`, all finite."""
    rows = progress(zip(waves.samples, waves.lengths, strict=True), len(waves.samples))
    return np.array([clip_cues(row[:length], waves.sample_rate) for row, length in rows])


def clip_cues(clip: np.ndarray, rate: int) -> list[float]:
    """Compute the cues of one clip: int16 (samples,) at ``rate`` Hz -> values in the order of `CUES`."""
    wave = pcm_to_float(clip)
    scan = FileScan(rate, 1, FULL_SCALE)
    scan.add(wave[:, None])
    scan.end()
    audible = wave[scan.leading : len(wave) - scan.trailing]
    frames = _frames(audible)
    bandwidth, cliff_db, cliff_hz, rolloff = _spectral_cues(frames, rate)
    return [
        len(clip) / rate,
        scan.leading / rate,
        scan.trailing / rate,
        scan.inner / len(clip),
        scan.clipped / len(clip),
        _step_bits(clip),
        _dc_offset_db(audible, rate),
        bandwidth,
        cliff_db,
        cliff_hz,
        _db(np.square(wave).max()),
        _db(np.square(audible).mean(dtype=np.float64) if len(audible) else 0.0),
        _floor_db(frames),
        rolloff,
    ]


def _step_bits(clip: np.ndarray) -> float:
    """Return log2 of the smallest distance between two values that occur; 0 for a constant clip."""
    steps = np.diff(np.flatnonzero(np.bincount(clip.astype(np.int64) + 2**15)))
    return float(np.log2(steps.min())) if len(steps) else 0.0


def _dc_offset_db(wave: np.ndarray, rate: int) -> float:
    """Return the mean, dBFS, or `FLOOR_DB` if the means of blocks vary too much, or are too few to know.

    The mean of a sound without an offset depends on its lowest frequencies, which are content.
    """
    size = round(OFFSET_BLOCK_SECONDS * rate)
    blocks = wave[: len(wave) // size * size].reshape(-1, size).mean(axis=1, dtype=np.float64)
    if len(blocks) < OFFSET_MIN_BLOCKS or abs(blocks.mean()) <= OFFSET_FACTOR * blocks.std():
        return FLOOR_DB
    return _db(blocks.mean() ** 2)


def _frames(wave: np.ndarray) -> np.ndarray:
    """Cut into frames: (samples,) -> (frames, FRAME). The end that fills no frame is dropped, a short clip padded."""
    padded = np.pad(wave, (0, max(0, FRAME - len(wave))))
    return padded[: len(padded) // FRAME * FRAME].reshape(-1, FRAME)


def _floor_db(frames: np.ndarray) -> float:
    power = np.square(frames).mean(axis=1)
    return _db(np.quantile(power[power > 0], 0.05) if power.any() else 0.0)


def _spectral_cues(frames: np.ndarray, rate: int) -> tuple[float, float, float, float]:
    """Return bandwidth (Hz), depth (dB) and frequency (Hz) of the cliff, and roll-off (Hz) of the mean spectrum."""
    frequencies = np.fft.rfftfreq(FRAME, 1 / rate)
    window = np.hanning(FRAME).astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(frames * window))).mean(axis=0, dtype=np.float64)
    power[:2] = 0.0  # the DC offset is a cue by itself
    if not power.any():
        return 0.0, 0.0, float(frequencies[-1]), 0.0
    level = 10 * np.log10(power / power.max() + 1e-12)
    bandwidth = float(frequencies[np.flatnonzero(level >= -BANDWIDTH_DB)[-1]])
    rolloff = float(frequencies[np.searchsorted(np.cumsum(power), ROLLOFF * power.sum())])
    cliff_db, cliff_hz = _cliff(level, frequencies)
    return bandwidth, cliff_db, cliff_hz, rolloff


def _cliff(level: np.ndarray, frequencies: np.ndarray) -> tuple[float, float]:
    """Return depth (dB) and frequency (Hz) of the deepest edge above which all is lower than the 500 Hz below it.

    A spectral peak of the sound is no edge, because the level is also low below it.
    """
    # mean over 5 bins: single bins of a short clip scatter by some dB
    smooth = np.convolve(level, np.full(5, 0.2), mode="valid")
    spacing = frequencies[1]
    n_below, n_edge = max(1, round(BELOW_HZ / spacing)), max(1, round(EDGE_HZ / spacing))
    if len(smooth) <= n_below + n_edge:
        return 0.0, float(frequencies[-1])
    lowest = np.lib.stride_tricks.sliding_window_view(smooth, n_below).min(axis=1)
    highest = np.maximum.accumulate(smooth[::-1])[::-1][n_below + n_edge :]
    edges = frequencies[2 + n_below :][: len(highest)] + EDGE_HZ / 2
    depths = np.where(edges >= CLIFF_FROM_HZ, lowest[: len(highest)] - highest, 0.0)
    deepest = int(depths.argmax())
    if depths[deepest] < CLIFF_DB:
        return 0.0, float(frequencies[-1])
    return float(depths[deepest]), float(edges[deepest])


def _db(power: float) -> float:
    return max(FLOOR_DB, 10 * float(np.log10(max(power, 1e-30))))
