"""Checkpoints and weights: files of `torch.save` that are whole or absent, and whose damage is found."""

from __future__ import annotations

import errno
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from soundfold.io.atomic import atomic_file


def save_checkpoint(path: Path, content: Any) -> None:
    """Write what `torch.save` takes, whole or not at all.

    Raises:
        OSError: it cannot be written; the message says how large it is.
    """
    # in memory first: of a stream that fails, torch tells nothing but its own state
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        with atomic_file(path) as stream:
            stream.write(buffer.getbuffer())
    except OSError as error:
        if error.errno is None:
            raise
        size = f"{os.strerror(error.errno)}, and it takes {buffer.tell() / 1e6:.1f} MB"
        raise OSError(error.errno, size, error.filename) from error


def load_checkpoint(path: Path) -> Any:
    """Read any file of `torch.save` to the CPU, running nothing found in it.

    Raises:
        ValueError: a tensor is not as it was written.
        Exception: of many kinds, where it is no such file.
    """
    # torch's format before 1.6 is no archive, and has no checksums
    if zipfile.is_zipfile(path):
        _verify(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def find_damage(path: Path) -> str | None:
    """What of a file that `save_checkpoint` wrote is not as it was written; None where all is."""
    try:
        _verify(path)
        # mapped, so that no tensor is read: the structure, of which PyTorch is less forgiving
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (ValueError, zipfile.BadZipFile) as error:
        return str(error)
    except Exception as error:  # both raise many kinds, and PyTorch's words advise to load it unsafely
        # a directory may send its reader to before the file; no other refusal of the system is the file's fault
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        return f"it cannot be read: {type(error).__name__}"
    return None


def _verify(path: Path) -> None:
    """Compare the CRC-32 that the archive has of every tensor, which `torch.load` does not."""
    with zipfile.ZipFile(path) as archive:
        name = archive.testzip()
        # of what a changed bit marks as a folder PyTorch gives whatever lies in memory
        name = name or next((m.filename for m in archive.infolist() if m.external_attr & 0x10), None)
    if name is not None:
        raise ValueError(f"{name} in it is not as it was written")
