"""What is wrong with the audio files of a collection: every file is looked at, and none stops the look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from soundfold.io.audio import BLOCK_SIZE, MAX_AMPLITUDE, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from soundfold.io.pcm import FULL_SCALE as PCM_FULL_SCALE

# below half a step of 16-bit audio (-96 dBFS): what the packed store holds as zero; lossy coders keep real zeros there
ZERO = 2.0**-16
SILENCE_SECONDS = 0.01
CLIPPED_RUN = 3
FULL_SCALE = 0.999
# the highest level that a coarse format can hold
COARSE = {"PCM_U8": 127 / 128, "PCM_S8": 127 / 128, "ULAW": 32124 / PCM_FULL_SCALE, "ALAW": 32256 / PCM_FULL_SCALE}
LENGTH_TOLERANCE = 0.05
COMMON_SHARE = 0.5

KINDS = {
    "unreadable": "cannot be decoded, or is not there",
    "empty": "holds no samples",
    "not finite": "holds samples that are not numbers",
    "silent": "every sample is zero, to within half a step of 16-bit audio",
    "clipped": f"{CLIPPED_RUN} or more successive samples of a channel stand at full scale ({FULL_SCALE:g} or above)",
    "cut short": "gives fewer samples than its header promises",
    "truncated": f"more than {1000 * LENGTH_TOLERANCE:.0f} ms shorter than most clips of the collection",
    "too long": f"more than {1000 * LENGTH_TOLERANCE:.0f} ms longer than most clips of the collection",
}
# what the loading of a collection refuses
UNUSABLE = ("unreadable", "empty", "not finite")


@dataclass(frozen=True)
class FileReport:
    """What one audio file holds, at its own rate and before anything is cut, averaged or resampled.

    Attributes:
        file: its name.
        fault: ``unreadable``, ``empty`` or ``not finite``, where the file cannot be used; else None.
        reason: of the fault, in a few words.
        rate: Hz.
        channels: how many.
        subtype: libsndfile's name of the coding, such as ``PCM_16`` or ``VORBIS``.
        frames, promised: samples of a channel, decoded and as the header has it.
        peak: largest absolute sample, full scale being 1; a lossy coder may overshoot it.
        clipped: samples of all channels in clipped runs, see `clipped_samples`.
        leading, inner, trailing: share of the clip's samples that are digital silence at its start, inside, and at its
            end, see `silent_runs`; they sum to 1 for a silent clip, which counts as leading.
    """

    file: str
    fault: str | None = None
    reason: str = ""
    rate: int = 0
    channels: int = 0
    subtype: str = ""
    frames: int = 0
    promised: int = 0
    peak: float = 0.0
    clipped: int = 0
    leading: float = 0.0
    inner: float = 0.0
    trailing: float = 0.0

    @property
    def seconds(self) -> float:
        """Duration, s."""
        return self.frames / self.rate if self.rate else 0.0

    @property
    def silence(self) -> float:
        """Share of the clip that is digital silence."""
        return self.leading + self.inner + self.trailing

    @property
    def silent(self) -> bool:
        return self.fault is None and self.peak < ZERO


def inspect(
    root: Path,
    files: Sequence[str],
    progress: Callable[[Iterable, int], Iterable] = lambda items, total: items,
) -> list[FileReport]:
    """Look at every file, in order; one that cannot be used is reported, where `waveforms.load` refuses it.

    Args:
        root: folder of the audio files.
        files: their names.
        progress: wraps the loop, given its items and their number.
    """
    with ThreadPoolExecutor() as pool:
        # libsndfile decodes outside the interpreter's lock, so threads are enough
        return list(progress(pool.map(lambda name: inspect_file(root, name), files), len(files)))


def inspect_file(root: Path, file: str) -> FileReport:
    """Decode one file and report on it."""
    path = root / file
    try:
        if path.stat().st_size == 0:
            return FileReport(file, "empty", "the file has 0 bytes")
        with soundfile.SoundFile(path) as sound:
            rate, channels, subtype, promised = sound.samplerate, sound.channels, sound.subtype, sound.frames
            wave = _samples(sound)
    except FileNotFoundError:
        return FileReport(file, "unreadable", "there is no such file")
    # TypeError is soundfile's answer to a .raw file
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as error:
        # libsndfile's sentence stands last, after the path
        return FileReport(file, "unreadable", str(error).rsplit(": ", 1)[-1].strip())
    known = {"rate": rate, "channels": channels, "subtype": subtype, "frames": len(wave), "promised": promised}
    if not len(wave):
        return FileReport(file, "empty", "a header without samples", **known)
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        return FileReport(file, "unreadable", f"its header says {rate} Hz", **known)
    level = np.abs(wave)
    if not (level <= MAX_AMPLITUDE).all():
        share = 1 - (level <= MAX_AMPLITUDE).mean()
        return FileReport(file, "not finite", f"{100 * share:.2g} % of its samples are not numbers", **known)
    runs = silent_runs(level.max(axis=1), rate)
    leading = sum(end - start for start, end in runs if start == 0)
    trailing = sum(end - start for start, end in runs if start > 0 and end == len(wave))
    silence = sum(end - start for start, end in runs)
    return FileReport(
        file,
        **known,
        peak=float(level.max()),
        clipped=clipped_samples(wave, COARSE.get(subtype, FULL_SCALE)),
        leading=leading / len(wave),
        inner=(silence - leading - trailing) / len(wave),
        trailing=trailing / len(wave),
    )


def _samples(sound: soundfile.SoundFile) -> np.ndarray:
    """All of them, float32 (samples, channels): no more memory than they take, whatever the header claims."""
    parts = [np.empty((0, sound.channels), dtype=np.float32)]
    while len(part := sound.read(max(1, BLOCK_SIZE // sound.channels), dtype="float32", always_2d=True)):
        parts.append(part)
    return np.concatenate(parts)


def silent_runs(level: np.ndarray, rate: int) -> list[tuple[int, int]]:
    """Start and end (exclusive) of every stretch of 10 ms or more in which each sample is below `ZERO`.

    A clip that is shorter than that and silent throughout is one such stretch.

    Args:
        level: (samples,), the loudest channel's absolute value.
        rate: Hz.
    """
    least = min(len(level), round(SILENCE_SECONDS * rate))
    return [(start, end) for start, end in _runs(level < ZERO) if end - start >= least]


def clipped_samples(wave: np.ndarray, full_scale: float = FULL_SCALE) -> int:
    """Samples in runs of three or more, all at or beyond full scale on one side: (samples, channels) -> number.

    One sample at full scale is a peak that was normalised; three in a row are a top cut off, or a low tone
    that fills the scale. What was clipped and then turned down is not found.
    """
    count = 0
    for channel in wave.T:
        for beyond in (channel >= full_scale, channel <= -full_scale):
            count += sum(end - start for start, end in _runs(beyond) if end - start >= CLIPPED_RUN)
    return count


def common_seconds(reports: Sequence[FileReport]) -> float | None:
    """The duration of most usable clips, to within 50 ms; None where fewer than half of them share one."""
    seconds = [report.seconds for report in reports if report.fault is None]
    if not seconds:
        return None
    common = Counter(round(value, 3) for value in seconds).most_common(1)[0][0]
    alike = sum(abs(value - common) <= LENGTH_TOLERANCE for value in seconds)
    return common if alike >= COMMON_SHARE * len(seconds) else None


def faults(reports: Sequence[FileReport]) -> dict[str, list[int]]:
    """Indices of the files that each of `KINDS` applies to; a file may stand under several."""
    common = common_seconds(reports)
    return {kind: [i for i, report in enumerate(reports) if kind in _kinds(report, common)] for kind in KINDS}


def _kinds(report: FileReport, common: float | None) -> Iterator[str]:
    if report.fault is not None:
        yield report.fault
        return
    if report.silent:
        yield "silent"
    if report.clipped:
        yield "clipped"
    if report.frames < report.promised:
        yield "cut short"
    if common is not None and report.seconds < common - LENGTH_TOLERANCE:
        yield "truncated"
    if common is not None and report.seconds > common + LENGTH_TOLERANCE:
        yield "too long"


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Start and end (exclusive) of every run of True: bool (samples,)."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
