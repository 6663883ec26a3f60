"""Find the audio files of a folder with one subfolder per class."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from soundfold.errors import InputError
from soundfold.io.audio import EXTENSIONS
from soundfold.io.console import console

# made by archives and by file systems
SYSTEM_FOLDERS = {"__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "#recycle"}
MAX_NAMES = 5  # of a note


def find_audio(root: Path) -> list[str]:
    """Return the names of the audio files below ``root``, sorted; a note lists its folders that are not classes.

    Links to files and folders are followed. Hidden files and folders, and `SYSTEM_FOLDERS`, are not read.

    Raises:
        InputError: a folder cannot be read or is reached twice, a link is broken, or an audio file is not a regular
            file. Without this error its clips, or a class, would be missing without notice.
    """
    files: list[str] = []
    folders, skipped = [""], []
    name_of: dict[str, str] = {}
    for folder in folders:  # grows
        path = os.path.realpath(root / folder)
        if (other := name_of.setdefault(path, folder)) != folder:
            raise InputError(
                f"{root / folder} and {root / other} are one folder, reached through a link, so its clips would occur "
                "twice. Remove the link."
            )
        for name, is_folder in _entries(root, folder):
            if is_folder and _is_skipped(name):
                skipped += [name] if not folder else []
            elif is_folder:
                folders.append(f"{folder}/{name}".lstrip("/"))
            elif not _is_skipped(name) and Path(name).suffix.lower() in EXTENSIONS:
                files.append(f"{folder}/{name}".lstrip("/"))
    classes = {name.split("/")[0] for name in files}
    _print_note(root, skipped, [name for name in folders if name and "/" not in name and name not in classes])
    return sorted(files)


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _entries(root: Path, folder: str) -> Iterator[tuple[str, bool]]:
    """Yield the name of each entry of a folder, and whether it is a folder, sorted."""
    path = root / folder
    try:
        with os.scandir(path) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            path = root / folder / entry.name
            # a hidden file may be a broken link, as a lock file of an editor is
            if _is_skipped(entry.name):
                yield entry.name, entry.is_dir()
                continue
            mode = entry.stat().st_mode
            is_file = Path(entry.name).suffix.lower() in EXTENSIONS and not stat.S_ISDIR(mode)
            if is_file and not stat.S_ISREG(mode):
                raise InputError(f"{path} is not a regular file. Remove it.")
            yield entry.name, stat.S_ISDIR(mode)
    except OSError as error:
        fault = "is a broken link" if path.is_symlink() and not os.path.exists(path) else "cannot be read"
        raise InputError(
            f"{path} {fault} ({error.strerror}), so clips would be missing. Restore access to it, or remove it."
        ) from error


def _print_note(root: Path, skipped: Sequence[str], without_audio: Sequence[str]) -> None:
    parts = [f"{_names(skipped)} (hidden, or of the system)"] if skipped else []
    parts += [f"{_names(without_audio)} (no file of a known audio format)"] if without_audio else []
    if parts:
        console.print(f"note: Folders in {root} that are not classes: {'; '.join(parts)}.", soft_wrap=True)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    # repr escapes control characters
    return ", ".join(map(repr, names[:MAX_NAMES])) + more
