"""A packed int16 store of decoded clips, built once and opened by any process."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soundfold.data.resampling import resample_blocks
from soundfold.data.store_build import GROUP_CLIPS, THREADS, PackedClip, Progress, StoreBuilder, rows_intact
from soundfold.errors import InputError, is_out_of_memory
from soundfold.io.atomic import explain_write_errors, loads_with_checksum, resumable_folder
from soundfold.io.audio import CANCELED, Recording
from soundfold.io.console import console
from soundfold.io.locks import exclusive_lock
from soundfold.io.parallel import map_ahead
from soundfold.io.pcm import float_to_pcm
from soundfold.io.reading import read_text

FORMAT = 2  # increment when the same audio and parameters would result in other samples
# Values per decoded block, of all channels: most files in one block, because a decoder may round at block boundaries.
BLOCK = 1 << 24
# bytes; a clip takes 90
MAX_MANIFEST = 256_000_000


@dataclass(frozen=True)
class Waveforms:
    """The packed store of a collection.

    Attributes:
        samples: int16 (clips, samples), memory-mapped; writes do not reach the disk. Shorter clips are padded with
            zeros at the end.
        lengths: int64 (clips,), in samples, without the padding.
        hashes: SHA-256 of each clip's decoded samples; equal hashes mean identical audio.
        sample_rate: Hz.
        digest: SHA-256 of the audio files in their order; part of the identity of a run.
    """

    samples: np.ndarray
    lengths: np.ndarray
    hashes: tuple[str, ...]
    sample_rate: int
    digest: str

    @property
    def is_built(self) -> bool:
        """Whether the clips have samples; False if `open_store(build=False)` found no intact store."""
        return self.samples.shape[1] > 0


def open_store(
    root: Path,
    files: Sequence[str],
    *,
    seconds: float,
    sample_rate: int,
    cache: Path,
    build: bool = True,
    progress: Progress = lambda items, total: items,
) -> Waveforms:
    """Open the packed store of these files; build it if it does not exist.

    Channels are averaged, other rates resampled, and each clip is cut or zero-padded at its end to ``seconds``. The
    store is identified by the bytes of the files and these parameters. Concurrent processes build it once, under a file
    lock. An interrupted build is continued, see `StoreBuilder`. Every opening verifies the checksums: a damaged store
    is rebuilt, with a note. An intact one may be read-only.

    Args:
        root: folder of the audio files.
        files: their names, in the order of the table.
        seconds: length of a stored clip.
        sample_rate: Hz.
        cache: folder of the stores; created if it does not exist.
        build: if false, nothing is written, and the clips of a missing or damaged store have no samples.
        progress: wraps the loop over clips, given an iterable and their number.

    Raises:
        InputError: a file is missing, unreadable, empty or not finite.
        ArgumentError: `cache` cannot be written.
    """
    hashed = list(zip(files, map_ahead(lambda name: _file_hash(root / name), files, THREADS, THREADS), strict=True))
    digest = _digest(hashed)
    frames = round(seconds * sample_rate)
    key = hashlib.sha256(f"{FORMAT} {digest} {frames} {sample_rate}".encode()).hexdigest()[:16]
    path = cache / key
    if (store := _load_intact(path)) or not build:
        return store or _unbuilt(files, sample_rate, digest)
    need = f"The packed store requires {2 * frames * len(files) / 1e6:.1f} MB"
    with explain_write_errors(cache, f"{need}. Free some space, or set `cache` to another folder."):
        cache.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(cache / f"{key}.lock", "is decoding this audio"):
            # another process may have built it in the meantime
            if store := _load_intact(path, note=True):
                return store
            # processes that have mapped the damaged files can still read them
            shutil.rmtree(path, ignore_errors=True)
            with resumable_folder(path) as folder:
                _build(folder, root, hashed, frames, sample_rate, progress)
    return _load(path)


def _unbuilt(files: Sequence[str], sample_rate: int, digest: str) -> Waveforms:
    """Return a store of clips without samples, none of which is a duplicate of another."""
    samples, lengths = np.zeros((len(files), 0), dtype=np.int16), np.zeros(len(files), dtype=np.int64)
    return Waveforms(samples, lengths, tuple(files), sample_rate, digest)


def decode(path: Path, sample_rate: int, frames: int) -> np.ndarray:
    """Decode the start of one file to mono float32 (samples,) at ``sample_rate``, nominally in [-1, 1].

    Args:
        sample_rate: Hz.
        frames: maximum number of samples; a long file is not read to its end.

    Raises:
        InputError: the file is missing, unreadable, empty or not finite.
    """
    recording = Recording.open(path)
    blocks, decoded = [], 0
    for block in resample_blocks(recording.blocks(BLOCK), recording.sample_rate, sample_rate):
        blocks.append(block)
        decoded += len(block)
        if decoded >= frames:
            break
    return np.concatenate(blocks)[:frames]


def to_int16(mono: np.ndarray, frames: int) -> np.ndarray:
    """Convert a waveform to a stored clip, cut or zero-padded: float32 (samples,) in [-1, 1] -> int16 (frames,)."""
    row = np.zeros(frames, dtype=np.int16)
    mono = mono[:frames]
    row[: len(mono)] = float_to_pcm(mono)
    return row


def _digest(hashed: Sequence[tuple[str, str]]) -> str:
    """Return the SHA-256 of the names of files and the SHA-256 of their bytes, in order."""
    total = hashlib.sha256()
    for name, digest in hashed:
        # the name of a file need not be UTF-8
        total.update(f"{name}\0{digest}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def _file_hash(path: Path) -> str:
    try:
        # reading a pipe or a device might block forever
        if path.is_file():
            with path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"The audio file {path} cannot be read: {error}.") from error
    raise InputError(
        f"The table of clips names {path.name}, but there is no such file in {path.parent}. "
        "Add the file, or remove its row."
    )


def _build(
    folder: Path,
    root: Path,
    hashed: Sequence[tuple[str, str]],
    frames: int,
    sample_rate: int,
    progress: Progress,
) -> None:
    """Write a store of files, given as their names with the SHA-256 of their bytes."""

    def pack(index: int) -> PackedClip:
        name, file_hash = hashed[index]
        mono, cancels = _decode_unchanged(root / name, sample_rate, frames, file_hash)
        return PackedClip(to_int16(mono, frames), len(mono), name if cancels else "")

    builder = StoreBuilder(folder, len(hashed), frames, pack)
    canceled = builder.build(progress, sample_rate=sample_rate, digest=_digest(hashed))
    if canceled:
        console.print(
            f"note: The channels of {len(canceled)} of {len(hashed)} files cancel when they are averaged (antiphase), "
            f"the first is {canceled[0]}. Their clips are almost silent. Invert one channel of each, or remove them.",
            style="yellow",
            soft_wrap=True,
        )


def _decode_unchanged(path: Path, sample_rate: int, frames: int, file_hash: str) -> tuple[np.ndarray, bool]:
    """Return the waveform, see `decode`, and whether its channels cancel.

    Raises:
        InputError: the file is not, or no longer, the one that was hashed. A store of other audio under this hash would
            be used by every later run.
    """
    mono = decode(path, sample_rate, frames)
    peak = float(np.abs(mono).max(initial=0))
    cancels = peak < CANCELED and Recording.open(path).cancels(peak, frames / sample_rate)
    # hashed before and after, because a long file does not fit into memory to be hashed and decoded from there
    if _file_hash(path) != file_hash:
        raise InputError(
            f"{path} changed while it was decoded. Wait until the collection is complete, and start the command again."
        )
    return mono, cancels


def _load_intact(path: Path, note: bool = False) -> Waveforms | None:
    """Return the store, or None if it does not exist or is damaged, on request with a note about the damage."""
    if not path.is_dir():
        return None
    try:
        return _load(path)
    except InputError as error:
        if note:
            console.print(f"{error} It is rebuilt.", style="yellow", soft_wrap=True)
        return None


def _load(path: Path) -> Waveforms:
    """Open a store and verify its checksums.

    Raises:
        InputError: the store is damaged.
    """
    try:
        manifest = loads_with_checksum(read_text(path / "manifest.json", MAX_MANIFEST))
        # copy-on-write, because torch warns about read-only arrays
        samples = np.load(path / "samples.npy", mmap_mode="c")
        lengths, hashes = manifest["lengths"], manifest["hashes"]
        if len(samples) != len(lengths) or not _is_intact(samples, lengths, hashes):
            raise ValueError("its samples do not match their hashes")
    except Exception as error:  # a damaged .npy header raises errors of Python's parser
        if is_out_of_memory(error):
            raise
        raise InputError(f"The packed store {path} is damaged: {error or type(error).__name__}.") from error
    return Waveforms(
        samples=samples,
        lengths=np.array(lengths, dtype=np.int64),
        hashes=tuple(hashes),
        sample_rate=manifest["sample_rate"],
        digest=manifest["digest"],
    )


def _is_intact(samples: np.ndarray, lengths: Sequence[int], hashes: Sequence[str]) -> bool:
    def check(start: int) -> bool:
        part = slice(start, start + GROUP_CLIPS)
        return rows_intact(samples, start, lengths[part], hashes[part])

    return all(map_ahead(check, range(0, len(lengths), GROUP_CLIPS), THREADS, THREADS))
