"""The demo page, in a browser and as a function."""

import numpy as np
import pytest
import soundfile

from soundfold.inference.app import classify_upload, serve
from soundfold.inference.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(tiny_run) -> Predictor:
    return Predictor.load(tiny_run)


def test_page_classifies_uploads_and_reports_bad_ones(predictor, tiny_run, browser, tmp_path):
    tone = 0.3 * np.sin(2 * np.pi * 800 * np.arange(16_000) / 8000)
    soundfile.write(tmp_path / "long.wav", tone, 8000)
    soundfile.write(tmp_path / "longer.wav", np.tile(tone, 3), 8000)
    (tmp_path / "garbage.wav").write_bytes(b"RIFF" + bytes(range(256)) * 40)
    (tmp_path / "heavy.wav").write_bytes(b"0" * 300_000)
    clip = tiny_run.parents[1] / "tiny" / "audio" / "0.wav"
    address, close = serve(predictor, None, max_seconds=5, max_megabytes=0.2, wait=False)
    tab = browser.new_context(viewport={"width": 390, "height": 900}).new_page()
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
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
        tab.reload()
        upload(tmp_path / "long.wav", "mean over 7 windows")
        tab.locator("#figure img").wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    finally:
        tab.context.close()
        close()
    assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []


def test_page_does_not_reveal_folders_of_the_server(predictor, tmp_path):
    (tmp_path / "text.wav").write_text("hello")
    summary, probabilities, figure = classify_upload(predictor, str(tmp_path / "text.wav"), 5)
    assert "text.wav is not audio" in summary
    assert str(tmp_path) not in summary
    assert (probabilities, figure) == (None, None)
    assert classify_upload(predictor, None, 5) == ("", None, None)
