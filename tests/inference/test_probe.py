"""Probes under the official folds: equal to scikit-learn's cross-validation, and marked by what the model has seen."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from helpers.command import run_here
from helpers.shared import SHARED
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from soundfold.data.embeddings import COLUMNS, EmbeddingBatch, EmbeddingFile, write_embeddings
from soundfold.data.tables import read_table
from soundfold.errors import ArgumentError, InputError
from soundfold.evaluation.probes import draw_shots, few_shot_hits, log_probabilities
from soundfold.evaluation.statistics import draws_interval, source_interval
from soundfold.inference.probe import embeddings_of_run
from soundfold.inference.probe_data import read_probe_data

FOLDS, CLASSES = 3, ("cat", "dog", "rain")
ESTIMATORS = {
    "logistic": make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)),
    "knn": KNeighborsClassifier(5, metric="cosine"),
}


def write_table(path, n_clips: int = 90, per_source: int = 2) -> pd.DataFrame:
    """Write a table in ESC-50's format with clips of all classes in each fold."""
    clips = np.arange(n_clips)
    sources = clips // per_source
    targets = sources % len(CLASSES)
    frame = pd.DataFrame(
        {
            "filename": [f"{clip}.wav" for clip in clips],
            "fold": sources // len(CLASSES) % FOLDS + 1,
            "target": targets,
            "category": [CLASSES[target] for target in targets],
            "src_file": [f"s{source}" for source in sources],
        }
    )
    frame.to_csv(path, index=False)
    return frame


def vectors_of(targets: np.ndarray, size: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(len(CLASSES), size))[targets] + rng.normal(size=(len(targets), size))).astype(np.float32)


@pytest.fixture
def probe(monkeypatch, capsys, tmp_path):
    """Run ``soundfold probe`` in this process; return its exit code, output and the folder of each probe."""
    monkeypatch.setenv("COLUMNS", "250")

    def run(*args) -> tuple[int, str, dict]:
        out = tmp_path / "outputs"
        code = run_here(monkeypatch, "probe", *map(str, args), "--out", str(out))
        captured = capsys.readouterr()
        return code, captured.out + captured.err, {path.name.split("-")[1]: path for path in out.glob("probe-*")}

    return run


def expected_accuracies(vectors, frame) -> dict[str, np.ndarray]:
    split = PredefinedSplit(frame.fold)
    return {name: cross_val_score(e, vectors, frame.target, cv=split) for name, e in ESTIMATORS.items()}


def test_probabilities_equal_scikit_learn_s(tmp_path):
    frame = write_table(tmp_path / "clips.csv")
    vectors, targets, test = vectors_of(frame.target.to_numpy()), frame.target.to_numpy(), (frame.fold == 1).to_numpy()
    for kind, estimator in ESTIMATORS.items():
        logits = log_probabilities(kind, vectors[~test], targets[~test], vectors[test], 4)
        expected = estimator.fit(vectors[~test], targets[~test]).predict_proba(vectors[test])
        assert np.abs(np.exp(logits) - np.pad(expected, ((0, 0), (0, 1)))).max() < 1e-6
        few = np.flatnonzero(~test)[:9]  # fewer than values
        wide = np.random.default_rng(1).normal(size=(len(frame), 40)) + np.repeat(vectors, 40 // 6 + 1, axis=1)[:, :40]
        logits = log_probabilities(kind, wide[few], targets[few], wide[test], 3)
        expected = estimator.fit(wide[few], targets[few]).predict_proba(wide[test])
        # both to the tolerance of the solver
        assert np.abs(np.exp(logits) - expected).max() < 5e-3
        # a class without training clips, and those without a vote, have a finite logarithm
        assert np.isfinite(logits).all()


@pytest.mark.slow
def test_a_probe_of_another_model_equals_scikit_learn_s_cross_validation(probe, tmp_path, monkeypatch, capsys):
    frame = write_table(tmp_path / "clips.csv")
    vectors = vectors_of(frame.target.to_numpy())
    order = np.random.default_rng(1).permutation(len(frame))
    names = np.array([f"audio/{name}" for name in frame.filename])[order]
    np.savez(tmp_path / "other.npz", filename=names, embedding=vectors[order])
    options = "--table", tmp_path / "clips.csv", "--shots", "1", "2", "--draws", "2"
    code, text, folders = probe(tmp_path / "other.npz", *options)
    assert code == 0, text
    assert "90 of 90 were embedded by a model whose training data are unknown" in text
    assert "Training data unknown: nothing says" in text
    for kind, expected in expected_accuracies(vectors, frame).items():
        result = json.loads((folders[kind] / "cv.json").read_text())
        assert [fold["accuracy"] for fold in result["folds"]] == pytest.approx(expected, abs=0)
        assert result["accuracy"] == pytest.approx(expected.mean())
        assert result["accuracy_sd"] == pytest.approx(expected.std(ddof=1))
        assert result["interval"][0] < result["accuracy"] < result["interval"][1]
        assert not result["leaky"]
    curve = json.loads((folders["logistic"] / "few_shot.json").read_text())
    assert [(p["probe"], p["shots"]) for p in curve["points"]] == [(k, n) for k in ("knn", "logistic") for n in (1, 2)]
    assert all(p["interval"][0] <= p["accuracy"] <= p["interval"][1] for p in curve["points"])
    assert curve["training_data"] == "unknown"
    assert (folders["logistic"] / "figures" / "few_shot.svg").is_file()
    # results are runs: compared by paired tests, and listed with their settings
    assert run_here(monkeypatch, "report", *map(str, folders.values()), "report.page=none") == 0
    assert "over 90 clips" in capsys.readouterr().out
    assert run_here(monkeypatch, "report", str(tmp_path / "outputs"), "--format", "csv") == 0
    assert capsys.readouterr().out.count('"benchmark, training data unknown",false,3,3,90') == 2


def own_rows(frame, model: str, seen: np.ndarray, vectors: np.ndarray) -> EmbeddingBatch:
    rows = {name: [None] * len(frame) for name in COLUMNS}
    rows |= {"file": [f"/x/{name}" for name in frame.filename], "start": [0.0] * len(frame), "end": [5.0] * len(frame)}
    rows |= {"model": [model] * len(frame), "seen": seen.tolist(), "filename": frame.filename.tolist()}
    rows |= {"fold": frame.fold.tolist(), "target": frame.category.tolist(), "source": frame.src_file.tolist()}
    return EmbeddingBatch(rows, vectors)


@pytest.mark.slow
def test_each_fold_is_tested_in_the_space_of_its_own_model(probe, tmp_path):
    frame = write_table(tmp_path / "clips.csv")
    vectors = vectors_of(frame.target.to_numpy())
    # the spaces differ by a rotation, which cosine similarity does not see
    rotations = [np.linalg.qr(np.random.default_rng(k).normal(size=(6, 6)))[0].astype(np.float32) for k in range(3)]
    batches = [own_rows(frame, str(k), frame.fold.to_numpy() != k, vectors @ rotations[k - 1]) for k in (1, 2, 3)]
    write_embeddings(tmp_path / "own.parquet", batches, {"classes": CLASSES})
    code, text, folders = probe(tmp_path / "own.parquet", "--draws", "0")
    assert code == 0, text
    result = json.loads((folders["knn"] / "cv.json").read_text())
    assert [fold["accuracy"] for fold in result["folds"]] == pytest.approx(expected_accuracies(vectors, frame)["knn"])
    assert not result["leaky"]
    assert "unknown" not in text
    assert "no evidence of learning new classes" in text
    # the model of one fold has seen the test clips of the others
    write_embeddings(tmp_path / "one.parquet", batches[:1], {"classes": CLASSES})
    code, text, _ = probe(tmp_path / "one.parquet", "--draws", "0")
    assert code == 0
    assert "LEAKY: the models of 60 of 90 scored clips were trained on them" in text
    assert "60 of 90 trained or selected the initial weights" in text
    assert "accuracy % LEAKY" in text


def test_embeddings_that_cannot_be_probed_are_refused(tmp_path):
    frame = write_table(tmp_path / "clips.csv")
    table = read_table(tmp_path / "clips.csv")
    vectors = vectors_of(frame.target.to_numpy())
    unseen = [own_rows(frame[frame.fold == k], str(k), np.zeros(30, bool), vectors[frame.fold == k]) for k in (1, 2, 3)]
    write_embeddings(tmp_path / "unseen.parquet", unseen, {"classes": CLASSES})
    with pytest.raises(InputError, match=r"no embedding of 60 of the 90 clips.*same model.*without --unseen"):
        read_probe_data(EmbeddingFile(tmp_path / "unseen.parquet"), None)
    whole = [own_rows(frame, str(k), np.zeros(90, bool), vectors) for k in (1, 2)]
    write_embeddings(tmp_path / "two.parquet", whole, {"classes": CLASSES})
    with pytest.raises(ArgumentError, match=r"has the models of folds 1, 2, and none of fold 3"):
        read_probe_data(EmbeddingFile(tmp_path / "two.parquet"), table)
    pd.DataFrame({"file": frame.filename, "embedding": list(vectors)}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match="does not say which class and fold.*Name a table of them with --table"):
        read_probe_data(EmbeddingFile(tmp_path / "other.parquet"), None)
    assert np.array_equal(read_probe_data(EmbeddingFile(tmp_path / "other.parquet"), table).spaces[2], vectors)
    with pytest.raises(ArgumentError, match=r"`names`=clip is not in .* which has file, embedding"):
        EmbeddingFile(tmp_path / "other.parquet", names="clip")
    np.savez(tmp_path / "x.npz", a=vectors)
    with pytest.raises(InputError, match=r"has a: name the one of its names with --names"):
        EmbeddingFile(tmp_path / "x.npz")
    vectors[3, 1] = np.nan
    np.savez(tmp_path / "nan.npz", filename=frame.filename.to_numpy(dtype=str), embedding=vectors)
    with pytest.raises(InputError, match=r"nan.npz cannot be .*\(a vector has a value that is not finite\)"):
        read_probe_data(EmbeddingFile(tmp_path / "nan.npz"), table)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="bad.parquet cannot be read as embeddings"):
        EmbeddingFile(tmp_path / "bad.parquet")


def test_a_file_of_embeddings_is_read_as_it_was_written(tmp_path):
    frame = write_table(tmp_path / "clips.csv")
    vectors = vectors_of(frame.target.to_numpy())
    batch = own_rows(frame, "1", frame.fold.to_numpy() == 2, vectors)
    batch.rows["filename"][0] = batch.rows["fold"][0] = batch.rows["target"][0] = batch.rows["source"][0] = None
    for name in ("e.parquet", "e.npz"):
        write_embeddings(tmp_path / name, [batch], {"classes": CLASSES})
        file = EmbeddingFile(tmp_path / name)
        rows, read = file.read()
        assert file.about == {"classes": [*CLASSES]}
        assert np.array_equal(read, vectors)
        for column, values in batch.rows.items():
            assert [None if pd.isna(value) else value for value in rows[column]] == values, column


def test_few_clips_are_drawn_from_different_sources(tmp_path):
    write_table(tmp_path / "clips.csv", n_clips=90, per_source=3)
    table = read_table(tmp_path / "clips.csv")
    train = np.flatnonzero(table.folds != 1)
    draws = [draw_shots(table, train, 4, np.random.default_rng(seed)) for seed in range(3)]
    assert not np.array_equal(draws[0], draws[1])
    for clips in draws:
        assert np.isin(clips, train).all()
        assert np.bincount(table.targets[clips]).tolist() == [4, 4, 4]
        assert len(set(table.source_numbers[clips])) == 12
    # more than there are sources, or clips
    assert len(draw_shots(table, train, 1000, np.random.default_rng(0))) == len(train)
    vectors = np.eye(3, dtype=np.float32)[table.targets]
    assert few_shot_hits("knn", table, {1: vectors}, shots=2, draws=2).all()


def test_the_interval_covers_draws_and_sources():
    rng = np.random.default_rng(0)
    sources = [str(i // 2) for i in range(200)]
    clip, draw = rng.normal(size=200), rng.normal(size=(30, 1))
    both = draws_interval(clip + draw > 0, sources)
    fixed_draws = draws_interval(np.tile(clip > 0, (30, 1)), sources)
    assert np.diff(both) > np.diff(fixed_draws)
    assert np.allclose(fixed_draws, source_interval(clip > 0, sources), atol=0.01)


@pytest.mark.slow
def test_yamnet_on_the_official_folds(probe):
    collection = SHARED / "esc50_16k"
    if not (collection / "yamnet_embeddings.npz").is_file():
        pytest.skip("needs YAMNet's embeddings at ../shared/esc50_16k")
    table = collection / "meta" / "esc50.csv"
    code, text, folders = probe(collection / "yamnet_embeddings.npz", "--table", table, "--draws", "0")
    assert code == 0, text
    result = json.loads((folders["logistic"] / "cv.json").read_text())
    assert result["accuracy"] == pytest.approx(0.855, abs=0.005)
    arrays = np.load(collection / "yamnet_embeddings.npz")
    frame = pd.read_csv(table).set_index("filename").loc[arrays["filename"]]
    expected = expected_accuracies(arrays["embedding"].astype(np.float32), frame)
    for kind, accuracies in expected.items():
        stored = json.loads((folders[kind] / "cv.json").read_text())["folds"]
        # the table's order is another, and a sum of floats may differ in its last digit: one clip of 400
        assert [fold["accuracy"] for fold in stored] == pytest.approx(accuracies, abs=0.0026)


@pytest.mark.slow
def test_a_run_embeds_its_collection_first(probe, tiny_run, tmp_path, monkeypatch):
    run = tmp_path / "tiny-1a2b3c4d"
    run.mkdir()
    for fold in tiny_run.glob("fold?"):
        (run / fold.name).symlink_to(fold)
    code, text, folders = probe(run, "--shots", "1", "--draws", "1")
    assert code == 0, text
    assert "90 vectors of 128 values" in text
    assert json.loads((folders["logistic"] / "cv.json").read_text())["leaky"] is False
    assert "probe-knn-tiny-1a2b3c4d-" in str(folders["knn"])
    written = (run / "embeddings.parquet").stat().st_mtime_ns
    code, text, _ = probe(run, "--draws", "0")
    assert (code, (run / "embeddings.parquet").stat().st_mtime_ns) == (0, written)
    # `soundfold embed` skips a clip that it cannot read
    complete = pyarrow.parquet.read_table(run / "embeddings.parquet")
    pyarrow.parquet.write_table(complete[1:], run / "embeddings.parquet")
    code, text, _ = probe(run, "--draws", "0")
    assert (code, pyarrow.parquet.read_table(run / "embeddings.parquet").num_rows) == (0, 90), text
    assert run_here(monkeypatch, "report", str(folders["knn"])) == 0
    assert (folders["knn"] / "report.html").is_file()


def test_a_run_that_lacks_a_fold_is_refused_before_its_clips_are_embedded(tiny_run, tmp_path):
    for fold in ("fold1", "fold2"):
        (tmp_path / fold).symlink_to(tiny_run / fold)
    with pytest.raises(ArgumentError, match="has the models of folds 1, 2, and none of fold 3. Train that fold"):
        embeddings_of_run(tmp_path)
    assert not (tmp_path / "embeddings.parquet").exists()
