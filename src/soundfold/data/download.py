"""Fetch ESC-50 from its public archive, verify it, unpack it."""

from __future__ import annotations

import http.client
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from soundfold.errors import InputError
from soundfold.files import whole_folder
from soundfold.locks import alone

ESC50_URL = "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"


def fetch_esc50(root: Path, url: str = ESC50_URL, clips: int = 2000) -> None:
    """Download ESC-50 (about 600 MB) to ``root``, unless it is there, with a progress bar.

    An archive cut short is kept as ``<root>.zip.part`` and continued by the next call. Nothing appears at ``root``
    before the archive has been checked (CRC of every member, number of clips) and unpacked.

    Raises:
        InputError: the archive cannot be fetched, or is not ESC-50's; the message names the alternatives.
    """
    if (root / "meta" / "esc50.csv").is_file():
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with alone(root.with_name(f"{root.name}.lock"), "is fetching ESC-50"):
            if not (root / "meta" / "esc50.csv").is_file():
                part = root.with_name(f"{root.name}.zip.part")
                _download(url, part)
                _unpack(part, root, clips)
                part.unlink()
    except (http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise InputError(
            f"There is no ESC-50 at data.root={root}, and it could not be downloaded from {url}: {reason}. "
            "Give data.root=DIRECTORY of a copy (with meta/esc50.csv and audio/), or try data=synthetic, which is "
            "rendered here."
        ) from error


def _download(url: str, part: Path) -> None:
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    columns = (TextColumn("ESC-50"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after the last byte: the part is whole
            return
        raise
    with response, Progress(*columns) as progress:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        total = int(length) + (start if resumed else 0) if length else None
        task = progress.add_task("download", total=total, completed=start if resumed else 0)
        cut = False
        with part.open("ab" if resumed else "wb") as stream:
            try:
                while block := response.read(1 << 20):
                    stream.write(block)
                    progress.advance(task, len(block))
            except http.client.IncompleteRead as error:  # an answer in chunks, which does not say its length before
                stream.write(error.partial)
                cut = True
        size = part.stat().st_size
        if cut or (total is not None and size < total):
            of = "" if total is None else f" of {total}"
            raise OSError(f"the connection closed after {size}{of} bytes; run again to continue")


def _unpack(part: Path, root: Path, clips: int) -> None:
    try:
        with whole_folder(root) as folder, zipfile.ZipFile(part) as archive:
            names = [name for name in archive.namelist() if name.endswith((".wav", "meta/esc50.csv"))]
            if sum(name.endswith(".wav") for name in names) != clips:
                raise zipfile.BadZipFile(f"it does not hold {clips} clips")
            for name in names:
                # only the last two parts are used, so no member can leave the folder
                place = folder.joinpath(*Path(name).parts[-2:])
                place.parent.mkdir(exist_ok=True)
                with archive.open(name) as source, place.open("wb") as target:
                    shutil.copyfileobj(source, target)  # checks the member's CRC
    except (zipfile.BadZipFile, zlib.error) as error:
        part.unlink()
        raise OSError(f"what arrived is not ESC-50's archive ({error})") from error
