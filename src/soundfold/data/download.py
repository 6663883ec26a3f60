"""Download ESC-50 with pooch."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import DownloadColumn, Progress, TaskID, TransferSpeedColumn

from soundfold.data.unpacking import MAX_BYTES, TABLE, TABLE_SHA256, ArchiveError, require_space, unpack
from soundfold.errors import ArgumentError
from soundfold.io.console import console
from soundfold.io.locks import exclusive_lock

ESC50_URL = "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"
RETRIES = 4
TIMEOUT = 30.0  # s without a byte
MAX_WAIT = 60.0  # s, of a server's Retry-After
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # HTTP statuses worth another attempt
ALTERNATIVES = (
    "Set `root` to a copy (a folder with meta/esc50.csv and audio/), or use data=synthetic, which is rendered locally."
)


def fetch_esc50(root: Path, url: str = ESC50_URL, table_sha256: str = TABLE_SHA256) -> None:
    """Download ESC-50 (about 600 MB) to ``root``, unless it exists, with a progress bar.

    Nothing appears at ``root`` before the archive has been checked and unpacked, see `unpack`. The archive is stored in
    ``<root>.download`` meanwhile; a complete archive stays there if the disk fills, for the next call.

    Args:
        root: does not exist, is an empty folder, or contains the collection.
        url: of a ZIP archive of the collection.
        table_sha256: of the collection's table.

    Raises:
        ArgumentError: the archive cannot be downloaded or written, or is not ESC-50's; the message names alternatives.
    """
    root = root.resolve()  # a link's target
    folder = root.with_name(f"{root.name}.download")
    try:
        if (root / TABLE).is_file():
            return
        root.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(root.with_name(f"{root.name}.lock"), "is downloading ESC-50"):
            if (root / TABLE).is_file():  # another process held the lock
                return
            if root.exists() and (not root.is_dir() or any(root.iterdir()) or root.is_mount()):
                raise ArgumentError(
                    f"`root`={root} exists, but has no {TABLE}. It is not replaced: move it away to have ESC-50 "
                    f"downloaded. {ALTERNATIVES}"
                )
            try:
                unpack(_download(url, folder), root, table_sha256)
            except ArchiveError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            shutil.rmtree(folder)
    except ArchiveError as error:
        raise ArgumentError(
            f"ESC-50 could not be downloaded from {url} to `root`={root}: {error}. {ALTERNATIVES}"
        ) from error
    except OSError as error:
        raise ArgumentError(
            f"ESC-50 cannot be read from or written to `root`={root}: {error}. The archive and its clips take 1.6 GB. "
            f"Free some space, or set `root` to a folder on another disk. {ALTERNATIVES}"
        ) from error


def _download(url: str, folder: Path) -> Path:
    """Return the archive in ``folder``, downloaded unless a complete one is there.

    Raises:
        ArchiveError: it is not available.
    """
    # imported here: most calls find the collection
    import pooch
    from requests.exceptions import ChunkedEncodingError, RequestException

    name = "ESC-50.zip"
    files = pooch.create(folder, base_url="", registry={name: None}, urls={name: url}, retry_if_failed=RETRIES)
    hooks = {"response": partial(_check_response, folder)}
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("Downloading ESC-50", total=None)

        def download(url: str, path: str, files: pooch.Pooch) -> None:
            bar = _FileSizeBar(progress, task, Path(path))
            pooch.HTTPDownloader(bar, chunk_size=1 << 16, timeout=TIMEOUT, hooks=hooks)(url, path, files)

        try:
            files.fetch(name, downloader=download)
        except RequestException as error:
            cut = isinstance(error, ChunkedEncodingError)
            reason = "the connection closed too early" if cut else _root_cause(error)
            raise ArchiveError(f"{reason}, in the last of {RETRIES + 1} attempts") from error
    return folder / name


class _FileSizeBar:
    """Progress bar for pooch, read off the file: pooch counts full chunks, and servers send shorter ones."""

    total = 0  # bytes, set by pooch; 0: unknown

    def __init__(self, progress: Progress, task: TaskID, path: Path) -> None:
        self._progress, self._task, self._path = progress, task, path

    def update(self, _: int) -> None:
        size = self._path.stat().st_size
        if size > MAX_BYTES:
            raise ArchiveError(f"the archive exceeds {MAX_BYTES / 1e9:.0f} GB; ESC-50's is smaller")
        self._progress.update(self._task, completed=size, total=self.total or None)

    def reset(self) -> None: ...
    def close(self) -> None: ...


def _check_response(folder: Path, response: Any, **_: Any) -> None:
    """Check the header of a `requests.Response`; wait if a busy server asks for it, before pooch tries again."""
    if response.is_redirect:
        return
    if response.status_code in TRANSIENT:
        if wait := _retry_after(response):
            console.print(f"The server answered {response.status_code}; waiting {wait:.0f} s.")
            time.sleep(wait)
        return
    if not response.ok:
        raise ArchiveError(f"the server answered {response.status_code} {response.reason}")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise ArchiveError("the server sent a web page instead of an archive, as networks do that require a login")
    length = response.headers.pop("Content-Length", "")
    if length.isdecimal():  # pooch would fail on any other
        response.headers["Content-Length"] = length
        require_space(folder, min(MAX_BYTES, int(length)))


def _retry_after(response: Any) -> float:
    """Return the seconds that a response asks to wait, at most `MAX_WAIT`; 0 without a valid Retry-After."""
    from urllib3 import Retry
    from urllib3.exceptions import InvalidHeader

    with suppress(InvalidHeader, ValueError):
        return min(MAX_WAIT, Retry().get_retry_after(response.raw) or 0.0)
    return 0.0


def _root_cause(error: BaseException) -> BaseException:
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error
