"""Atomic files and folders, JSON with a checksum, and checks of file names from tables and archives."""

from __future__ import annotations

import errno
import hashlib
import json
import ntpath
import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO

from soundfold.errors import ArgumentError

# errors that the user can fix: no space, no permission, or a file in place of a folder
WRITE_ERRORS = ("EACCES", "EDQUOT", "EEXIST", "EFBIG", "EISDIR", "ENAMETOOLONG", "ENOSPC", "ENOTDIR", "EPERM", "EROFS")

# bytes of a file name without its suffix: file systems allow 255, which a temporary file's name must fit as well
MAX_STEM = 180


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary binary file beside ``path``; flush it and rename it to ``path`` on success.

    Raises:
        OSError: writing failed. The temporary file is removed, and an existing ``path`` is unchanged.
    """
    part = _part(path)
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
        _flush(path.parent)
    except OSError as error:
        # a failed write does not name its file
        error.filename = str(path) if error.errno == errno.EISDIR else error.filename or str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_file(path) as stream:
        stream.write(text.encode())


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Create a temporary folder beside ``path``; flush its files and rename it to ``path`` on success.

    Temporary folders of killed processes are removed first, so only one process may create ``path`` at a time.

    Yields:
        The temporary folder, to be filled by the caller.

    Raises:
        OSError: writing failed, or ``path`` exists and is not empty. The temporary folder is removed.
    """
    _remove_stale(path)
    part = _part(path)
    part.mkdir()
    try:
        yield part
        _complete(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextmanager
def resumable_folder(path: Path) -> Iterator[Path]:
    """As `atomic_folder`, but after an error the temporary folder stays, and the next call yields it again.

    What it contains may be incomplete, or damaged by a power failure. The caller decides what to reuse, and may remove
    it.
    """
    _remove_stale(path)
    part = path.with_name(f"{path.name}.part")
    part.mkdir(exist_ok=True)
    yield part
    _complete(part, path)


def _remove_stale(path: Path) -> None:
    name = re.compile(re.escape(path.name) + r"\.\d+(-[0-9a-f]{8})?\.part")
    for stale in path.parent.iterdir() if path.parent.is_dir() else ():
        if name.fullmatch(stale.name) and stale.is_dir():
            shutil.rmtree(stale)


def _complete(part: Path, path: Path) -> None:
    for content in part.rglob("*"):
        _flush(content)
    _flush(part)
    part.rename(path)
    _flush(path.parent)


def _part(path: Path) -> Path:
    # processes on two machines, or in two containers, may have the same number
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def _flush(path: Path) -> None:
    """Flush a file, or the renames within a folder, to disk, so that they survive a power failure."""
    if os.name != "posix":
        return  # Windows opens no folders, and flushes only files that are open for writing
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network file systems cannot flush a folder
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def refresh(folder: Path) -> None:
    """Make the next look into a folder show what other machines have written there before.

    A client of NFS may answer from its memory of a folder, for up to a minute by default, that a file does not exist.
    It forgets this when it changes the folder itself. On a local file system nothing happens.
    """
    probe = _part(folder / "refresh")
    with suppress(OSError):  # a folder that cannot be written is read as it is
        probe.touch()
        probe.unlink()


def remove_partial_files(paths: Iterable[Path]) -> None:
    """Remove temporary files of killed processes. Only safe for the only process that writes there."""
    for path in paths:
        if path.suffix == ".part":
            path.unlink(missing_ok=True)


@contextmanager
def explain_write_errors(folder: Path, remedy: str) -> Iterator[None]:
    """Convert write errors that the user can fix, such as a full disk, to `ArgumentError`.

    Args:
        folder: named in the message if the error names no file.
        remedy: the last sentence of the message; arguments in backticks become configuration keys.

    Raises:
        ArgumentError: no space, no permission, or a file in place of a folder.
    """
    try:
        yield
    except OSError as error:
        if errno.errorcode.get(error.errno or 0) not in WRITE_ERRORS:
            raise
        path = error.filename or folder
        if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
            remedy = f"A file and a folder have the same name: remove or rename it. {remedy}"
        raise ArgumentError(f"{path} cannot be written: {error.strerror}. {remedy}") from error


def short_stem(name: str) -> str:
    """Return a name for a file without its suffix: of over `MAX_STEM` bytes, the start and a hash of the whole."""
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) <= MAX_STEM:
        return name
    return f"{encoded[: MAX_STEM - 9].decode('utf-8', 'ignore')}-{hashlib.sha256(encoded).hexdigest()[:8]}"


def dumps_with_checksum(values: dict[str, Any]) -> str:
    """Serialize values to JSON and add their checksum under the key ``checksum``."""
    return json.dumps({**values, "checksum": _checksum(values)}, indent=1)


def loads_with_checksum(text: str) -> dict[str, Any]:
    """Parse JSON written by `dumps_with_checksum` and verify its checksum.

    Raises:
        ValueError: the text is not a JSON object, has no checksum, or its values do not match it.
    """
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    checksum = values.pop("checksum", None)
    if checksum is None:
        raise ValueError("it has no checksum")
    if checksum not in (None, _checksum(values)):
        raise ValueError("its values do not match its checksum, so it was damaged or edited")
    return values


def _checksum(values: dict[str, Any]) -> str:
    # sorted and re-serialized: independent of layout, and tuples equal lists
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def has_control_characters(name: str) -> bool:
    """Return whether a name contains a control character or a separator of lines or paragraphs."""
    # the first test is the fast one
    return not name.isprintable() and any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in name)


def comparable_name(name: str) -> str:
    """Return a name without case, and with one encoding of accents: macOS takes such file names for equal."""
    return unicodedata.normalize("NFC", name).casefold()


def escapes_folder(name: str) -> bool:
    """Return whether a relative name leads out of its folder by the rules of Unix or of Windows."""
    if ".." not in name and "\\" not in name and ":" not in name and not name.startswith("/"):
        return False  # fast, for tables of a million rows
    path = PureWindowsPath(name)  # understands both slashes, and drives
    # splitdrive, because pathlib before Python 3.12 accepts only letters as drive names
    return bool(path.anchor or ntpath.splitdrive(name)[0] or ".." in path.parts)
