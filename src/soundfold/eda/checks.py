"""File checks of a collection: decode every audio file and report its faults, without stopping at the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from soundfold.eda.file_scan import CLIPPED_RUN, ZERO, FileScan
from soundfold.io.audio import BLOCK_SIZE, open_sound
from soundfold.io.audio_limits import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from soundfold.io.parallel import map_ahead
from soundfold.io.pcm import FULL_SCALE as PCM_FULL_SCALE

FULL_SCALE = 0.999
# largest positive sample of 8-bit formats, which is below FULL_SCALE
COARSE = {"PCM_U8": 127 / 128, "PCM_S8": 127 / 128, "ULAW": 32124 / PCM_FULL_SCALE, "ALAW": 32256 / PCM_FULL_SCALE}
LENGTH_TOLERANCE = 0.05
COMMON_SHARE = 0.5

KINDS = {
    "unreadable": "cannot be decoded, or is missing",
    "empty": "has no samples",
    "not finite": "has samples that are NaN or infinite",
    "silent": "every sample that is used, cut and mixed to one channel, is below half a step of 16-bit audio",
    "clipped": f"{CLIPPED_RUN} or more consecutive samples of a channel at full scale ({FULL_SCALE:g} or above)",
    "incomplete": "has fewer samples than its header declares",
    "truncated": f"more than {1000 * LENGTH_TOLERANCE:.0f} ms shorter than most clips of the collection",
    "too long": f"more than {1000 * LENGTH_TOLERANCE:.0f} ms longer than most clips of the collection",
}
# training refuses a collection with such files
UNUSABLE = ("unreadable", "empty", "not finite")


@dataclass(frozen=True)
class FileReport:
    """Properties of one audio file as it is stored: not cut, mixed down or resampled.

    Attributes:
        file: file name.
        fault: ``unreadable``, ``empty`` or ``not finite`` if the file is unusable, otherwise None.
        reason: explanation of the fault.
        rate: sample rate, Hz.
        channels: number of channels.
        subtype: encoding as libsndfile names it, such as ``PCM_16`` or ``VORBIS``.
        frames: decoded samples per channel.
        declared_frames: samples per channel according to the header.
        peak: largest absolute sample; full scale is 1, and lossy codecs may exceed it.
        clipped: number of clipped samples of all channels, see `FileScan`.
        leading, inner, trailing: fraction of the clip that is digital silence at the start, inside, and at the end,
            see `FileScan`. A silent clip has leading = 1.
    """

    file: str
    fault: str | None = None
    reason: str = ""
    rate: int = 0
    channels: int = 0
    subtype: str = ""
    frames: int = 0
    declared_frames: int = 0
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
        """Fraction of the clip that is digital silence."""
        return self.leading + self.inner + self.trailing

    @property
    def silent(self) -> bool:
        """Whether the usable clip is digital silence throughout."""
        return self.fault is None and self.peak < ZERO


def inspect(
    root: Path,
    files: Sequence[str],
    progress: Callable[[Iterable, int], Iterable] = lambda items, total: items,
) -> list[FileReport]:
    """Check every file; return reports in the order of ``files``.

    Args:
        root: folder of the audio files.
        files: names relative to ``root``.
        progress: wraps the loop, called with the items and their number.
    """
    # libsndfile decodes without the GIL, so threads run in parallel
    return list(progress(map_ahead(lambda name: inspect_file(root, name), files, ahead=64), len(files)))


def inspect_file(root: Path, file: str) -> FileReport:
    """Decode one file and report its properties or its fault."""
    path = root / file
    try:
        if path.stat().st_size == 0:
            return FileReport(file, "empty", "the file has 0 bytes")
        with open_sound(path) as sound:
            rate, channels, subtype, declared = sound.samplerate, sound.channels, sound.subtype, sound.frames
            scan = FileScan(rate, channels, COARSE.get(subtype, FULL_SCALE))
            # in blocks: a small file may hold, and a damaged header declare, more than fits into memory
            while len(block := sound.read(max(1, BLOCK_SIZE // channels), dtype="float32", always_2d=True)):
                scan.add(block)
            scan.end()
    except FileNotFoundError:
        return FileReport(file, "unreadable", "there is no such file")
    # soundfile raises a TypeError for a .raw file
    except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as error:
        # soundfile's message is the path, then libsndfile's reason
        return FileReport(file, "unreadable", str(error).rsplit(": ", 1)[-1].strip())
    properties = {
        "rate": rate,
        "channels": channels,
        "subtype": subtype,
        "frames": scan.frames,
        "declared_frames": declared,
    }
    if not scan.frames:
        return FileReport(file, "empty", "the file has a header but no samples", **properties)
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        return FileReport(file, "unreadable", f"its header declares a sample rate of {rate} Hz", **properties)
    if scan.invalid:
        share = scan.invalid / (scan.frames * channels)
        reason = f"{100 * share:.2g} % of its samples are NaN, infinite or out of range"
        return FileReport(file, "not finite", reason, **properties)
    return FileReport(
        file,
        **properties,
        leading=scan.leading / scan.frames,
        inner=scan.inner / scan.frames,
        trailing=scan.trailing / scan.frames,
        peak=scan.peak,
        clipped=scan.clipped,
    )


def common_seconds(reports: Sequence[FileReport]) -> float | None:
    """Return the most frequent duration of usable clips; None if less than half of them are within 50 ms of it."""
    seconds = [report.seconds for report in reports if report.fault is None]
    if not seconds:
        return None
    common = Counter(round(value, 3) for value in seconds).most_common(1)[0][0]
    n_close = sum(abs(value - common) <= LENGTH_TOLERANCE for value in seconds)
    return common if n_close >= COMMON_SHARE * len(seconds) else None


def faults_by_kind(reports: Sequence[FileReport]) -> dict[str, list[int]]:
    """Return the indices of the files with each fault of `KINDS`; a file may have several."""
    common = common_seconds(reports)
    return {kind: [i for i, report in enumerate(reports) if kind in _faults(report, common)] for kind in KINDS}


def _faults(report: FileReport, common: float | None) -> Iterator[str]:
    if report.fault is not None:
        yield report.fault
        return
    if report.silent:
        yield "silent"
    if report.clipped:
        yield "clipped"
    if report.frames < report.declared_frames:
        yield "incomplete"
    if common is not None and report.seconds < common - LENGTH_TOLERANCE:
        yield "truncated"
    if common is not None and report.seconds > common + LENGTH_TOLERANCE:
        yield "too long"
