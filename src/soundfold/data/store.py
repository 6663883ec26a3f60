"""Decode every clip once into a packed int16 store; open it from any process."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soundfold.data.resampling import resample_blocks
from soundfold.errors import InputError
from soundfold.io.atomic import atomic_folder, dumps_with_checksum, explain_write_errors, loads_with_checksum
from soundfold.io.audio import Recording
from soundfold.io.console import console
from soundfold.io.locks import exclusive_lock
from soundfold.io.pcm import float_to_pcm

FORMAT = 2  # raise it when the same audio and parameters would give other samples
# of all channels together, in one piece: most files whole, as a decoder may round at its seams
PIECE = 1 << 24


@dataclass(frozen=True)
class Waveforms:
    """The packed store of a collection.

    Attributes:
        samples: int16 (clips, samples), mapped read-only from disk; zeros follow the end of a shorter clip.
        lengths: int64 (clips,), the samples before those zeros.
        hashes: one SHA-256 per clip of its decoded samples; equal hashes are the same audio.
        sample_rate: Hz.
        digest: SHA-256 of the audio files and their order; what the identity of a run is made of.
    """

    samples: np.ndarray
    lengths: np.ndarray
    hashes: tuple[str, ...]
    sample_rate: int
    digest: str


def files_digest(root: Path, files: Sequence[str]) -> str:
    """SHA-256 over names and bytes of the audio files, in order.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda name: _file_hash(root / name), files)
        whole = hashlib.sha256()
        for name, digest in zip(files, digests, strict=True):
            whole.update(f"{name}\0{digest}\n".encode())
    return whole.hexdigest()


def open_store(
    root: Path,
    files: Sequence[str],
    *,
    seconds: float,
    sample_rate: int,
    cache: Path,
    progress: Callable[[Iterable, int], Iterable] = lambda items, total: items,
) -> Waveforms:
    """Open the packed store of these files, building it first where it does not exist.

    Any rate, number of channels and length that libsndfile reads is accepted: channels are averaged, other rates
    resampled, and each clip is cut or padded with zeros at its end to ``seconds``. The store is keyed by the files'
    bytes and these parameters. It is written beside its place and renamed whole, under a lock that the operating
    system releases when its holder dies, so several processes build it once and never see a part of it. Whoever opens
    it compares the samples with the hashes of its manifest, and the manifest with its own checksum: a damaged store is
    built anew, with a note. A store that is there and whole may lie where nothing can be written.

    Args:
        root: folder of the audio files.
        files: their names, in the table's order.
        seconds: length of a stored clip.
        sample_rate: Hz.
        cache: folder of the stores; created where it does not exist.
        progress: wraps the decoding loop, given its items and their number.

    Raises:
        InputError: a file is missing, unreadable, empty or not finite, or the cache cannot be written.
    """
    digest = files_digest(root, files)
    frames = round(seconds * sample_rate)
    key = hashlib.sha256(f"{FORMAT} {digest} {frames} {sample_rate}".encode()).hexdigest()[:16]
    place = cache / key
    if found := _whole(place):
        return found
    need = f"The packed store of the audio needs {2 * frames * len(files) / 1e6:.1f} MB"
    with explain_write_errors(cache, f"{need}; free some space or give paths.cache=DIRECTORY."):
        cache.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(cache / f"{key}.lock", "is decoding this audio"):
            # another process may have built it meanwhile
            if found := _whole(place, tell=True):
                return found
            # its files stay with whoever has mapped them
            shutil.rmtree(place, ignore_errors=True)
            with atomic_folder(place) as folder:
                _build(folder, root, files, frames, sample_rate, digest, progress)
    return _open(place)


def decode(path: Path, sample_rate: int, frames: int) -> np.ndarray:
    """Decode the start of one file to mono float32 (samples,) at ``sample_rate``, nominally in [-1, 1].

    Args:
        sample_rate: Hz.
        frames: samples at most; a long file is not read to its end.

    Raises:
        InputError: the file is missing, unreadable, empty or holds samples that are not numbers.
    """
    recording = Recording.open(path)
    blocks, decoded = [], 0
    for block in resample_blocks(recording.blocks(PIECE), recording.sample_rate, sample_rate):
        blocks.append(block)
        decoded += len(block)
        if decoded >= frames:
            break
    return np.concatenate(blocks)[:frames]


def to_int16(mono: np.ndarray, frames: int) -> np.ndarray:
    """Cut or pad with zeros, as a stored clip: float32 (samples,) in [-1, 1] -> int16 (frames,)."""
    row = np.zeros(frames, dtype=np.int16)
    mono = mono[:frames]
    row[: len(mono)] = float_to_pcm(mono)
    return row


def _file_hash(path: Path) -> str:
    try:
        # a pipe or a device might never answer
        if path.is_file():
            with path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"The audio file {path} cannot be read: {error}.") from error
    raise InputError(
        f"The table of clips names {path.name}, but there is no such file in {path.parent}. "
        "Add the file or remove its row."
    )


def _build(
    folder: Path,
    root: Path,
    files: Sequence[str],
    frames: int,
    sample_rate: int,
    digest: str,
    progress: Callable[[Iterable, int], Iterable],
) -> None:
    samples = np.zeros((len(files), frames), dtype=np.int16)
    lengths, hashes = [], []
    with ThreadPoolExecutor() as pool:
        # libsndfile decodes outside the interpreter's lock, so threads are enough
        decoded = pool.map(lambda name: decode(root / name, sample_rate, frames), files)
        try:
            for row, mono in zip(samples, progress(decoded, len(files)), strict=True):
                row[:] = to_int16(mono, frames)
                lengths.append(len(mono))
                hashes.append(_row_hash(row, len(mono)))
        finally:
            # else whoever stops it waits for all the files
            pool.shutdown(cancel_futures=True)
    with (folder / "samples.npy").open("wb") as stream:
        # numpy's own writer does not say why the disk refuses
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(samples))
        stream.write(samples.data)
    manifest = {"sample_rate": sample_rate, "digest": digest, "lengths": lengths, "hashes": hashes}
    (folder / "manifest.json").write_text(dumps_with_checksum(manifest))


def _row_hash(row: np.ndarray, length: int) -> str:
    return hashlib.sha256(row[:length].data).hexdigest()


def _whole(place: Path, tell: bool = False) -> Waveforms | None:
    """The store, where it is there and whole; else None, with a note about a damaged one where asked."""
    if not place.is_dir():
        return None
    try:
        return _open(place)
    except InputError as error:
        if tell:
            console.print(f"{error} It is built anew.", style="yellow", soft_wrap=True)
        return None


def _open(place: Path) -> Waveforms:
    """Open a store and compare all of it with its checksums.

    Raises:
        InputError: it is not as it was written.
    """
    try:
        manifest = loads_with_checksum((place / "manifest.json").read_text(), older=False)
        samples = np.load(place / "samples.npy", mmap_mode="c")  # torch wants writable memory; nothing reaches the disk
        lengths, hashes = manifest["lengths"], manifest["hashes"]
        with ThreadPoolExecutor() as pool:
            # hashed outside the interpreter's lock, as fast as memory gives it
            found = list(pool.map(_row_hash, samples, lengths))
        if found != hashes or any(row[length:].any() for row, length in zip(samples, lengths, strict=True)):
            raise ValueError("its samples do not give their hashes")
    except MemoryError:
        raise
    except Exception as error:  # numpy's reader of headers raises those of Python's own parser, too
        raise InputError(f"The packed store {place} is damaged: {error or type(error).__name__}.") from error
    return Waveforms(
        samples=samples,
        lengths=np.array(lengths, dtype=np.int64),
        hashes=tuple(hashes),
        sample_rate=manifest["sample_rate"],
        digest=manifest["digest"],
    )
