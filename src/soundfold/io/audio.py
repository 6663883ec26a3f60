"""A recording read piece by piece: what its header claims is believed only as far as samples come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from soundfold.errors import InputError

# a .raw file does not say its rate, depth and channels
EXTENSIONS = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"} | {".aif", ".oga", ".opus"}
# Hz; a header with another rate is damaged or belongs to another kind of file
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1000, 1_000_000
# of all channels together, in one piece
VALUES = 1 << 16
# full scale is 1, and 32-bit whole numbers taken for floats reach 2e9; from 1e38 on a mean of channels has no number
MAX_AMPLITUDE = 1e10


@dataclass(frozen=True)
class Recording:
    """A sound file that has been opened once.

    Attributes:
        path: of the file.
        sample_rate: Hz.
        channels: they are averaged.
        header_frames: frames that the header speaks of.
    """

    path: Path
    sample_rate: int
    channels: int
    header_frames: int

    @classmethod
    def open(cls, path: Path) -> Recording:
        """Look at the header.

        Raises:
            InputError: there is no such file, or it is no audio that libsndfile reads.
        """
        try:
            # a pipe or a device might never answer
            if not path.is_file():
                raise InputError(f"There is no audio file at {path}. Give a file, or a folder that holds some.")
            with soundfile.SoundFile(path) as file:
                found = cls(path, file.samplerate, file.channels, file.frames)
        # TypeError is soundfile's answer to a .raw file
        except (soundfile.SoundFileError, RuntimeError, OSError, TypeError) as error:
            raise InputError(
                f"{path} is not audio that can be read ({error}). Give WAV, FLAC, OGG, MP3, AIFF or another format "
                "that libsndfile reads."
            ) from error
        if not MIN_SAMPLE_RATE <= found.sample_rate <= MAX_SAMPLE_RATE:
            raise InputError(
                f"{path} says that its sample rate is {found.sample_rate} Hz; from {MIN_SAMPLE_RATE} to "
                f"{MAX_SAMPLE_RATE} Hz can be read. Its header is damaged; convert it to a usual rate."
            )
        return found

    def blocks(self, values: int = VALUES) -> Iterator[np.ndarray]:
        """Its samples in order, channels averaged: float32 (samples,) each, nominally in [-1, 1].

        Args:
            values: of all channels together, in one block.

        Raises:
            InputError: nothing comes, a sample is not a number, or the file breaks off in a way that is no end.
        """
        frames, came = max(1, values // self.channels), 0
        try:
            with soundfile.SoundFile(self.path) as file:
                while len(block := file.read(frames, dtype="float32", always_2d=True)):
                    yield to_mono(block, str(self.path), came, self.sample_rate)
                    came += len(block)
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise InputError(
                f"{self.path} cannot be decoded after {came / self.sample_rate:.1f} s ({error}). It is damaged; "
                "convert what can be read of it, or leave it out."
            ) from error
        if not came:
            claim = (
                f" though its header speaks of {self.header_frames / self.sample_rate:,.0f} s"
                if self.header_frames
                else ""
            )
            raise InputError(f"{self.path} holds no samples{claim}. Record it again, or leave it out.")


def to_mono(block: np.ndarray, name: str, since: int, sample_rate: int) -> np.ndarray:
    """Average channels: float (samples, channels) -> float32 (samples,).

    Args:
        name, since, sample_rate: where the block comes from, its first frame's number, and Hz; for the error.

    Raises:
        InputError: a sample is not a number, or beyond any scale.
    """
    whole = (np.abs(block) <= MAX_AMPLITUDE).all(axis=1)
    if not whole.all():
        first = whole.argmin()
        what = "are beyond any scale" if np.isfinite(block[first]).all() else "are not numbers"
        raise InputError(
            f"{name} holds samples that {what}, the first at {(since + first) / sample_rate:.3f} s. "
            "Whatever wrote it failed; write it again."
        )
    return block.astype(np.float32, copy=False).mean(axis=1)


def audio_files(paths: list[Path]) -> list[Path]:
    """Files as they are named, and of folders what their names say is audio, sorted, hidden files left out.

    Raises:
        InputError: a folder holds no audio.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in EXTENSIONS
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
        if not inside:
            raise InputError(f"{path} holds no file whose name ends as audio does (.wav, .flac, .ogg, .mp3, ...).")
        found += inside
    return found
