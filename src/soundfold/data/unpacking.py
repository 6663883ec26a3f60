"""Unpack ESC-50's archive: completely or not at all, and nothing outside its folder."""

from __future__ import annotations

import csv
import errno
import hashlib
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from soundfold.io.atomic import atomic_folder, escapes_folder

TABLE = "meta/esc50.csv"
# of the official table: 2,000 rows, Unix line ends
TABLE_SHA256 = "ca660da60191a97de289983a05821c9382d852a38a2ba8428980816b68cf6246"
MAX_BYTES = 2_000_000_000  # of the archive, and of its content: twice ESC-50's size, so that no bomb fills a disk


class ArchiveError(Exception):
    """The archive is unavailable, damaged, unsafe or not ESC-50's; the message is a clause that says why."""


def unpack(archive: Path, root: Path, table_sha256: str = TABLE_SHA256) -> None:
    """Unpack the table, its clips and the license to ``root``, which appears complete or not at all.

    Args:
        archive: ZIP file, stored or deflated. Other members are skipped.
        root: does not exist, or is an empty folder.
        table_sha256: of ``meta/esc50.csv`` with Unix line ends.

    Raises:
        ArchiveError: a member is damaged or unsafe, the content exceeds `MAX_BYTES`, or the table or the clips are not
            the expected ones.
        OSError: ``root`` cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened, atomic_folder(root) as folder:
            members = _select_members(opened, table_sha256)
            require_space(root.parent, sum(member.file_size for member in members.values()))
            extract_members(opened, members, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        # zipfile raises all of these for damaged files
        raise ArchiveError(f"the archive is damaged ({error})") from error


def extract_members(opened: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], folder: Path) -> None:
    """Write checked members of an archive to new files, by their paths in a folder."""
    for name, member in members.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # zipfile reads no more than the declared size, and checks the CRC
        with opened.open(member) as source, target.open("xb") as stream:
            shutil.copyfileobj(source, stream, 1 << 20)


def require_space(folder: Path, size: int) -> None:
    """Raise OSError if the file system of a folder has less than ``size`` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{size / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")


def _select_members(opened: zipfile.ZipFile, table_sha256: str) -> dict[str, zipfile.ZipInfo]:
    """Check the archive and return the members to unpack, by their path in the collection."""
    infos = opened.infolist()
    for info in infos:
        check_member(info)
    if (size := sum(info.file_size for info in infos)) > MAX_BYTES:
        raise ArchiveError(f"the archive would unpack to {size / 1e9:.1f} GB, more than {MAX_BYTES / 1e9:.0f} GB")
    if len({info.filename for info in infos}) < len(infos):
        raise ArchiveError("the archive contains a member twice")
    tables = [info for info in infos if f"/{info.filename}".endswith(f"/{TABLE}")]
    if len(tables) != 1:
        raise ArchiveError(f"the archive contains {len(tables)} tables {TABLE}, not one")
    with opened.open(tables[0]) as stream:
        table = stream.read(1 << 20).replace(b"\r\n", b"\n")  # the official table is much shorter
    if (digest := hashlib.sha256(table).hexdigest()) != table_sha256:
        raise ArchiveError(
            f"its table {TABLE} has the SHA-256 {digest}, the official one {table_sha256}: folds or labels differ from "
            "those of published results. To use it nevertheless, unpack the archive by hand"
        )
    base = re.escape(tables[0].filename.removesuffix(TABLE))
    matches = {info: re.fullmatch(rf"{base}(audio/.+\.wav|LICENSE|{TABLE})", info.filename) for info in infos}
    members = {match[1]: info for info, match in matches.items() if match}
    expected = {f"audio/{row['filename']}" for row in csv.DictReader(table.decode().splitlines())}
    clips = members.keys() - {TABLE, "LICENSE"}
    if clips != expected:
        others = len(clips - expected)
        raise ArchiveError(
            f"the archive contains {len(clips) - others} of the {len(expected)} clips of its table, and {others} others"
        )
    return members


def check_member(info: zipfile.ZipInfo) -> None:
    """Raise `ArchiveError` if a member would be written outside its folder, is a link, or is compressed unusually."""
    if info.header_offset < 0:  # zipfile would raise OSError, as a faulty disk does
        raise ArchiveError("the archive is damaged (negative offset of a member)")
    if escapes_folder(info.filename):
        raise ArchiveError(f"its member {info.filename!r} would be written outside the folder")
    # the upper half of the attributes is the Unix mode
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError(f"its member {info.filename!r} is a link or a special file")
    # zipfile bounds the memory of no other method
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveError(f"its member {info.filename!r} is neither stored nor deflated")
