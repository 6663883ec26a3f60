"""Fetch ESC-50 from its public archive, whatever the network does meanwhile."""

from __future__ import annotations

import email.utils
import http.client
import json
import random
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from soundfold.data.unpacking import LIMIT, TABLE, TABLE_SHA256, ArchiveError, require_room, unpack
from soundfold.errors import InputError
from soundfold.io.atomic import write_text
from soundfold.io.locks import exclusive_lock

ESC50_URL = "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"
ATTEMPTS = 5
STALLED = 30.0  # s without a byte, after which a connection counts as cut
LONGEST_WAIT = 60.0  # s between two attempts, whatever the server asks for
PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be others in a while


Answer = http.client.HTTPResponse | urllib.error.HTTPError


class _Unavailable(Exception):
    """The server does not give the archive, and would not if it were asked again."""


class _Passing(Exception):
    """What may be better in a while; ``after``: seconds that the server asks to wait."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


def fetch_esc50(
    root: Path,
    url: str = ESC50_URL,
    table_sha256: str = TABLE_SHA256,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Download ESC-50 (about 600 MB) to ``root``, unless it is there, with a progress bar.

    An archive cut short is kept as ``<root>.zip.part`` and continued by the next attempt, or the next call. Nothing
    appears at ``root`` before the whole archive has been checked and unpacked, see `unpack`.

    Args:
        root: does not exist, is an empty folder, or holds the collection.
        url: of a ZIP archive of the collection.
        table_sha256: of the collection's table.
        sleep: waits some seconds between attempts.

    Raises:
        InputError: the archive cannot be fetched or written, or is not ESC-50's; the message names the alternatives.
    """
    root = root.resolve()  # what a link leads to
    otherwise = "Give data.root=DIRECTORY of a copy (with meta/esc50.csv and audio/), or try data=synthetic, which is "
    otherwise += "rendered here."
    try:
        if (root / TABLE).is_file():
            return
        root.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(root.with_name(f"{root.name}.lock"), "is fetching ESC-50"):
            if (root / TABLE).is_file():  # another process had the lock
                return
            if root.exists() and (not root.is_dir() or any(root.iterdir()) or root.is_mount()):
                raise InputError(
                    f"data.root={root} is there, but has no {TABLE}; what is there is not replaced. Move it away to "
                    f"have ESC-50 downloaded. {otherwise}"
                )
            part = Part(root.with_name(f"{root.name}.zip.part"))
            _download(url, part, sleep)
            try:
                unpack(part.path, root, table_sha256)
            except ArchiveError:
                part.remove()
                raise
            part.remove()
    except _Unavailable as error:
        raise InputError(
            f"There is no ESC-50 at data.root={root}, and it could not be downloaded from {url}: {error}. {otherwise}"
        ) from error
    except ArchiveError as error:
        raise InputError(
            f"What arrived from {url} for data.root={root} is not ESC-50's archive: {error}. It was deleted, and the "
            f"next run downloads it anew. {otherwise}"
        ) from error
    except OSError as error:
        raise InputError(
            f"ESC-50 can be neither read from data.root={root} nor written there: {error}. The archive and its clips "
            "take 1.6 GB together, beside that folder; free some, or give data.root=DIRECTORY on another disk. "
            f"{otherwise}"
        ) from error


@dataclass(frozen=True)
class Told:
    """What a server told of an archive.

    Attributes:
        version: its ETag or, without one, its date; None where the server gave neither.
        size: bytes, None where unknown.
    """

    version: str | None
    size: int | None


class Part:
    """The first bytes of an archive, at ``path``; beside it, what the server told of that archive."""

    def __init__(self, path: Path) -> None:
        self.path, self._note = path, path.with_name(f"{path.name}.json")

    def size(self) -> int:
        """Bytes; 0 where nothing says what they are of."""
        return self.path.stat().st_size if self.path.is_file() and self._note.is_file() else 0

    @property
    def told(self) -> Told:
        return Told(**json.loads(self._note.read_text()))

    @told.setter
    def told(self, told: Told) -> None:
        write_text(self._note, json.dumps(asdict(told)))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _download(url: str, part: Part, sleep: Callable[[float], None]) -> None:
    """Bring the part to its whole size, in several attempts where need be."""
    columns = (TextColumn("ESC-50"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    drawn = random.SystemRandom()  # not the generator that experiments seed
    with Progress(*columns, console=Console(stderr=True)) as progress:
        shown = partial(progress.update, progress.add_task("download", total=None))
        for attempt in range(ATTEMPTS):
            try:
                _attempt(url, part, shown)
                return
            except _Passing as error:
                if attempt == ATTEMPTS - 1:
                    raise _Unavailable(f"{error}, at the last of {ATTEMPTS} attempts; run again to continue") from error
                # drawn: jobs that were cut off together do not come back together
                wait = min(LONGEST_WAIT, max(2**attempt * drawn.uniform(0.5, 1.5), error.after))
                progress.console.print(f"{error}; trying again in {wait:.0f} s", soft_wrap=True)
            sleep(wait)


def _attempt(url: str, part: Part, shown: Callable[..., None]) -> None:
    start = part.size()
    if start and start == part.told.size:
        return
    with _ask(url, start, part.told.version if start else None) as response:
        begins, told = _told(response)
        if begins and (begins != start or not _agree(part.told, told)):
            part.remove()
            raise _Passing("the server's answer does not go on with what had arrived")
        if told.size is not None and told.size > LIMIT:
            raise _Unavailable(f"it is {told.size / 1e9:.1f} GB, but ESC-50 is less than {LIMIT / 1e9:.0f} GB")
        require_room(part.path.parent, (told.size or 0) - begins)
        if not begins:
            part.remove()
            part.told = told
        whole = told.size or part.told.size
        size = begins
        with part.path.open("ab") as stream:
            while size != whole:
                # what has arrived at once: where the connection is cut, nothing of it is lost
                block = _read(response, (whole or LIMIT + 1) - size)
                if not block:
                    break
                stream.write(block)
                size += len(block)
                shown(total=whole, completed=size)
                if size > LIMIT:
                    part.remove()
                    raise _Unavailable(f"it does not end after {LIMIT / 1e9:.0f} GB; ESC-50 is less")
    if whole is not None and size < whole:
        raise _Passing(f"the connection closed after {size} of {whole} bytes")
    part.told = Told(part.told.version, size)


def _ask(url: str, start: int, version: str | None) -> Answer:
    """The open answer to a request for the archive from byte ``start`` on, which is about an archive."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    if version and not version.startswith("W/"):  # a weak tag is not allowed here; `_agree` compares it
        headers["If-Range"] = version
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=STALLED)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the archive has no byte `start`
            return error
        if error.code in PASSING:
            raise _Passing(str(error), _seconds(error.headers["Retry-After"])) from error
        raise _Unavailable(str(error)) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise _Unavailable(str(reason)) from error
        raise _Passing(_words(reason)) from error
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise _Unavailable("a web page came instead of an archive, as where a network asks for a login")
    return response


def _read(response: Answer, most: int) -> bytes:
    try:
        return response.read1(min(most, 1 << 20))
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(f"the connection was cut ({_words(error)})") from error


def _words(error: object) -> str:
    return str(error) or type(error).__name__


def _told(response: Answer) -> tuple[int, Told]:
    """The first byte that an answer gives, -1 where it does not say, and what it tells of the archive."""
    version = response.headers["ETag"] or response.headers["Last-Modified"]
    span = response.headers["Content-Range"] or ""
    if response.status == 206 and (found := re.fullmatch(r"bytes (\d{1,15})-\d+/(?:(\d{1,15})|\*)", span)):
        return int(found[1]), Told(version, int(found[2]) if found[2] else None)
    if response.status == 416 and (found := re.fullmatch(r"bytes \*/(\d{1,15})", span)):
        return int(found[1]), Told(version, int(found[1]))
    return (-1, Told(version, None)) if response.status in (206, 416) else (0, Told(version, response.length))


def _agree(before: Told, now: Told) -> bool:
    """Whether two answers may be about the same archive; what either does not tell is left to the archive's CRCs."""
    return all(None in pair or pair[0] == pair[1] for pair in ((before.version, now.version), (before.size, now.size)))


def _seconds(retry_after: str | None) -> float:
    """Of a Retry-After, which is a number or a date; 0 where it is neither (RFC 9110, 10.2.3)."""
    with suppress(ValueError):
        return float(retry_after or 0)
    with suppress(TypeError, ValueError, OverflowError):  # a word that is no date, and a date that no calendar has
        return email.utils.mktime_tz(email.utils.parsedate_tz(retry_after)) - time.time()  # type: ignore[arg-type]
    return 0.0
