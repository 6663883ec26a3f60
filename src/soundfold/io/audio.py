"""Audio files decoded block by block, so that a wrong length in a header does not allocate memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import NoReturn

import numpy as np
import soundfile

from soundfold.errors import InputError
from soundfold.io.audio_limits import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE

# a .raw file has no header with its rate, bit depth and channels
EXTENSIONS = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"} | {".aif", ".oga", ".opus"}
# samples per block, over all channels
BLOCK_SIZE = 1 << 16
# full scale is 1, and 32-bit integers read as floats reach 2e9; from 1e38 on the mean over channels overflows
MAX_AMPLITUDE = 1e10
# peak of the average of channels, relative to theirs, below which they cancel: -40 dB
CANCELED = 0.01
AUDIBLE = 1e-3  # -60 dBFS


def open_sound(path: Path) -> soundfile.SoundFile:
    """Open an audio file, also one whose name is not UTF-8."""
    try:
        return soundfile.SoundFile(path)
    except UnicodeEncodeError:
        return soundfile.SoundFile(os.fsencode(path))


@dataclass(frozen=True)
class Recording:
    """An audio file whose header was read.

    Attributes:
        path: the file.
        sample_rate: Hz.
        channels: number of channels; `blocks` averages them.
        header_frames: number of frames by the header, which may be wrong.
    """

    path: Path
    sample_rate: int
    channels: int
    header_frames: int

    @classmethod
    def open(cls, path: Path) -> Recording:
        """Read the header of an audio file.

        Raises:
            InputError: the file does not exist, or libsndfile cannot read it.
        """
        try:
            # opening a pipe or a device could block forever
            if not path.is_file():
                raise InputError(f"There is no audio file at {path}. Give an audio file, or a folder of audio files.")
            with open_sound(path) as file:
                recording = cls(path, file.samplerate, file.channels, file.frames)
        # soundfile raises TypeError for a .raw file
        except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as error:
            raise InputError(
                f"{path} is not audio that can be read ({error}). Give WAV, FLAC, OGG, MP3, AIFF or another format "
                "that libsndfile reads."
            ) from error
        if not MIN_SAMPLE_RATE <= recording.sample_rate <= MAX_SAMPLE_RATE:
            raise InputError(
                f"{path}: the header's sample rate is {recording.sample_rate} Hz, and must be between "
                f"{MIN_SAMPLE_RATE} and {MAX_SAMPLE_RATE} Hz. The header is damaged; convert the file to a usual rate."
            )
        return recording

    def blocks(self, size: int = BLOCK_SIZE) -> Iterator[np.ndarray]:
        """Decode the file: yield consecutive mono blocks, float32 (samples,), nominally in [-1, 1].

        Args:
            size: samples per block, over all channels.

        Raises:
            InputError: the file has no samples, is damaged, or contains a sample that is not finite.
        """
        offset = 0
        for block in self._channel_blocks(size):
            yield to_mono(block, str(self.path), offset, self.sample_rate)
            offset += len(block)
        if not offset:
            claim = f", although its header claims {self.header_frames / self.sample_rate:,.0f} s"
            raise InputError(
                f"{self.path} holds no samples{claim if self.header_frames else ''}. Record it again, or remove it."
            )

    def cancels(self, peak: float, seconds: float | None = None) -> bool:
        """Return whether the channels cancel each other when they are averaged, as a stereo pair in antiphase does.

        Args:
            peak: largest magnitude of their average.
            seconds: length of the part at the start that was averaged; None is the entire recording.
        """
        if self.channels == 1 or peak >= CANCELED:
            return False
        n_frames = self.header_frames if seconds is None else ceil(seconds * self.sample_rate)
        offset = 0
        for block in self._channel_blocks(BLOCK_SIZE):
            if is_canceled(block[: n_frames - offset], peak):
                return True
            offset += len(block)
            if offset >= n_frames:
                break
        return False

    def _channel_blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield consecutive blocks float32 (samples, channels) of about ``size`` values."""
        frames, offset = max(1, size // self.channels), 0
        try:
            with open_sound(self.path) as file:
                while len(block := file.read(frames, dtype="float32", always_2d=True)):
                    yield block
                    offset += len(block)
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise InputError(
                f"{self.path} cannot be decoded after {offset / self.sample_rate:.1f} s ({error}). It is damaged; "
                "convert its readable part, or remove it."
            ) from error


def is_canceled(channels: np.ndarray, peak: float) -> bool:
    """Return whether audible channels, float (samples, channels), exceed the peak of their average by 40 dB."""
    loudest = float(np.abs(channels).max(initial=0))
    return channels.shape[1] > 1 and loudest >= AUDIBLE and peak < CANCELED * loudest


def to_mono(block: np.ndarray, name: str, offset: int, sample_rate: int) -> np.ndarray:
    """Average channels: float (samples, channels) -> float32 (samples,).

    Args:
        block: the samples.
        name: the recording, for the error message.
        offset: number of the block's first frame, for the error message.
        sample_rate: Hz, for the error message.

    Raises:
        InputError: a sample is not finite, or above `MAX_AMPLITUDE`.
    """
    valid = (np.abs(block) <= MAX_AMPLITUDE).all(axis=1)
    if not valid.all():
        first = valid.argmin()
        fault = "are out of range" if np.isfinite(block[first]).all() else "are not numbers"
        raise InputError(
            f"{name} holds samples that {fault}, the first at {(offset + first) / sample_rate:.3f} s. "
            "The program that wrote it failed; write it again."
        )
    return block.astype(np.float32, copy=False).mean(axis=1)


def audio_files(paths: list[Path]) -> list[Path]:
    """List audio files: files as given, and the audio files within folders, sorted, without hidden ones.

    Links to folders are followed, each folder is read once. Broken links and pipes with the name of an audio file are
    listed, so that they are reported when they are read.

    Raises:
        InputError: a folder contains no audio file, or cannot be read.
    """
    files: list[Path] = []
    for path in paths:
        inside = _files_in(path) if path.is_dir() else [path]
        if not inside:
            raise InputError(
                f"{path} contains no file with an audio extension (.wav, .flac, .ogg, .mp3, ...). Give a folder of "
                "audio files."
            )
        files += inside
    return files


def _files_in(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> NoReturn:
        raise InputError(
            f"{error.filename} cannot be read ({error.strerror}), so its files would be missing. Restore access to it, "
            "or name other folders."
        ) from error

    files: list[Path] = []
    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if (path := os.path.realpath(parent)) in visited:
            folders.clear()
            continue
        visited.add(path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [
            Path(parent, name) for name in names if Path(name).suffix.lower() in EXTENSIONS and not name.startswith(".")
        ]
    return sorted(files)
