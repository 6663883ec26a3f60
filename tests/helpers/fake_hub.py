"""A stand-in for the Hugging Face Hub: repositories are local folders, downloads go through the real client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class Handler(BaseHTTPRequestHandler):
    """Answers what ``snapshot_download`` asks: the revision's commit and files, and each file."""

    def __init__(self, repositories: dict[str, Path], *args) -> None:
        self.repositories = repositories
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        kind, _, rest = path.partition("/") if path.startswith("api/") else ("", "", path)
        parts = rest.removeprefix("models/").split("/") if kind else rest.split("/")
        folder = self.repositories.get("/".join(parts[:2]))
        if folder is None:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif len(parts) > 3 and parts[3] not in ("main", "v1", COMMIT):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif kind:
            names = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]
            tree = [
                {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": digest(folder / name)}
                for name in names
            ]
            info = {"id": "/".join(parts[:2]), "sha": COMMIT, "private": False, "tags": []}
            content = json.dumps(tree if parts[2:3] == ["tree"] else info).encode()
            self.answer(200, content, {"Content-Type": "application/json"})
        else:
            file = folder / "/".join(parts[4:])
            self.answer(200, file.read_bytes(), {"ETag": f'"{digest(file)}"', "X-Repo-Commit": COMMIT})

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args) -> None:
        pass


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[str]:
    """Serve folders as repositories by their names, ``owner/name``, with the revisions main and v1; yield the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, repositories))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
