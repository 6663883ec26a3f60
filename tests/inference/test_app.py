"""The demo page, in a browser and as a function."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from soundfold.inference.app import MAX_UPLOADS, classify_upload, serve
from soundfold.inference.guard import folder_bytes
from soundfold.inference.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(tiny_run) -> Predictor:
    return Predictor.load(tiny_run)


@pytest.mark.slow
def test_page_classifies_uploads_and_reports_bad_ones(predictor, tiny_run, browser, tmp_path):
    tone = 0.3 * np.sin(2 * np.pi * 800 * np.arange(16_000) / 8000)
    soundfile.write(tmp_path / "long.wav", tone, 8000)
    soundfile.write(tmp_path / "longer.wav", np.tile(tone, 3), 8000)
    (tmp_path / "garbage.wav").write_bytes(b"RIFF" + bytes(range(256)) * 40)
    (tmp_path / "heavy.wav").write_bytes(b"0" * 300_000)
    clip = tiny_run.parents[1] / "tiny" / "audio" / "0.wav"
    address, close = serve(predictor, None, max_seconds=5, max_megabytes=0.2, wait=False)
    tab = browser.new_context(viewport={"width": 390, "height": 900}).new_page()
    # what a screen reader announces, for a second each
    tab.add_init_script(
        "announced = new Set(); setInterval(() => document.querySelectorAll('[role=status]').forEach("
        "e => announced.add(e.textContent)), 20)"
    )
    requests: list[str] = []
    refused: list[tuple[int, str]] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("response", lambda r: refused.append((r.status, r.url)) if r.status >= 400 else None)
    try:
        assert address.startswith("http://127.0.0.1:")
        tab.goto(address)

        def upload(path, expected_text: str) -> None:
            if tab.locator("#sound button[aria-label='Clear']").count():
                tab.locator("#sound button[aria-label='Clear']").click()
            chooser = tab.locator("#sound input[type=file]")
            chooser.wait_for(state="attached")
            chooser.set_input_files(path)
            tab.get_by_text(expected_text).first.wait_for(timeout=20_000)

        upload(clip, "2 of 3 models were trained on this clip")
        tab.locator("#figure img").wait_for()
        assert tab.locator("#probabilities").inner_text().count("%") == 2
        upload(tmp_path / "garbage.wav", "garbage.wav is not audio that can be read")
        assert tab.locator("#figure img").count() == 0
        upload(tmp_path / "longer.wav", "longer.wav is longer than 5 s")
        upload(tmp_path / "heavy.wav", "exceed the maximum allowed size")
        # the page needs no address that the server refuses
        assert refused == []
        tab.reload()
        upload(tmp_path / "long.wav", "mean over 7 windows")
        tab.locator("#figure img").wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        tab.wait_for_function("announced.has('Complete')", timeout=10_000)
        assert not [text for text in tab.evaluate("[...announced]") if "." in text], "a key without a translation"
        assert "temperature" not in tab.inner_text("body")
    finally:
        tab.context.close()
        close()
    assert refused == []
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []


def test_page_does_not_reveal_folders_of_the_server(predictor, tmp_path):
    (tmp_path / "text.wav").write_text("hello")
    summary, probabilities, figure = classify_upload(predictor, str(tmp_path / "text.wav"), 5)
    assert "text.wav is not audio" in summary
    assert str(tmp_path) not in summary
    assert (probabilities, figure) == (None, None)
    assert classify_upload(predictor, None, 5) == ("", None, None)
    # a browser would load the picture
    (tmp_path / "![a](b)<img>.wav").write_text("hello")
    summary, *_ = classify_upload(predictor, str(tmp_path / "![a](b)<img>.wav"), 5)
    assert r"!\[a\](b)&lt;img&gt;.wav is not audio" in summary


@pytest.fixture(scope="module")
def address(predictor) -> Iterator[str]:
    """Serve the page with uploads of at most 0.1 MB, although the environment opens it to files and breaks proxies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_ALLOWED_PATHS", "/")
        patch.setenv("GRADIO_SHARE", "True")
        patch.setenv("GRADIO_ROOT_PATH", "https://example.org")
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")
        address, close = serve(predictor, None, max_seconds=5, max_megabytes=0.1, wait=False)
    yield address.rstrip("/")
    close()


FILE_OF_A_URL = {"path": "https://example.org/a.wav", "meta": {"_type": "gradio.FileData"}}
JOIN = "/gradio_api/queue/join"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:PORT", "Origin": "http://localhost:PORT"}, 200),
        # another site whose name resolves to this machine
        ({"Host": "site.example:PORT", "Origin": "http://site.example:PORT"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Origin": "http://site.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "https://127.0.0.1:PORT"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_the_page_is_served_under_its_own_origin_only(address, headers, status):
    port = address.rpartition(":")[2]
    headers = {name: value.replace("PORT", port) for name, value in headers.items()}
    for path in ("/", "/config"):
        assert httpx.get(address + path, headers=headers).status_code == status
    done = httpx.post(f"{address}/gradio_api/upload", headers=headers, files={"files": ("a.wav", b"1")})
    assert done.status_code == status


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/gradio_api/proxy=https://example.org/", {}, 404),
        ("GET", "/gradio_api/file=https://example.org/", {}, 404),
        ("GET", f"/gradio_api/file={Path(__file__).resolve()}", {}, 403),
        ("GET", "/gradio_api/openapi.json", {}, 404),
        ("GET", "/docs", {}, 404),
        ("PUT", "/", {}, 404),
        ("POST", "/gradio_api/vibe-edit", {"json": {}}, 404),
        ("POST", "/gradio_api/run/predict", {"json": {"data": [FILE_OF_A_URL]}}, 404),
        ("POST", JOIN, {"json": {"data": [FILE_OF_A_URL], "fn_index": 0}}, 403),
        ("POST", JOIN, {"json": {"data": [{"value": [{"path": "//host/share/a.wav"}]}]}}, 403),
        ("POST", JOIN, {"content": b"{"}, 400),
        ("POST", JOIN, {"content": b"[" * 90_000}, 400),
        ("POST", JOIN, {"content": b" " * 100_001}, 413),
        ("POST", "/gradio_api/upload", {"files": {"files": ("a.wav", bytes(120_000))}}, 413),
        ("POST", "/gradio_api/upload", {"files": [("files", ("a.wav", bytes(60_000)))] * 2}, 413),
        ("POST", "/gradio_api/upload", {"content": iter([b"1"])}, 411),
    ],
)
def test_the_server_answers_only_requests_of_the_page(address, method, path, options, status):
    """In particular, it opens no address that a visitor names."""
    assert httpx.request(method, address + path, **options).status_code == status


def test_the_total_of_uploads_is_bounded(address):
    statuses = []
    for number in range(MAX_UPLOADS + 2):
        file = ("a.wav", np.random.default_rng(number).bytes(99_000))
        statuses.append(httpx.post(f"{address}/gradio_api/upload", files={"files": file}).status_code)
    assert statuses[0] == 200
    assert statuses[-1] == 507
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    assert 1e6 < folder_bytes(folder) <= MAX_UPLOADS * 1e5
