"""A run of the first edition of soundfold can still be read, and its predictions are unchanged.

Its files are the original ones, so reading them tests that renamed keys and tensors are migrated. The clips are stored
next to the run; predictions.json holds the predictions of the first edition's code.
"""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import tiny
from torchaudio.functional import resample

from soundfold.errors import InputError
from soundfold.evaluation.compare import load_run
from soundfold.inference.predictor import Predictor

FOLDER = tiny.ROOT / "tests" / "golden" / "first_edition"
RUN = FOLDER / "first_edition-2bb17ae9"
WEIGHTS = Path("fold1") / "checkpoints" / "weights.pt"
EXPECTED = json.loads((FOLDER / "predictions.json").read_text())
TOLERANCE = 1e-5  # of probabilities, logits and temperatures


def tolerance(name: str) -> float:
    """Return the tolerance of probabilities: torchaudio's kernel, used then, damps and aliases the top of the band."""
    return 2e-2 if "16k" in name else TOLERANCE


@pytest.mark.parametrize("fold", EXPECTED["predictor"])
def test_predictions_are_unchanged(fold):
    predictor = Predictor.load(RUN, None if fold == "all" else fold)
    assert list(predictor.classes) == EXPECTED["classes"]
    for name, expected in EXPECTED["predictor"][fold].items():
        prediction = predictor.file(FOLDER / name)
        assert prediction.probabilities == pytest.approx(np.array(expected["probabilities"]), abs=tolerance(name))
        assert prediction.windows == pytest.approx(np.array(expected["windows"]), abs=tolerance(name))
        assert (list(prediction.seen_in_training), prediction.calibrated) == (expected["met"], expected["calibrated"])


@pytest.mark.parametrize("fold", EXPECTED["predictor"])
def test_predictions_at_another_rate_differ_only_by_the_resampler(fold):
    predictor = Predictor.load(RUN, None if fold == "all" else fold)
    for name in (name for name in EXPECTED["predictor"][fold] if "16k" in name):
        wave, rate = soundfile.read(FOLDER / name, dtype="float32", always_2d=True)
        resampled = resample(torch.from_numpy(wave.mean(axis=1)), rate, predictor.sample_rate)
        expected = EXPECTED["predictor"][fold][name]
        # the order of summation differs between processors and changes the 16-bit rounding of some samples
        probabilities = predictor(resampled, predictor.sample_rate).probabilities
        assert probabilities == pytest.approx(np.array(expected["probabilities"]), abs=1e-4)


def test_logits_of_each_model_are_unchanged():
    predictor = Predictor.load(RUN)
    for name, expected in EXPECTED["logits"].items():
        wave, _ = soundfile.read(FOLDER / name, dtype="int16")
        logits = predictor.scorer(torch.from_numpy(wave)[None])[:, 0]
        assert logits.numpy() == pytest.approx(np.array(expected), abs=TOLERANCE)


def test_a_single_weights_file_predicts(tmp_path):
    shutil.copy(RUN / WEIGHTS, tmp_path / "model.pt")
    predictor = Predictor.load(tmp_path / "model.pt")
    (name, expected), *_ = EXPECTED["logits"].items()
    probabilities = predictor.file(FOLDER / name).probabilities
    assert np.log(probabilities / probabilities[0]) == pytest.approx(
        np.array(expected[0]) - expected[0][0], abs=TOLERANCE
    )


def test_output_of_the_script_is_unchanged(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(FOLDER)
    argv = ["predict.py", RUN.name, "clips", "--format=jsonl", "--timelines", str(tmp_path), "--device=cpu"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(tiny.ROOT / "scripts" / "predict.py"), run_name="__main__")
    assert not exit_info.value.code
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == [line["file"] for line in EXPECTED["script"]]
    for line, expected in zip(lines, EXPECTED["script"], strict=True):
        assert [line[key] for key in ("seconds", "windows", "calibrated", "seen_in_training")] == [
            expected[key] for key in ("seconds", "windows", "calibrated", "met")
        ]
        assert line["probabilities"] == pytest.approx(expected["probabilities"], abs=tolerance(expected["file"]))
        for model, expected_model in zip(line["models"], expected["models"], strict=True):
            assert model["fold"] == expected_model["fold"]
            assert model["temperature"] == pytest.approx(expected_model["temperature"], rel=TOLERANCE)


def test_scores_are_read():
    run = load_run(RUN)
    assert run.total.accuracy == pytest.approx(22 / 30)
    assert run.total.accuracy == pytest.approx(np.mean(run.correct))
    assert (run.total.n, len(run.clips), run.config["model"]["width"]) == (30, 30, 4)
    stored = json.loads((RUN / "cv.json").read_text())
    assert (run.total.accuracy, run.total.loss) == pytest.approx((stored["accuracy"], stored["loss"]))


@pytest.mark.parametrize(
    ("line", "added", "key"),
    [
        ("features:\n", "  taper: hann\n", "features.taper"),
        ("    probability: 0.6\n", "    shape: flat\n", "augment.time_stretch.shape"),
        ("model:\n", "  dropout:\n    rate: 0.5\n", "model.dropout"),
    ],
)
def test_an_unknown_key_that_changes_images_is_refused(line, added, key, tmp_path):
    content = torch.load(RUN / WEIGHTS, weights_only=True)
    path = tmp_path / "weights.pt"
    config = content["config"].replace(line, line + added, 1)
    assert config != content["config"]
    torch.save({**content, "config": config}, path)
    with pytest.raises(InputError) as error:
        Predictor.load(path)
    text = str(error.value)
    assert text.startswith(f"{path} has the key {key},")
    assert "written by another version of soundfold; use that version or train again" in text


def test_an_unknown_key_of_other_sections_is_refused_with_another_network(tmp_path):
    content = torch.load(RUN / WEIGHTS, weights_only=True)
    config = content["config"].replace("features:\n", "features:\n  taper: hann\n", 1)
    config = config.replace("model:\n", "model:\n  _target_: mypackage.Net\n  depth: 3\n", 1)
    torch.save({**content, "config": config}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"has the key features\.taper,"):
        Predictor.load(tmp_path / "weights.pt")


def test_an_unknown_key_that_does_not_change_predictions_is_ignored(tmp_path):
    content = torch.load(RUN / WEIGHTS, weights_only=True)
    config = content["config"].replace("trainer:\n", "trainer:\n  benchmark: true\n", 1)
    torch.save({**content, "config": config}, tmp_path / "weights.pt")
    assert Predictor.load(tmp_path / "weights.pt").classes == ("noise", "tone", "pulses")
