from pathlib import Path

import numpy as np
import pytest
import torch

from soundfold.data.collection import Collection, open_collection
from soundfold.data.synthetic import render
from soundfold.errors import ArgumentError
from soundfold.features.logmel import LogMel
from soundfold.io.pcm import pcm_to_float


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Collection:
    folder = tmp_path_factory.mktemp("synthetic")
    return open_collection(folder / "root", folder, seconds=2.0, sample_rate=44100, download="synthetic")


def nearest_mean_accuracy(features: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> float:
    """Return the five-fold accuracy of the nearest class mean."""
    correct = 0
    for fold in np.unique(folds):
        train = folds != fold
        means = np.stack([features[train & (targets == c)].mean(axis=0) for c in np.unique(targets)])
        distance = ((features[~train][:, None] - means) ** 2).sum(axis=2)
        correct += (distance.argmin(axis=1) == targets[~train]).sum()
    return correct / len(targets)


def test_layout(collection):
    table = collection.table
    assert len(table) == 200
    assert table.fold_numbers == (1, 2, 3, 4, 5)
    assert len(table.classes) == 10
    assert len(set(table.sources)) == 100
    assert len(set(collection.waves.lengths.tolist())) > 100  # ragged
    assert len(set(collection.waves.hashes)) == 200


def test_a_source_is_in_one_fold(collection):
    folds = {}
    for source, fold in zip(collection.table.sources, collection.table.folds, strict=True):
        assert folds.setdefault(source, fold) == fold


def test_loudness_does_not_predict_the_class(collection):
    samples = collection.waves.samples.astype(np.float64)
    loudness = 10 * np.log10([np.mean(w[:n] ** 2) for w, n in zip(samples, collection.waves.lengths, strict=True)])
    peaks = 20 * np.log10(np.abs(samples).max(axis=1))
    table = collection.table
    assert nearest_mean_accuracy(loudness[:, None], table.targets, table.folds) < 0.2
    assert (peaks < 20 * np.log10(32767)).mean() > 0.95  # hardly any clipped


def test_sound_predicts_the_class_and_permuted_labels_do_not(collection):
    logmel = LogMel(sample_rate=44100, n_fft=2048, hop_length=882, n_mels=64, f_min=0.0, f_max=20000.0)
    log_mel = torch.cat([logmel(pcm_to_float(torch.from_numpy(w)[None])) for w in collection.waves.samples])[:, 0]
    log_mel -= log_mel.mean(dim=(1, 2), keepdim=True)
    statistics = [log_mel.mean(dim=2), log_mel.std(dim=2), log_mel.diff(dim=2).abs().mean(dim=2)]
    features = torch.cat(statistics, dim=1).numpy()
    table = collection.table
    assert nearest_mean_accuracy(features, table.targets, table.folds) > 0.5
    # permute the classes of sources, so that clips of one source cannot help
    rng = np.random.default_rng(0)
    names = sorted(set(table.sources))
    classes = dict(zip(names, rng.permutation(np.arange(len(names)) % 10), strict=True))
    permuted = np.array([classes[source] for source in table.sources])
    assert nearest_mean_accuracy(features, permuted, table.folds) < 0.2


def test_rendering_is_repeatable_and_done_once(tmp_path, collection):
    render(tmp_path / "again")
    again = open_collection(tmp_path / "again", tmp_path, seconds=2.0, sample_rate=44100)
    np.testing.assert_array_equal(again.waves.samples, collection.waves.samples)
    before = (tmp_path / "again" / "meta" / "esc50.csv").stat().st_mtime_ns
    render(tmp_path / "again")
    assert (tmp_path / "again" / "meta" / "esc50.csv").stat().st_mtime_ns == before


def test_an_unwritable_folder_is_an_argument_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="`root`=.*set `root` to another folder"):
        render(tmp_path / "file" / "root")


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match="is the current folder"):
        render(Path("."))
    assert tmp_path.is_dir()


def test_an_empty_folder_is_filled_and_another_is_not_replaced(tmp_path):
    (tmp_path / "empty").mkdir()
    render(tmp_path / "empty")
    table = tmp_path / "empty" / "meta" / "esc50.csv"
    assert table.is_file()
    # a complete collection is not locked: it may be on a read-only disk
    (tmp_path / "empty.lock").unlink(missing_ok=True)
    render(tmp_path / "empty")
    assert not (tmp_path / "empty.lock").exists()
    table.unlink()
    with pytest.raises(ArgumentError, match=r"empty has files, but no meta/esc50\.csv\. It is not replaced"):
        render(tmp_path / "empty")
