"""The stand-in as an HTTP server on loopback."""

from __future__ import annotations

import base64
import gzip
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from helpers.wandb_server import artifacts, runs, sweeps, views
from helpers.wandb_server.query import UnknownField, parse, select
from helpers.wandb_server.state import Refused, State
from helpers.wandb_server.streams import stream

# requests that the pinned client makes
KNOWN = {line for line in (Path(__file__).parent / "requests.txt").read_text().splitlines() if line[:1] != "#"}
OPERATIONS = {**runs.OPERATIONS, **artifacts.OPERATIONS, **sweeps.OPERATIONS, **views.OPERATIONS}


class WandbServer:
    """A server on a free port of loopback; ``state`` is what it has received."""

    def __init__(self, key: str) -> None:
        self.state = State(key=key)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.state = self.state
        self.state.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return self.state.url

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    state: State

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Record an error of the stand-in itself; a client that has gone is none."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            self.state.faults.append(f"the stand-in failed: {error!r}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self._body()
        if not self._is_authorized():
            self._answer(401, {"errors": [{"message": "user is not logged in"}]})
        elif self.path == "/graphql":
            self._answer(*self._graphql(json.loads(body)))
        elif self.path.endswith("/file_stream"):
            self._answer(*self._try("file_stream", lambda: stream(self.server.state, self.path, json.loads(body))))
        else:
            self._refuse_path()

    def do_PUT(self) -> None:
        body, state = self._body(), self.server.state
        target = state.uploads.get(self.path.removeprefix("/storage/"))
        if target is None:
            self._refuse_path()
            return
        self._answer(*self._try("upload", lambda: target(body) or {}))

    def do_GET(self) -> None:
        self._refuse_path()

    def _refuse_path(self) -> None:
        fault = f"{self.command} {self.path} is unknown to the stand-in"
        self.server.state.faults.append(fault)
        self._answer(404, {"error": fault})

    def _graphql(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        operation, variables = parse(request["query"]), request.get("variables") or {}

        def answer() -> dict[str, Any]:
            if operation.name not in OPERATIONS:
                raise Refused(f"the operation {operation.name} is unknown to the stand-in")
            whole = OPERATIONS[operation.name](self.server.state, variables)
            try:
                return {"data": select(operation, whole, variables)}
            except UnknownField as error:
                raise Refused(f"the field {error} is unknown to the stand-in") from None

        return self._try(operation.name, answer)

    def _try(self, name: str, answer: Any) -> tuple[int, dict[str, Any]]:
        state = self.server.state
        with state.lock:
            state.requests.add(name)
            try:
                if name not in KNOWN:
                    raise Refused(f"the client makes a request that requests.txt does not list: {name}")
                return 200, answer()
            except Refused as error:
                state.faults.append(str(error))
                return 400, {"errors": [{"message": str(error)}]}

    def _is_authorized(self) -> bool:
        expected = base64.b64encode(f"api:{self.server.state.key}".encode()).decode()
        return self.headers.get("Authorization") in (f"Basic {expected}", f"Bearer {self.server.state.key}")

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print no line per request."""
