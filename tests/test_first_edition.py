"""A run written by the first edition of soundfold is still read, and predicts what it predicted then.

Its files were never written anew: a renamed key or tensor must still be understood in them. The clips lie beside it,
and predictions.json holds what the first edition's own code said of them.
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

HOME = tiny.ROOT / "tests" / "golden" / "first_edition"
RUN = HOME / "first_edition-2bb17ae9"
WEIGHTS = Path("fold1") / "checkpoints" / "weights.pt"
THEN = json.loads((HOME / "predictions.json").read_text())
# of probabilities, logits and temperatures
NEAR = 1e-5


def near(name: str) -> float:
    """The first edition resampled by torchaudio's kernel, which damps and aliases the top of the band."""
    return 2e-2 if "16k" in name else NEAR


@pytest.mark.parametrize("fold", THEN["predictor"])
def test_the_predictor_says_what_it_said(fold):
    predictor = Predictor.load(RUN, None if fold == "all" else fold)
    assert list(predictor.classes) == THEN["classes"]
    for name, then in THEN["predictor"][fold].items():
        found = predictor.file(HOME / name)
        assert found.probabilities == pytest.approx(np.array(then["probabilities"]), abs=near(name))
        assert found.windows == pytest.approx(np.array(then["windows"]), abs=near(name))
        assert (list(found.seen), found.calibrated) == (then["met"], then["calibrated"])


@pytest.mark.parametrize("fold", THEN["predictor"])
def test_only_the_resampler_changed_what_is_predicted_at_another_rate(fold):
    predictor = Predictor.load(RUN, None if fold == "all" else fold)
    for name in (name for name in THEN["predictor"][fold] if "16k" in name):
        wave, rate = soundfile.read(HOME / name, dtype="float32", always_2d=True)
        resampled = resample(torch.from_numpy(wave.mean(axis=1)), rate, predictor.sample_rate)
        then = THEN["predictor"][fold][name]
        # processors that sum in another order round some samples to another of the 16-bit values
        probabilities = predictor(resampled, predictor.sample_rate).probabilities
        assert probabilities == pytest.approx(np.array(then["probabilities"]), abs=1e-4)


def test_each_model_gives_the_logits_that_it_gave():
    predictor = Predictor.load(RUN)
    for name, then in THEN["logits"].items():
        wave, _ = soundfile.read(HOME / name, dtype="int16")
        logits = predictor.scorer(torch.from_numpy(wave)[None])[:, 0]
        assert logits.numpy() == pytest.approx(np.array(then), abs=NEAR)


def test_a_file_of_weights_alone_predicts(tmp_path):
    shutil.copy(RUN / WEIGHTS, tmp_path / "alone.pt")
    predictor = Predictor.load(tmp_path / "alone.pt")
    (name, then), *_ = THEN["logits"].items()
    probabilities = predictor.file(HOME / name).probabilities
    assert np.log(probabilities / probabilities[0]) == pytest.approx(np.array(then[0]) - then[0][0], abs=NEAR)


def test_the_script_says_what_it_said(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(HOME)
    words = ["predict.py", RUN.name, "clips", "--format=jsonl", "--timelines", str(tmp_path), "--device=cpu"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tiny.ROOT / "scripts" / "predict.py"), run_name="__main__")
    assert not ended.value.code
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == [line["file"] for line in THEN["script"]]
    for line, then in zip(lines, THEN["script"], strict=True):
        assert [line[key] for key in ("seconds", "windows", "calibrated", "seen")] == [
            then[key] for key in ("seconds", "windows", "calibrated", "met")
        ]
        assert line["probabilities"] == pytest.approx(then["probabilities"], abs=near(then["file"]))
        for part, whole in zip(line["models"], then["models"], strict=True):
            assert part["fold"] == whole["fold"]
            assert part["temperature"] == pytest.approx(whole["temperature"], rel=NEAR)


def test_its_score_is_read():
    run = load_run(RUN)
    assert run.total.accuracy == pytest.approx(22 / 30)
    assert run.total.accuracy == pytest.approx(np.mean(run.correct))
    assert (run.total.n, len(run.clips), run.config["model"]["width"]) == (30, 30, 4)
    stored = json.loads((RUN / "cv.json").read_text())
    assert (run.total.accuracy, run.total.loss) == pytest.approx((stored["accuracy"], stored["loss"]))


@pytest.mark.parametrize(
    ("line", "more", "key"),
    [
        ("features:\n", "  taper: hann\n", "features.taper"),
        ("    probability: 0.6\n", "    shape: flat\n", "augment.time_stretch.shape"),
        ("model:\n", "  dropout:\n    rate: 0.5\n", "model.dropout"),
    ],
)
def test_a_key_of_another_version_is_refused(line, more, key, tmp_path):
    content = torch.load(RUN / WEIGHTS, weights_only=True)
    path = tmp_path / "weights.pt"
    config = content["config"].replace(line, line + more, 1)
    assert config != content["config"]
    torch.save({**content, "config": config}, path)
    with pytest.raises(InputError) as refused:
        Predictor.load(path)
    text = str(refused.value)
    assert text.startswith(f"{path} has the key {key},")
    assert "written by another version of soundfold; use that version or train again" in text


def test_a_key_that_images_do_not_depend_on_is_passed_over(tmp_path):
    content = torch.load(RUN / WEIGHTS, weights_only=True)
    config = content["config"].replace("trainer:\n", "trainer:\n  benchmark: true\n", 1)
    torch.save({**content, "config": config}, tmp_path / "weights.pt")
    assert Predictor.load(tmp_path / "weights.pt").classes == ("noise", "tone", "pulses")
