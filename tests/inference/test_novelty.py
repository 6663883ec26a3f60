"""Unknown sounds: fitted thresholds, files and windows that are reported, and a model that finds clicks novel."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from helpers import tiny
from helpers.command import run_here
from helpers.tiny import RATE

from soundfold.config.composition import compose_config
from soundfold.errors import InputError
from soundfold.evaluation.novelty import max_softmax
from soundfold.evaluation.predictions import load_fold_predictions
from soundfold.evaluation.results import load_folds
from soundfold.inference.measure_novelty import unknown_clips
from soundfold.inference.novelty import Novelty, read_novelty
from soundfold.inference.output import prediction_as_json, predictions_as_csv
from soundfold.inference.predictor import Predictor
from soundfold.inference.timeline import labels, timeline_csv


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor.load(tiny_run)


def test_a_threshold_is_fitted_without_the_fold_that_its_model_is_tested_on(tiny_run, predictor, tmp_path):
    results = {str(result.fold): result for result in load_folds(tiny_run)}
    expected = []
    for model in predictor.models:
        others = [load_fold_predictions(tiny_run, results[name]).logits for name in results if name != model.fold]
        expected.append(np.quantile(max_softmax(np.concatenate(others), model.temperature), 0.05))
    novelty = read_novelty(tiny_run, predictor.models, "softmax")
    assert novelty.threshold == pytest.approx(np.mean(expected))
    assert read_novelty(tiny_run, predictor.models[:1], "softmax").threshold == pytest.approx(expected[0])
    assert read_novelty(tiny_run, predictor.models, "energy", 1.5).threshold == 1.5
    with pytest.raises(InputError, match="Run `soundfold novelty"):
        read_novelty(tiny_run, predictor.models, "distance")
    for damaged in (b"", b"no archive"):
        (tmp_path / "novelty.npz").write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read"):
            read_novelty(tmp_path, predictor.models, "distance")
    with (tmp_path / "novelty.npz").open("wb") as stream:
        np.savez(stream, weights1="")
    with pytest.raises(InputError, match="does not belong to the model of fold 1"):
        read_novelty(tmp_path, predictor.models, "distance")
    with pytest.raises(InputError, match="not for that of fold none"):
        read_novelty(tmp_path, [replace(predictor.models[0], fold="none")], "distance")


def test_files_and_windows_below_the_threshold_are_unknown(predictor, monkeypatch):
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, 3 * RATE // 2)
    wave[: RATE // 2] = 0
    plain = predictor(wave, RATE)
    assert (plain.familiarity, plain.is_unknown, plain.label) == (None, False, plain.top(1)[0][0])
    monkeypatch.setattr(predictor, "novelty", Novelty("energy", -np.inf, "given"))
    scores = predictor(wave, RATE).familiarity
    assert len(scores) == len(plain.windows) == 5
    np.testing.assert_allclose(predictor(wave, RATE).windows, plain.windows)
    # between the least and the most familiar window
    threshold = float((scores.min() + scores.max()) / 2)
    monkeypatch.setattr(predictor, "novelty", Novelty("energy", threshold, "given"))
    prediction = predictor(wave, RATE)
    assert [name == "unknown" for name in prediction.window_labels] == (scores < threshold).tolist()
    assert prediction.is_unknown == (scores.mean() < threshold)
    shown = [row["prediction"] for row in csv.DictReader(io.StringIO(timeline_csv(prediction)))]
    assert shown == prediction.window_labels
    assert "unknown" in {name for *_, name in labels(prediction)}
    (row,) = csv.DictReader(io.StringIO(predictions_as_csv([(Path("a.wav"), prediction)], predictor.classes)))
    assert row["prediction"] == prediction.label
    assert float(row["familiarity"]) == pytest.approx(scores.mean(), rel=1e-4)
    content = json.loads(prediction_as_json(Path("a.wav"), prediction, predictor.models, 1, []))
    assert (content["unknown"], content["threshold"]) == (prediction.is_unknown, threshold)
    assert "unknown" not in json.loads(prediction_as_json(Path("a.wav"), plain, predictor.models, 1, []))


def clicks(rng: np.random.Generator) -> np.ndarray:
    wave = rng.normal(0, 1e-3, RATE // 2)
    wave[rng.integers(0, RATE // 2, 8)] = 0.9
    return wave


@pytest.fixture(scope="module")
def run_without_clicks(tmp_path_factory) -> Path:
    """Return two folds of a run that was trained on tones and noises, of a collection that also has clicks."""
    folder = tmp_path_factory.mktemp("novelty")
    root, rng = tiny.render(folder / "tiny"), np.random.default_rng(1)
    rows = []
    for number in range(12):
        soundfile.write(root / "audio" / f"click{number}.wav", clicks(rng), RATE)
        rows.append(f"click{number}.wav,{number % 3 + 1},2,click,click{number}\n")
    with (root / "meta" / "esc50.csv").open("a") as table:
        table.writelines(rows)
    options = ("data.leave_out=[click]", "trainer.max_epochs=20", "report.page=none")
    for fold in (1, 2):
        tiny.cross_validate(root, folder / "outputs", *options, f"fold={fold}")
    return tiny.only(folder / "outputs")


def test_left_out_classes_with_too_few_sources_are_no_unknown_clips(tmp_path, capsys):
    for name, number in {"bell": 3, "horn": 3, "drum": 1}.items():
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for clip in range(number):
            soundfile.write(tmp_path / "sounds" / name / f"{clip}.wav", np.full(80, 0.1), 8000)
    cfg = compose_config(
        "data=folder", f"data.root={tmp_path / 'sounds'}", "data.classes=[bell,horn]", "data.folds=3", "name=few"
    )
    audio = SimpleNamespace(cfg=cfg, root=tmp_path / "sounds", cache=tmp_path / "cache")
    assert len(unknown_clips(audio, ["bell", "horn"])) == 0
    assert "data.classes leaves out are not scored" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_of_tones_and_noises_finds_clicks_novel(run_without_clicks, monkeypatch, tmp_path, capsys):
    run = str(run_without_clicks)
    assert run_here(monkeypatch, "novelty", run) == 0
    content = json.loads((run_without_clicks / "novelty.json").read_text())
    assert content["unknown_classes"] == ["click"]
    assert (content["known_clips"], content["unknown_clips"]) == (20, 8)
    assert set(content["scores"]) == {"softmax", "energy", "distance"}
    # the scores of the output depend on the seed: the network may be as sure of a click as of a noise
    distance = content["scores"]["distance"]
    assert distance["auroc"]["auroc"] > 0.9
    assert distance["unknown_rejected"] > 2 * distance["known_rejected"]
    assert set(content["scores"]["softmax"]["thresholds"]) == {"1", "2"}
    soundfile.write(tmp_path / "click.wav", clicks(np.random.default_rng(7)), RATE)
    tone = 0.3 * np.sin(2 * np.pi * 900 * np.arange(RATE // 2) / RATE)
    soundfile.write(tmp_path / "tone.wav", tone, RATE)
    capsys.readouterr()
    files = [str(tmp_path / name) for name in ("click.wav", "tone.wav")]
    assert run_here(monkeypatch, "predict", run, *files, "--novelty", "distance", "--format", "jsonl") == 0
    click, tone_file = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert click["familiarity"] < tone_file["familiarity"]
    assert [file["unknown"] for file in (click, tone_file)] == [
        file["familiarity"] < file["threshold"] for file in (click, tone_file)
    ]
    # an explicit threshold of the probability needs no run
    weights = str(run_without_clicks / "fold1" / "checkpoints" / "weights.pt")
    assert run_here(monkeypatch, "predict", weights, files[1], "--threshold", "1.1", "--format", "csv") == 0
    assert ",unknown," in capsys.readouterr().out
