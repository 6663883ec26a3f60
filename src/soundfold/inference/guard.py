"""Limits of the demo page's server: one origin, the routes of the page, no URLs from visitors, a total of uploads."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

HOSTS = ("127.0.0.1", "localhost")
# routes that the page requests; Gradio's others include a proxy and an editor of the page
READ = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static|svelte|pwa_icon)/.*|"
    r"/gradio_api/(startup-events|app_id|info|upload_progress|queue/data|heartbeat/\w+|file=/.*|file=[A-Za-z]:[\\/].*)/?"
)
UPLOAD = "/gradio_api/upload"
WRITE = re.compile(r"/gradio_api/(upload|queue/join|cancel|reset)/?")
# of a request that is not an upload
MAX_BODY = 100_000
# boundaries and headers around an uploaded file
MULTIPART_BYTES = 10_000
URL = re.compile(r"\s*([a-z][a-z0-9+.-]+:|//|\\\\)", re.IGNORECASE)


def refuse_foreign(host: str | None, origin: str | None, port: int) -> str | None:
    """Return why a request is not one of a page that this machine serves for itself; None if it is.

    Args:
        host, origin: headers of the request.
        port: of the server.
    """
    origins = [f"{name}:{port}" for name in HOSTS] + (list(HOSTS) if port == 80 else [])
    # the name of another site may resolve to this machine
    if host not in origins:
        return "This page is served for this machine only, under its own address."
    if origin is not None and origin.removeprefix("http://") not in origins:
        return "Requests of other sites are refused."
    return None


class Guard:
    """ASGI middleware that refuses requests which the page itself does not make.

    Args:
        app: the application behind it.
        folder: of the uploads.
        max_bytes: of an upload.
        max_total: of all files in the folder, in bytes.
    """

    def __init__(self, app: Application, folder: Path, max_bytes: int, max_total: int) -> None:
        self.app, self.folder, self.max_bytes, self.max_total = app, folder, max_bytes, max_total
        self.uploading = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on a request, or answer it with 403, 404, 411, 413 or 507."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := self._refuse(scope, headers):
            await _answer(send, *refusal)
        elif scope["method"] != "POST":
            await self.app(scope, receive, send)
        elif scope["path"].rstrip("/") == UPLOAD:
            length = int(headers["content-length"])
            self.uploading += length
            try:
                await self.app(scope, receive, send)
            finally:
                self.uploading -= length
        else:
            await self._pass_on_plain(scope, receive, send)

    def _refuse(self, scope: Message, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return status and reason if a request is refused by its headers."""
        if reason := refuse_foreign(headers.get("host"), headers.get("origin"), scope["server"][1]):
            return 403, reason
        routes = {"GET": READ, "HEAD": READ, "POST": WRITE}.get(scope["method"])
        if routes is None or not routes.fullmatch(scope["path"]):
            return 404, "The page does not use this address."
        return self._refuse_size(scope, headers) if scope["method"] == "POST" else None

    def _refuse_size(self, scope: Message, headers: dict[str, str]) -> tuple[int, str] | None:
        # the server reads no more than this length
        length = headers.get("content-length", "")
        if not re.fullmatch(r"\d{1,15}", length):
            return 411, "A request must state its length."
        if scope["path"].rstrip("/") != UPLOAD:
            return (413, "The request is too large.") if int(length) > MAX_BODY else None
        if int(length) > self.max_bytes + MULTIPART_BYTES:
            return 413, f"The file exceeds the maximum allowed size of {self.max_bytes / 1e6:g} MB."
        if folder_bytes(self.folder) + self.uploading + int(length) > self.max_total:
            return 507, "There are too many uploads. They are deleted after some minutes; try again later."
        return None

    async def _pass_on_plain(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on a request unless its body names a file by a URL, which Gradio would download."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        try:
            names_url = _names_url(json.loads(body or b"null"))
        except (ValueError, RecursionError):
            await _answer(send, 400, "The request is not JSON.")
            return
        if names_url:
            await _answer(send, 403, "Upload the file; addresses of files are refused.")
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)


def folder_bytes(folder: Path) -> int:
    """Return the total size of the files in a folder; files that are deleted meanwhile count as nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def _names_url(value: Any) -> bool:
    """Return whether a value has a key ``path`` whose text is a URL or the name of a network share."""
    if isinstance(value, list):
        return any(map(_names_url, value))
    if not isinstance(value, dict):
        return False
    path = value.get("path")
    return (isinstance(path, str) and URL.match(path) is not None) or any(map(_names_url, value.values()))


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
