"""The labeling page's server, on this machine only: the page, a window's sound and picture, and labels."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import matplotlib.image
import soundfile
import torch

from soundfold.errors import InputError
from soundfold.inference.guard import refuse_foreign
from soundfold.inference.labeling.candidates import Candidate
from soundfold.inference.labeling.label_book import LabelBook, next_candidate, read_window
from soundfold.inference.predictor import Predictor
from soundfold.inference.streaming import windows
from soundfold.inference.waveforms import PcmStream
from soundfold.io.audio import to_mono
from soundfold.io.console import escape_bytes
from soundfold.io.pcm import pcm_to_float
from soundfold.report.clip_figure import clip_figure
from soundfold.report.drawing import pixels
from soundfold.report.page import display_name, render_page

HOST = "127.0.0.1"
# classes with a key: 1 to 9
SUGGESTIONS = 9
MAX_BODY = 10_000


class LabelingSession:
    """The state of the page, without the server.

    Args:
        predictor: draws the log-mel, and names the classes.
        candidates: the windows.
        order: indices of the candidates, the most useful first.
        book: the labels.
    """

    def __init__(
        self, predictor: Predictor, candidates: Sequence[Candidate], order: Sequence[int], book: LabelBook
    ) -> None:
        self.predictor, self.candidates, self.order, self.book = predictor, candidates, order, book
        self.lock = Lock()

    def state(self) -> dict[str, Any]:
        """Return what the page shows: the next window with its most probable classes, and the counts."""
        done = self.book.done
        values: dict[str, Any] = {
            "labeled": len(self.book.labels),
            "skipped": len(self.book.skipped),
            "left": sum(candidate.key not in done for candidate in self.candidates),
            "classes": sorted({*self.predictor.classes, *self.book.classes}),
            "window": None,
        }
        index = next_candidate(self.order, self.candidates, done)
        if index is not None:
            candidate = self.candidates[index]
            best = (-candidate.probabilities).argsort(kind="stable")[:SUGGESTIONS]
            names = [self.predictor.classes[i] for i in best]
            names += [name for name in self.book.classes if name not in names][: SUGGESTIONS - len(names)]
            percents = dict(zip(self.predictor.classes, (100 * candidate.probabilities).tolist(), strict=True))
            values["window"] = {
                "id": index,
                "recording": escape_bytes(str(candidate.path)),
                "start": round(candidate.start, 2),
                "end": round(candidate.end, 2),
                "suggestions": [
                    {"name": name, "text": display_name(name), "percent": percents.get(name)} for name in names
                ],
            }
        return values

    def act(self, request: dict[str, Any]) -> dict[str, Any]:
        """Label or skip a window, or undo the last of both; return the new state.

        Raises:
            InputError: the request is none of these, or its window is not the one shown, or writing failed.
        """
        with self.lock:
            action = request.get("action")
            if action == "undo":
                self.book.undo()
                return self.state()
            shown = next_candidate(self.order, self.candidates, self.book.done)
            if shown is None or request.get("id") != shown:
                raise InputError("The page shows an earlier window. Reload it.")
            if action == "skip":
                self.book.skip(self.candidates[shown])
            elif action == "label" and isinstance(request.get("name"), str):
                self.book.label(self.candidates[shown], request["name"])
            else:
                raise InputError("The request is none of label, skip and undo.")
            return self.state()

    def sound(self, index: int) -> bytes:
        """Return a window as WAV."""
        samples, rate = read_window(self.candidates[index])
        out = io.BytesIO()
        soundfile.write(out, samples, rate, format="WAV", subtype="PCM_16")
        return out.getvalue()

    def picture(self, index: int) -> bytes:
        """Return waveform and log-mel of a window as PNG."""
        samples, rate = read_window(self.candidates[index])
        mono = to_mono(samples.reshape(len(samples), -1), str(self.candidates[index].path), 0, rate)
        length = self.predictor.samples
        _, _, pcm = next(windows(PcmStream([mono], rate, self.predictor.sample_rate), length, length))
        wave = pcm_to_float(torch.from_numpy(pcm)[None].to(self.predictor.device))
        log_mel = self.predictor.logmel(wave)[0, 0].cpu().numpy()
        out = io.BytesIO()
        with self.lock:  # matplotlib is not thread-safe
            figure = clip_figure(wave[0].cpu().numpy(), self.predictor.seconds, log_mel, self.predictor.band_centers)
            matplotlib.image.imsave(out, pixels(figure), format="png")
        return out.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers requests of the page itself only: this machine's own address, and no other origin."""

    def __init__(self, session: LabelingSession, page: bytes, *args: Any) -> None:
        self.session, self.page = session, page
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer with the page, the state, a sound or a picture."""
        if not self._is_own():
            return
        match = re.fullmatch(r"/(sound|picture)/(\d{1,9})", self.path)
        if self.path == "/":
            self._send(200, "text/html; charset=utf-8", self.page)
        elif self.path == "/state":
            self._send_json(200, self.session.state())
        elif match and int(match[2]) < len(self.session.candidates):
            make, kind = {
                "sound": (self.session.sound, "audio/wav"),
                "picture": (self.session.picture, "image/png"),
            }[match[1]]
            self._answer(lambda: self._send(200, kind, make(int(match[2]))))
        else:
            self._send(404, "text/plain", b"The page does not use this address.")

    def do_POST(self) -> None:
        """Label, skip or undo."""
        if not self._is_own():
            return
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json" or not re.fullmatch(r"\d{1,5}", length):
            self._send(400, "text/plain", b"The page sends JSON.")
        elif int(length) > MAX_BODY:
            self._send(413, "text/plain", b"The request is too large.")
        else:
            self._answer(lambda: self._send_json(200, self.session.act(_parse(self.rfile.read(int(length))))))

    def _is_own(self) -> bool:
        """Refuse a name of another site that resolves to this machine, and requests of other sites."""
        port = self.connection.getsockname()[1]
        reason = refuse_foreign(self.headers.get("Host"), self.headers.get("Origin"), port)
        if reason is not None:
            self._send(403, "text/plain", reason.encode())
        return reason is None

    def _answer(self, answer: Callable[[], None]) -> None:
        try:
            answer()
        except InputError as error:
            self._send_json(409, {"error": escape_bytes(str(error))})

    def _send_json(self, status: int, values: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(values).encode())

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        # a browser drops the request of a sound or picture that the page no longer shows
        with suppress(BrokenPipeError, ConnectionResetError):
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Print no line per request."""


def _parse(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise InputError("The request is not a JSON object.")
    return values


def serve_labeling(session: LabelingSession, port: int | None) -> tuple[str, Callable[[], None]]:
    """Serve the page in threads; return its address and a function that ends the server.

    Args:
        session: the state of the page.
        port: None selects a free port.

    Raises:
        InputError: the port is in use.
    """
    page = render_page("label.html.j2", title="Label sounds", sections=[], footer="").encode()
    try:
        server = ThreadingHTTPServer((HOST, port or 0), partial(Handler, session, page))
    except OSError as error:
        raise InputError(f"The page cannot be served on port {port}: {error}. Choose another --port.") from error
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()

    def close() -> None:
        server.shutdown()
        server.server_close()

    return f"http://{HOST}:{server.server_address[1]}/", close
