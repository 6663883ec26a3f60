"""Embeddings of recordings and of a run's own collection."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from helpers.command import run_here
from helpers.tiny import RATE

from soundfold.data.embeddings import EmbeddingFile
from soundfold.errors import ArgumentError
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.inference.predictor import Predictor
from soundfold.inference.share import write_zip


@pytest.fixture
def embed(monkeypatch, capsys, tmp_path):
    """Run ``soundfold embed`` in this process; return its exit code, output and table."""

    def run(*args, out: str = "e.parquet") -> tuple[int, str, pd.DataFrame | None]:
        path = tmp_path / out
        code = run_here(monkeypatch, "embed", *map(str, args), "--out", str(path))
        captured = capsys.readouterr()
        return code, captured.out + captured.err, pd.read_parquet(path) if path.is_file() else None

    return run


def clips_of(run):
    return run.parents[1] / "tiny" / "audio"


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.3, 0.3, round(seconds * RATE)).astype(np.float32)


def test_the_last_layer_of_an_embedding_gives_the_prediction(tiny_run):
    predictor = Predictor.load(tiny_run, fold=2)
    wave = noise(1.3)
    vectors = predictor.embed(wave, RATE)
    assert (vectors.shape, vectors.dtype) == ((5, 128), np.float32)
    logits = predictor.scorer.networks[0].fc(torch.from_numpy(vectors)).double()
    expected = (logits / predictor.models[0].temperature).softmax(dim=1).detach().numpy()
    assert np.abs(predictor(wave, RATE).windows - expected).max() < 1e-6
    assert predictor.embed(wave, RATE, hop=0.5, layer="layer1").shape == (3, 16)


def test_one_model_at_a_time_and_its_own_layers(tiny_run):
    with pytest.raises(ArgumentError, match=r"models of folds 1, 2, 3 embed sounds in different spaces.*by `fold`"):
        Predictor.load(tiny_run).embed(noise(0.5), RATE)
    with pytest.raises(ArgumentError, match=r"`layer`=fd is not a module of ResNet18. Did you mean one of fc"):
        Predictor.load(tiny_run, fold=1).embed(noise(0.5), RATE, layer="fd")


@pytest.mark.slow
def test_a_collection_is_embedded_by_each_fold_s_model(tiny_run, embed):
    code, text, frame = embed(tiny_run)
    assert code == 0, text
    assert "of folds 1, 2, 3. Each model has a space" in text
    assert "90 vectors of 128 values" in text
    assert frame.groupby("model").filename.nunique().tolist() == [30, 30, 30]
    # each model was trained on the clips of the other folds
    assert (frame.seen == (frame.model != frame.fold.astype(str))).all()
    clip = frame.query("filename == '7.wav' and model == '3'").iloc[0]
    assert (clip.target, clip.source, clip.start, clip.end) == ("noise", "7", 0.0, 0.5)
    wave, rate = soundfile.read(clip.file)
    assert np.abs(Predictor.load(tiny_run, fold=3).embed(wave, rate)[0] - clip.vector).max() < 1e-5
    _, _, unseen = embed(tiny_run, "--unseen")
    assert len(unseen) == 30
    assert (unseen.model == unseen.fold.astype(str)).all()


@pytest.mark.slow
def test_recordings_and_copies_of_training_clips(tiny_run, embed, tmp_path):
    soundfile.write(tmp_path / "long.wav", noise(1.3), RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    copy = tmp_path / "copy.wav"
    copy.write_bytes((clips_of(tiny_run) / "0.wav").read_bytes())
    files = tmp_path / "long.wav", tmp_path / "broken.wav", copy, clips_of(tiny_run) / "1.wav"
    code, text, frame = embed(tiny_run, *files)
    assert code == 1
    assert "broken.wav is not audio that can be read" in text
    long = frame[frame.file.str.endswith("long.wav")]
    assert long.query("model == '2'").start.tolist() == [0.0, 0.25, 0.5, 0.75, 0.8]
    assert long.query("model == '2'").end.tolist() == [0.5, 0.75, 1.0, 1.25, 1.3]
    assert not long.seen.any()
    assert long.filename.isna().all()
    # a copy is recognized by its samples, and a clip of the collection also by its table
    assert dict(frame[frame.file == str(copy)][["model", "seen"]].values) == {"1": False, "2": True, "3": True}
    assert frame[frame.file.str.endswith("audio/1.wav")].filename.unique().tolist() == ["1.wav"]


@pytest.mark.slow
def test_a_weights_file_without_its_collection(tiny_run, embed, tmp_path):
    weights = tmp_path / "copy.pt"
    content = torch.load(tiny_run / "fold1" / "checkpoints" / "weights.pt", weights_only=True)
    content["config"] = content["config"].replace(str(clips_of(tiny_run).parent), "/nowhere")
    torch.save(content, weights)
    code, text, _ = embed(weights)
    assert code == 2
    assert "There is no table of clips at /nowhere" in text
    code, _, frame = embed(weights, clips_of(tiny_run) / "0.wav")
    assert (code, frame.model.tolist(), frame.seen.tolist()) == (0, ["?"], [False])
    code, _, frame = embed(weights, "--data", clips_of(tiny_run).parent, "--unseen")
    assert (code, frame.fold.unique().tolist()) == (0, [1])
    code, text, _ = embed(weights, clips_of(tiny_run) / "1.wav", "--unseen", out="none.parquet")
    assert code == 2
    assert "No row is left by --unseen" in text


@pytest.mark.slow
def test_the_file_names_its_models(tiny_run, embed, tmp_path):
    embed(tiny_run, clips_of(tiny_run) / "0.wav", "--fold", "1", "--layer", "layer2", "--hop", "0.25")
    about = EmbeddingFile(tmp_path / "e.parquet").about
    bundle = ModelBundle.load(tiny_run / "fold1" / "checkpoints" / "weights.pt")
    assert (about["source"], about["models"]) == (str(tiny_run.resolve()), {"1": bundle.digest()})
    changed = {**bundle.network, "fc.bias": bundle.network["fc.bias"] + 1}
    assert replace(bundle, network=changed).digest() != bundle.digest()
    # an archive is unpacked to a folder that is gone when the file is written
    write_zip(tiny_run, tmp_path / "model.zip")
    code, text, frame = embed(tmp_path / "model.zip", clips_of(tiny_run) / "0.wav", "--fold", "1")
    assert (code, len(frame)) == (0, 1), text
    archived = EmbeddingFile(tmp_path / "e.parquet").about
    assert (archived["source"], archived["models"]) == (str(tmp_path / "model.zip"), about["models"])
    assert (about["layer"], about["hop"], about["window"], about["sample_rate"]) == ("layer2", 0.25, 0.5, RATE)


MEMORY = """
import resource, sys
from argparse import Namespace
from pathlib import Path
from soundfold.inference.embed import embed
def call(name):
    options = dict(fold="1", layer=None, unseen=False, hop=0.5, data=None, out=Path(f"{name}.parquet"), device="cpu")
    assert embed(Namespace(run=Path(sys.argv[1]), files=[Path(name)], **options)) == 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(call("short.wav"), call("long.flac"))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tiny_run, tmp_path):
    soundfile.write(tmp_path / "short.wav", noise(20), RATE)
    with soundfile.SoundFile(tmp_path / "long.flac", "w", RATE, 1) as file:
        for _ in range(60):
            file.write(noise(10))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tiny_run)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    short, long = map(int, done.stdout.split())
    frame = pd.read_parquet(tmp_path / "long.flac.parquet")
    assert (len(frame), frame.end.max()) == (1200, 600)
    # kilobytes; the samples alone would take 19 MB as float32
    assert long - short < 12_000
