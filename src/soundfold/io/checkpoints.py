"""Atomic `torch.save` files whose damage is detected."""

from __future__ import annotations

import errno
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from soundfold.errors import is_out_of_memory
from soundfold.io.atomic import atomic_file


def save_checkpoint(path: Path, content: Any) -> None:
    """Write a `torch.save` file atomically.

    Raises:
        OSError: writing failed; the message includes the file's size.
    """
    # `torch.save` hides the stream's OSError, so serialize to memory first
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        with atomic_file(path) as stream:
            stream.write(buffer.getbuffer())
    except OSError as error:
        if error.errno is None:
            raise
        reason = f"{os.strerror(error.errno)}, and it takes {buffer.getbuffer().nbytes / 1e6:.1f} MB"
        raise OSError(error.errno, reason, error.filename) from error


def load_checkpoint(path: Path) -> Any:
    """Read a `torch.save` file to the CPU with ``weights_only=True``, after verifying its checksums.

    Raises:
        ValueError: a tensor does not match its checksum.
        Exception: the file is not readable; `torch.load` raises many types.
    """
    # files of PyTorch before 1.6 are not zip archives and have no checksums
    if zipfile.is_zipfile(path):
        _verify(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def find_damage(path: Path) -> str | None:
    """Return what is damaged in a file that `save_checkpoint` wrote, or None if it is intact."""
    try:
        _verify(path)
        # zipfile accepts broken structures that PyTorch rejects; memory-mapped, so no tensor is read
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (ValueError, zipfile.BadZipFile) as error:
        return str(error)
    except Exception as error:  # both raise many types, and PyTorch's message recommends loading it unsafely
        # EINVAL: a damaged directory may point before the file. Other OSErrors are not the file's fault
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        return f"it cannot be read: {type(error).__name__}"
    return None


def _verify(path: Path) -> None:
    """Verify the archive's CRC-32 of every tensor, which `torch.load` does not check."""
    with zipfile.ZipFile(path) as archive:
        name = archive.testzip()
        # PyTorch reads uninitialized memory for a record that a flipped bit marks as a folder
        name = name or next((m.filename for m in archive.infolist() if m.external_attr & 0x10), None)
    if name is not None:
        raise ValueError(f"its record {name} is not as it was written")
