"""Active labeling: the order of the windows, the labels on disk, the server, and the page in a browser."""

import http.client
import json
import os
import shutil

import numpy as np
import pandas
import pytest
import soundfile
from helpers import tiny

from soundfold.errors import InputError
from soundfold.evaluation.results import load_folds
from soundfold.inference.labeling.candidates import Candidate, order_by_distance, order_by_margin
from soundfold.inference.labeling.label import prepare_session
from soundfold.inference.labeling.label_book import LabelBook
from soundfold.inference.labeling.label_server import serve_labeling
from soundfold.inference.predictor import Predictor

RATE = 8000


@pytest.fixture(scope="module")
def predictor(tiny_run) -> Predictor:
    return Predictor.load(tiny_run, fold=1)


@pytest.fixture
def recordings(tmp_path):
    """Return a folder of eight recordings of 1.5 s, alternately tone and noise: three windows each."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "recordings"
    folder.mkdir()
    time_axis = np.arange(3 * RATE // 2) / RATE
    for number in range(8):
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(300, 2000) * time_axis)
        wave = tone if number % 2 else 0.3 * rng.uniform(-1, 1, len(time_axis))
        soundfile.write(folder / f"{'tone' if number % 2 else 'noise'}{number}.wav", wave, RATE)
    return folder


def candidate(path, probabilities=(0.5, 0.5), vector=None, start=0.0) -> Candidate:
    return Candidate(path, start, start + 0.5, np.array(probabilities), vector)


def test_the_smallest_margin_is_first(tmp_path):
    rows = [(0.1, 0.7, 0.2), (0.4, 0.25, 0.35), (0.3, 0.3, 0.4), (1.0, 0.0, 0.0)]
    assert order_by_margin([candidate(tmp_path, row) for row in rows]) == [1, 2, 0, 3]


def test_each_next_window_is_the_farthest_from_all_before(tmp_path):
    angles = np.deg2rad([0, 5, 90, 95, 180])
    windows = [candidate(tmp_path, vector=3 * np.array([np.cos(a), np.sin(a)], np.float32)) for a in angles]
    order = order_by_distance(windows)
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert order[0] == 2  # nearest to the mean
    assert order[1] == 0  # as far as 180 degrees, and first
    assert order[2] == 4
    assert order_by_distance(windows, labeled=[4])[:3] == [4, 0, 2]


def test_labels_are_on_disk_after_each_call_and_continued(recordings, tmp_path):
    first, second = (candidate(recordings / "noise0.wav", start=start) for start in (0.0, 0.5))
    book = LabelBook(tmp_path / "out")
    book.skip(second)
    book.label(first, " street noise ")
    table = pandas.read_csv(tmp_path / "out" / "labels.csv")
    assert table.category.tolist() == ["street noise"]
    assert table.source.tolist() == [str(recordings / "noise0.wav")]
    clip, rate = soundfile.read(tmp_path / "out" / "audio" / table.filename[0], dtype="int16")
    whole, _ = soundfile.read(recordings / "noise0.wav", dtype="int16")
    assert rate == RATE
    assert np.array_equal(clip, whole[: RATE // 2])
    again = LabelBook(tmp_path / "out")
    assert again.done == {first.key, second.key}
    assert again.classes == ["street noise"]
    assert again.undo() == first.key
    assert again.undo() == second.key
    assert again.undo() is None
    assert not list((tmp_path / "out" / "audio").iterdir())
    assert LabelBook(tmp_path / "out").done == set()


def test_a_file_name_that_is_not_utf_8_is_labeled(recordings, tmp_path):
    odd = recordings / os.fsdecode(b"caf\xe9.wav")
    shutil.copy(recordings / "noise0.wav", odd)
    book = LabelBook(tmp_path / "out")
    book.label(candidate(odd), "noise")
    book.skip(candidate(odd, start=0.5))
    book.label(candidate(recordings / "tone1.wav"), "tone")
    assert LabelBook(tmp_path / "out").labels == book.labels
    assert LabelBook(tmp_path / "out").done == {candidate(odd).key, candidate(odd, start=0.5).key, *book.labels}


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101, "\0"])
def test_a_name_that_is_no_class_is_refused(recordings, tmp_path, name):
    book = LabelBook(tmp_path / "out")
    with pytest.raises(InputError, match="is not a class name"):
        book.label(candidate(recordings / "noise0.wav"), name)
    assert not (tmp_path / "out" / "labels.csv").exists()


def test_a_damaged_table_is_refused_and_unchanged(tmp_path):
    (tmp_path / "labels.csv").write_text("filename,category\na.wav,dog\n")
    with pytest.raises(InputError, match=r"labels\.csv is not a table of labels"):
        LabelBook(tmp_path)
    assert (tmp_path / "labels.csv").read_text() == "filename,category\na.wav,dog\n"


def test_a_file_that_disappears_is_reported_and_loses_nothing(recordings, tmp_path):
    book = LabelBook(tmp_path / "out")
    book.label(candidate(recordings / "noise0.wav"), "noise")
    (recordings / "noise2.wav").unlink()
    with pytest.raises(InputError, match=r"noise2\.wav cannot be read"):
        book.label(candidate(recordings / "noise2.wav"), "noise")
    assert LabelBook(tmp_path / "out").done == {candidate(recordings / "noise0.wav").key}


def test_the_server_labels_and_refuses_other_sites(predictor, recordings, tmp_path, capsys):
    (recordings / "text.wav").write_text("hello")
    session = prepare_session(predictor, [recordings], tmp_path / "out", "diverse")
    assert "text.wav is not audio" in capsys.readouterr().err
    address, close = serve_labeling(session, None)
    host = address.removeprefix("http://").strip("/")

    def request(method, path, body=None, **headers) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(host)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    try:
        state = json.loads(request("GET", "/state")[1])
        assert (state["left"], state["labeled"]) == (24, 0)
        window = state["window"]
        assert [choice["name"] for choice in window["suggestions"]] != []
        status, sound = request("GET", f"/sound/{window['id']}")
        assert (status, sound[:4]) == (200, b"RIFF")
        status, picture = request("GET", f"/picture/{window['id']}")
        assert (status, picture[:4]) == (200, b"\x89PNG")
        body = json.dumps({"action": "label", "id": window["id"], "name": "bird"})
        as_json = {"Content_Type": "application/json"}
        assert request("POST", "/", body, **as_json, Origin="http://elsewhere.example")[0] == 403
        assert request("GET", "/state", Host="elsewhere.example")[0] == 403
        assert request("POST", "/", body, Content_Type="text/plain")[0] == 400
        assert request("POST", "/", "x" * 20_000, **as_json)[0] == 413
        assert request("GET", "/sound/999")[0] == 404
        assert request("POST", "/", "[]", **as_json)[0] == 409
        assert session.book.labels == {}
        state = json.loads(request("POST", "/", body, **as_json)[1])
        assert (state["left"], state["labeled"]) == (23, 1)
        assert "bird" in state["classes"]
        assert request("POST", "/", body, **as_json)[0] == 409  # the window was labeled by another tab
        assert len(session.book.labels) == 1
    finally:
        close()


@pytest.mark.slow
def test_twenty_windows_are_labeled_by_keyboard_and_the_table_trains(predictor, recordings, tmp_path, browser):
    from playwright.sync_api import expect

    out = tmp_path / "labels"
    session = prepare_session(predictor, [recordings], out, "uncertain")
    address, close = serve_labeling(session, None)
    tab = browser.new_context(viewport={"width": 390, "height": 900}).new_page()
    messages, requests = [], []
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    counts = tab.locator("#counts")
    try:
        tab.goto(address)
        for number in range(20):
            expect(counts).to_have_text(f"{number} labeled, 0 skipped, {24 - number} left")
            true = "tone" if "tone" in tab.locator("#where").inner_text() else "noise"
            names = tab.locator("#suggestions button").all_inner_texts()
            tab.keyboard.press(next(str(i) for i, text in enumerate(names, 1) if true in text))
        expect(counts).to_have_text("20 labeled, 0 skipped, 4 left")
        tab.keyboard.press("s")
        expect(counts).to_have_text("20 labeled, 1 skipped, 3 left")
        tab.keyboard.press("u")
        expect(counts).to_have_text("20 labeled, 0 skipped, 4 left")
        tab.keyboard.press("/")
        tab.keyboard.type("whistle")
        tab.keyboard.press("Enter")
        expect(counts).to_have_text("21 labeled, 0 skipped, 3 left")
        tab.keyboard.press("u")
        expect(counts).to_have_text("20 labeled, 0 skipped, 4 left")
        assert tab.locator("#picture").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    finally:
        tab.context.close()
        close()
    assert messages == []
    assert [url for url in requests if not url.startswith((address, "data:"))] == []
    table = pandas.read_csv(out / "labels.csv")
    assert len(table) == 20
    assert [row.category in row.filename for row in table.itertuples()] == [True] * 20
    # a restart continues
    assert prepare_session(predictor, [recordings], out, "uncertain").state()["left"] == 4
    shutil.copytree(out, tmp_path / "root")
    options = ("data=csv", "data.table=labels.csv", "data.audio=audio", "data.folds=2", "trainer.max_epochs=1")
    tiny.cross_validate(tmp_path / "root", tmp_path / "out", *options, "report.page=none")
    assert sum(fold.n for fold in load_folds(tiny.only(tmp_path / "out"))) == 20
