"""Files of embeddings, and that pandas reads them."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

from soundfold.data import embeddings
from soundfold.data.embeddings import COLUMNS, EmbeddingBatch, EmbeddingFile, write_embeddings
from soundfold.errors import ArgumentError, InputError

ABOUT = {"format": 1, "layer": None}


def batch(number: int, n_rows: int = 3) -> EmbeddingBatch:
    rows = {name: [None] * n_rows for name in COLUMNS}
    rows |= {"file": [f"é{number}.wav"] * n_rows, "start": [0.0, 2.5, 5.0][:n_rows], "end": [5.0, 7.5, 10.0][:n_rows]}
    rows |= {"model": ["1"] * n_rows, "seen": [number == 1] * n_rows}
    if number:
        rows |= {"filename": ["a"] * n_rows, "fold": [4] * n_rows, "target": ["dog"] * n_rows, "source": ["s"] * n_rows}
    return EmbeddingBatch(rows, np.full((n_rows, 4), number, np.float32) + np.arange(4, dtype=np.float32))


def test_pandas_reads_what_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "GROUP", 4)
    path = tmp_path / "new" / "e.parquet"
    assert write_embeddings(path, map(batch, range(3)), ABOUT) == (9, 4)
    frame = pd.read_parquet(path)
    assert frame.columns.tolist() == [*COLUMNS, "vector"]
    assert frame.file.tolist() == [f"é{n}.wav" for n in range(3) for _ in range(3)]
    vectors = np.stack(frame.vector)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, np.concatenate([batch(n).vectors for n in range(3)]))
    assert frame.fold.isna().tolist() == [True] * 3 + [False] * 6
    assert frame.seen.tolist() == [False] * 3 + [True] * 3 + [False] * 3
    file = embeddings.parquet().ParquetFile(path)
    assert str(file.schema_arrow.field("vector").type) == "fixed_size_list<element: float>[4]"
    assert json.loads(file.schema_arrow.metadata[b"soundfold"]) == ABOUT
    # short batches are joined
    assert file.num_row_groups == 2


def test_npz_needs_no_pickle(tmp_path):
    write_embeddings(tmp_path / "e.npz", map(batch, range(2)), ABOUT)
    with np.load(tmp_path / "e.npz") as arrays:
        assert arrays["vector"].shape == (6, 4)
        assert arrays["target"].tolist() == [""] * 3 + ["dog"] * 3
        assert json.loads(str(arrays["soundfold"])) == ABOUT


@pytest.mark.parametrize("name", ["e.parquet", "e.npz"])
def test_a_failure_leaves_the_earlier_file(name, tmp_path):
    path = tmp_path / name
    write_embeddings(path, [batch(0)], ABOUT)
    before = path.read_bytes()

    def fails():
        yield batch(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_embeddings(path, fails(), ABOUT)
    assert write_embeddings(path, [], ABOUT) == (0, 0)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_without_rows_is_refused(tmp_path):
    write_embeddings(tmp_path / "e.npz", [], ABOUT)
    with pytest.raises(InputError, match=r"e\.npz"):
        EmbeddingFile(tmp_path / "e.npz").read()


@pytest.mark.parametrize("second", [None, [3.0]])
def test_missing_vectors_and_vectors_of_several_lengths_are_refused(tmp_path, second):
    frame = pd.DataFrame(
        {"filename": ["a.wav", "b.wav", "c.wav"], "vector": [[1.0, 2.0, 3.0], second, [4.0, 5.0, 6.0]]}
    )
    frame.to_parquet(tmp_path / "e.parquet")
    with pytest.raises(InputError, match=r"e\.parquet cannot be read .*vectors of vector are missing, or of several"):
        EmbeddingFile(tmp_path / "e.parquet").read()


def test_suffix_and_missing_extra_are_explained(tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match=r"e.csv must be a file of embeddings, and end with .parquet or .npz"):
        write_embeddings(tmp_path / "e.csv", [batch(0)], ABOUT)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"Parquet requires pyarrow, which is not installed: pip install .*\[emb"):
        write_embeddings(tmp_path / "e.parquet", [batch(0)], ABOUT)
