"""Unpack ESC-50's archive: all of it or nothing, and nothing outside its folder."""

from __future__ import annotations

import csv
import errno
import hashlib
import shutil
import stat
import zipfile
import zlib
from pathlib import Path

from soundfold.io.atomic import atomic_folder, escapes_folder

TABLE = "meta/esc50.csv"
# of the official table, 2,000 rows, with Unix line ends
TABLE_SHA256 = "ca660da60191a97de289983a05821c9382d852a38a2ba8428980816b68cf6246"
# bytes, of the archive and of what it unpacks to: about twice what ESC-50 has, so that no bomb fills a disk
LIMIT = 2_000_000_000


class ArchiveError(Exception):
    """The archive is damaged, unsafe or not ESC-50's; says in what way."""


def unpack(archive: Path, root: Path, table_sha256: str = TABLE_SHA256) -> None:
    """Unpack the table, its clips and the licence to ``root``, which appears whole or not at all.

    Args:
        archive: a ZIP file, stored or deflated. It may hold more, which is left out.
        root: does not exist, or is an empty folder.
        table_sha256: of ``meta/esc50.csv``, where Windows line ends count as Unix ones.

    Raises:
        ArchiveError: a member is damaged or could be written outside ``root``, the archive would unpack to more than
            `LIMIT`, or its table or clips are not as expected.
        OSError: ``root`` cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened, atomic_folder(root) as folder:
            members = _members(opened, table_sha256)
            require_room(root.parent, sum(member.file_size for member in members.values()))
            for place, member in members.items():
                target = folder / place
                target.parent.mkdir(parents=True, exist_ok=True)
                # zipfile gives no more of a member than its declared size, and raises where its CRC differs
                with opened.open(member) as source, target.open("xb") as stream:
                    shutil.copyfileobj(source, stream, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        # zipfile raises all of these for damaged files
        raise ArchiveError(f"it is damaged ({error})") from error


def require_room(folder: Path, size: int) -> None:
    """Raise OSError where the disk of a folder has less than ``size`` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{size / 1e9:.2f} GB are needed there, {free / 1e9:.2f} GB are free")


def _members(opened: zipfile.ZipFile, table_sha256: str) -> dict[str, zipfile.ZipInfo]:
    """What is to be unpacked, by its place in the collection."""
    every = opened.infolist()
    for member in every:
        if member.header_offset < 0:  # zipfile would raise OSError, as a faulty disk does
            raise ArchiveError("it is damaged (a member before its beginning)")
        if escapes_folder(member.filename):
            raise ArchiveError(f"its member {member.filename!r} would lie outside the folder")
        # the upper half is the mode of the file on Unix
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveError(f"its member {member.filename!r} is a link or a special file")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveError(f"its member {member.filename!r} is compressed by another method than deflate")
    if (size := sum(member.file_size for member in every)) > LIMIT:
        raise ArchiveError(f"it would unpack to {size / 1e9:.1f} GB; ESC-50 is less than {LIMIT / 1e9:.0f} GB")
    tables = [member for member in every if f"/{member.filename}".endswith(f"/{TABLE}")]
    if len(tables) != 1:
        raise ArchiveError(f"it holds {len(tables)} tables {TABLE}, not one")
    base = tables[0].filename.removesuffix(TABLE)
    members: dict[str, zipfile.ZipInfo] = {}
    for member in every:
        place = member.filename.removeprefix(base)
        clip = place.startswith("audio/") and place.endswith(".wav")
        if member.filename.startswith(base) and (clip or place in (TABLE, "LICENSE")):
            if place in members:
                raise ArchiveError(f"it holds {member.filename!r} twice")
            members[place] = member
    with opened.open(tables[0]) as stream:
        table = stream.read(1 << 20).replace(b"\r\n", b"\n")  # one that is longer is another table
    if (found := hashlib.sha256(table).hexdigest()) != table_sha256:
        raise ArchiveError(
            f"its table {TABLE} has the SHA-256 {found}, the official one {table_sha256}: folds or labels differ from "
            "those that published figures refer to. To use it all the same, unpack the archive by hand"
        )
    named = {f"audio/{row['filename']}" for row in csv.DictReader(table.decode().splitlines())}
    clips = {place for place in members if place.endswith(".wav")}
    if clips != named:
        raise ArchiveError(
            f"it holds {len(clips & named)} of the {len(named)} clips of its table, and {len(clips - named)} others"
        )
    return members
