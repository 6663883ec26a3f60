"""Files and folders that are whole or absent, names inside them, and JSON that shows when its values were changed."""

from __future__ import annotations

import errno
import hashlib
import json
import ntpath
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO

from soundfold.errors import ArgumentError

# what a file system refuses for want of space or of leave, or for a file where a folder is to be; the user can mend it
WRITE_ERRORS = ("EACCES", "EDQUOT", "EEXIST", "EFBIG", "ENOSPC", "ENOTDIR", "EPERM", "EROFS")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary stream to a file that is never seen in part: written beside its place, flushed, then renamed.

    Raises:
        OSError: it cannot be written; nothing is left of it, and what was there before stays.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
        _flush(path.parent)
    except OSError as error:
        # a write that fails does not say where
        error.filename = error.filename or str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, so that it is never seen in part."""
    with atomic_file(path) as stream:
        stream.write(text.encode())


@contextmanager
def atomic_folder(place: Path) -> Iterator[Path]:
    """A folder to fill, which is never seen in part: made beside its place, its files flushed, then renamed.

    Parts that killed processes left of the same folder are removed first, so the caller must be the only one to make
    it.

    Yields:
        The folder that is to be filled.

    Raises:
        OSError: it cannot be written, or is there and not empty; nothing is left of it.
    """
    for stale in place.parent.glob(f"{place.name}.*.part/"):
        shutil.rmtree(stale)
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    part.mkdir()
    try:
        yield part
        for path in part.rglob("*"):
            _flush(path)
        _flush(part)
        part.rename(place)
        _flush(place.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _flush(path: Path) -> None:
    """Have what was written to a file, or renamed within a folder, outlast a power cut."""
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, nor a file flushed by who only reads it
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(paths: Iterable[Path]) -> None:
    """Remove those of the files that killed processes left half-written; for the only process that writes there."""
    for path in paths:
        if path.suffix == ".part":
            path.unlink()


@contextmanager
def explain_write_errors(folder: Path, remedy: str) -> Iterator[None]:
    """Tell what the file system refuses, such as more than a disk holds, as bad input.

    Args:
        folder: where is written.
        remedy: a sentence.

    Raises:
        InputError: there is no space or no leave to write.
    """
    try:
        yield
    except OSError as error:
        if errno.errorcode.get(error.errno or 0) not in WRITE_ERRORS:
            raise
        raise ArgumentError(f"{error.filename or folder} cannot be written: {error.strerror}. {remedy}") from error


def dumps_with_checksum(values: dict[str, Any]) -> str:
    """Values as JSON, with a checksum of them."""
    return json.dumps({**values, "checksum": _checksum(values)}, indent=1)


def loads_with_checksum(text: str, older: bool = True) -> dict[str, Any]:
    """The values of what `dumps_with_checksum` wrote.

    Args:
        older: take a text without a checksum, too, as earlier versions wrote it, whatever it holds.

    Raises:
        ValueError: the text is no JSON object, or its values are not those that were written.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    checksum = values.pop("checksum", None)
    if checksum is None and not older:
        raise ValueError("it has no checksum")
    if checksum not in (None, _checksum(values)):
        raise ValueError("its values do not give its checksum, so it was damaged or changed by hand")
    return values


def _checksum(values: dict[str, Any]) -> str:
    # of the values as they are read back, so that neither layout nor tuples count
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def escapes_folder(name: str) -> bool:
    """Whether a name leads out of the folder that it is of, by the rules of Unix or of Windows."""
    path = PureWindowsPath(name)  # knows both slashes, and drives
    # whose name need not be a letter: pathlib knows that from Python 3.12 on
    return bool(path.anchor or ntpath.splitdrive(name)[0] or ".." in path.parts)
