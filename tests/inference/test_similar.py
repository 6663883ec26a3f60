"""Search by sound: exact neighbors, and a page to hear them."""

import re
from argparse import Namespace

import numpy as np
import pytest
import soundfile
from helpers.browsing import faultless, inspect
from helpers.command import run_here
from helpers.tiny import RATE

from soundfold.data import embeddings
from soundfold.data.embeddings import COLUMNS, EmbeddingBatch, EmbeddingFile, write_embeddings
from soundfold.errors import InputError
from soundfold.inference.embed import embed
from soundfold.inference.similar import index_facts, load_indexed_model, nearest


def write_index(path, vectors, files, model: str = "1"):
    rows = {name: [None] * len(files) for name in COLUMNS} | {"file": files, "model": [model] * len(files)}
    rows |= {"start": np.arange(len(files), dtype=float).tolist(), "seen": [False] * len(files)}
    rows["end"] = [start + 1 for start in rows["start"]]
    other = {**rows, "model": ["2"] * len(files)}
    about = {"source": "gone-1a2b3c4d", "models": {"1": "x", "2": "y"}, "layer": None}
    # vectors of another model must not be compared
    batches = [EmbeddingBatch(rows, vectors), EmbeddingBatch(other, vectors[::-1].copy())]
    write_embeddings(path, batches, about)
    return EmbeddingFile(path)


@pytest.mark.parametrize("name", ["index.parquet", "index.npz"])
def test_neighbors_are_exact_over_blocks(name, tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "BLOCK", 30)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 8)).astype(np.float32)
    vectors[7] = 0
    files = [f"{i // 3}.wav" for i in range(200)]
    query = rng.normal(size=(2, 8)).astype(np.float32)
    found = nearest(write_index(tmp_path / name, vectors, files), query, "1", top=12)
    with np.errstate(invalid="ignore"):
        cosine = vectors @ query.T / np.outer(np.linalg.norm(vectors, axis=1), np.linalg.norm(query, axis=1))
    of_file: dict[str, float] = {}
    for file, value in zip(files, np.nan_to_num(cosine).max(axis=1), strict=True):
        of_file[file] = max(value, of_file.get(file, -1))
    expected = sorted(of_file.items(), key=lambda item: -item[1])[:12]
    assert found.file.tolist() == [file for file, _ in expected]
    assert np.allclose(found.similarity, [value for _, value in expected], atol=1e-6)
    # of each file, its most similar window
    assert (found.start // 3 == found.file.str.removesuffix(".wav").astype(int)).all()
    # a query of other loudness in its embedding has the same neighbors
    assert nearest(EmbeddingFile(tmp_path / name), 7 * query, "1", top=12).file.tolist() == found.file.tolist()


def test_a_vector_of_any_length_may_be_opposite(tmp_path):
    vectors = np.array([[-0.5, 0.75**0.5], [-1, 0]], np.float32) * np.array([[10], [100]], np.float32)
    found = nearest(
        write_index(tmp_path / "index.npz", vectors, ["a.wav", "b.wav"]), np.eye(1, 2, dtype=np.float32), "1", 2
    )
    assert found.similarity.tolist() == pytest.approx([-0.5, -1])


def test_an_index_without_its_model_is_refused(tmp_path):
    vectors = np.eye(4, dtype=np.float32)
    index = write_index(tmp_path / "e.parquet", vectors, [*"abcd"])
    with pytest.raises(InputError, match=r"vectors of 4 values, and its model gives 3"):
        nearest(index, np.ones((1, 3), np.float32), "1", 1)
    with pytest.raises(InputError, match="has no vector of the model 3"):
        nearest(index, np.ones((1, 4), np.float32), "3", 1)
    with pytest.raises(InputError, match=r"model of the index cannot be loaded. There is no model at gone.*--model"):
        load_indexed_model(index_facts(index), "1")
    np.savez(tmp_path / "other.npz", filename=np.array([*"abcd"]), embedding=vectors)
    with pytest.raises(InputError, match=r"other.npz does not name the model of its vectors"):
        index_facts(EmbeddingFile(tmp_path / "other.npz"))


@pytest.mark.slow
def test_the_page_plays_the_neighbors(tiny_run, tmp_path, monkeypatch, capsys, browser):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    audio = tiny_run.parents[1] / "tiny" / "audio"
    long = tmp_path / "<long>.flac"
    tone = 0.3 * np.sin(2 * np.pi * 700 * np.arange(2 * RATE) / RATE)
    soundfile.write(long, tone, RATE)
    files = [audio / f"{number}.wav" for number in range(12)]
    options = {"fold": "1", "layer": None, "unseen": False, "hop": None, "data": None, "device": "cpu"}
    index = tmp_path / "index.parquet"
    embed(Namespace(run=tiny_run, files=[*files, long], out=index, **options))
    assert run_here(monkeypatch, "similar", str(index), str(files[0]), "--top", "4", "--page", "page.html") == 0
    captured = capsys.readouterr()
    names = re.findall(r"(\d+\.wav|<long>\.flac)", captured.out.partition("similarity")[2])
    assert len(names) == 4
    assert "0.wav" not in names
    html = (tmp_path / "page.html").read_text()
    assert html.count("<audio") == 5
    report = inspect(browser, tmp_path / "page.html")
    assert faultless(report), report
    assert all(0.4 < seconds < 0.7 for seconds in report["durations"])
    assert report["tab"].locator("article.clip h3").first.inner_text() == "0.wav"
    # a file that has moved is listed without its sound
    (tmp_path / "copy.wav").write_bytes(files[0].read_bytes())
    long.rename(tmp_path / "moved.flac")
    tone_query = str(tmp_path / "moved.flac")
    assert run_here(monkeypatch, "similar", str(index), tone_query, "--top", "1", "--model", str(tiny_run)) == 0
    captured = capsys.readouterr()
    assert "no sound of" in captured.err
    assert (tmp_path / "outputs" / "similar" / "moved.html").read_text().count("<audio") == 1
    # another model of the same shape
    weights = tiny_run / "fold2" / "checkpoints" / "weights.pt"
    assert run_here(monkeypatch, "similar", str(index), tone_query, "--model", str(weights)) == 2
    assert "is not the one of the index" in capsys.readouterr().err
