"""The command ``soundfold explain``: its page, its JSON file, and the measurement on scored clips."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from helpers.command import run_here
from helpers.tiny import RATE

from soundfold.evaluation.compare import load_run
from soundfold.inference.explanation import ExplanationOptions, explain_clip
from soundfold.inference.faithfulness import MeasuredClip, comparisons, estimates
from soundfold.inference.predictor import Predictor
from soundfold.models.faithfulness import Curves

SMALL = ("--rows", "2", "--columns", "4", "--steps", "2")


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor.load(tiny_run, 1)


@pytest.fixture
def explain(tiny_run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    time = np.arange(RATE // 2) / RATE
    tone, noise = 0.3 * np.sin(2 * np.pi * 900 * time), np.random.default_rng(0).uniform(-0.3, 0.3, len(time))
    soundfile.write(tmp_path / "tone.wav", tone, RATE)
    soundfile.write(tmp_path / "long.wav", np.concatenate([noise, tone, noise, noise]), RATE)
    (tmp_path / "bad.wav").write_text("not audio")
    return lambda *args: run_here(monkeypatch, "explain", str(tiny_run), *args)


@pytest.mark.slow
def test_the_page_plays_what_the_model_listened_to(explain, predictor, tmp_path, capsys):
    assert explain("tone.wav", "long.wav", "bad.wav", "--class", "tone", "--fold", "1", *SMALL) == 1
    captured = capsys.readouterr()
    assert "bad.wav is not audio" in captured.err
    assert "Page: outputs/explanations/explain.html" in captured.err + captured.out
    folder = tmp_path / "outputs" / "explanations"
    content = json.loads((folder / "explain.json").read_text())
    assert list(content["errors"]) == ["bad.wav"]
    tone, long = content["files"]
    assert (tone["file"], tone["class"], tone["start"], tone["end"]) == ("tone.wav", "tone", 0.0, 0.5)
    # the window of the long recording in which the class is most probable
    prediction = predictor.file(tmp_path / "long.wav")
    assert long["start"] == prediction.starts[prediction.windows[:, 1].argmax()]
    assert long["probability"] == pytest.approx(prediction.windows[:, 1].max())
    assert set(tone["curves"]) == {"activation", "occlusion", "loudest", "random"}
    assert np.shape(tone["blocks"]["activation"]) == np.shape(tone["blocks"]["occlusion"]) == (2, 4)
    curve = tone["curves"]["occlusion"]
    assert curve["fraction"] == [0, 0.5, 1]
    assert curve["deletion"][0] == curve["insertion"][-1] == pytest.approx(tone["probability"])
    page = (folder / "explain.html").read_text()
    # three players for each file
    assert page.count("<audio") == 6
    assert "what the model listened to" in page
    assert f"Window from {long['start']:.1f} to {long['end']:.1f} s" in page


def test_heard_and_rest_add_up_to_the_clip_and_the_explanation_is_repeatable(predictor):
    pcm = (9000 * np.sin(np.arange(RATE // 2) / 3)).astype(np.int16)
    options = ExplanationOptions(rows=2, columns=3, steps=2, draws=2)
    first, second = (explain_clip(predictor, pcm, 1, options) for _ in range(2))
    np.testing.assert_allclose(first.heard.astype(int) + first.rest, pcm, atol=2)
    assert first.probability == pytest.approx(float(predictor.probabilities(torch.from_numpy(pcm)[None])[0, 1]))
    torch.testing.assert_close(first.curves["random"].deletion, second.curves["random"].deletion)
    assert set(first.maps) == {"activation", "occlusion"}
    assert all(values.min() >= 0 and values.max() <= 1 for values in first.maps.values())


@pytest.mark.slow
def test_scored_clips_are_explained_by_the_model_that_was_tested_on_them(explain, tiny_run, tmp_path, capsys):
    assert explain("--clips", "2", *SMALL) == 0
    content = json.loads((tmp_path / "outputs" / "explanations" / f"{tiny_run.name}.json").read_text())
    run = load_run(tiny_run)
    scored = dict(zip([(file, fold) for fold, file in run.clips], run.predictions, strict=True))
    assert [clip["fold"] for clip in content["clips"]] == [1, 1, 2, 2, 3, 3]
    for clip in content["clips"]:
        assert clip["prediction"] == run.total.classes[scored[clip["file"], clip["fold"]]]
    assert len(content["comparisons"]) == 8
    out = " ".join(capsys.readouterr().out.split())
    assert "Deletion: class activation" in out
    assert "95 % interval" in out
    assert "Areas of each clip" in (tmp_path / "outputs" / "explanations" / f"{tiny_run.name}.html").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param(("tone.wav", "--class", "cat"), "--class=cat is not a class of the model", marks=pytest.mark.slow),
        (("tone.wav", "--steps", "0"), "--steps=0 must be at least 1"),
        (("--fold", "1"), "--class, --hop and --fold require sound files"),
        pytest.param(("tone.wav", "--hop", "9"), "`hop`=9 must be above 0", marks=pytest.mark.slow),
    ],
)
def test_invalid_options_are_refused(explain, args, message, capsys):
    assert explain(*args) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def curves(area: float) -> Curves:
    """Return curves whose areas are ``area`` in deletion and one minus it in insertion."""
    constant = torch.full((2,), area, dtype=torch.float64)
    return Curves(torch.tensor([0.0, 1.0], dtype=torch.float64), constant, 1 - constant)


def test_a_map_beats_a_baseline_only_if_the_interval_over_sources_excludes_zero():
    noise = np.random.default_rng(0).normal(0, 0.05, 40)
    clips = [
        MeasuredClip(
            f"{i}.wav",
            1,
            str(i // 2),
            "tone",
            True,
            {"activation": curves(0.3 + n), "loudest": curves(0.3), "random": curves(0.5)},
            None,
        )
        for i, n in enumerate(noise)
    ]
    assert estimates(clips)["random"]["insertion"] == pytest.approx((0.5, 0.5, 0.5))
    found = {(c.baseline, c.curve): c for c in comparisons(clips)}
    assert {key: c.verdict for key, c in found.items()} == {
        ("random", "deletion"): "better",
        ("random", "insertion"): "better",
        ("loudest", "deletion"): "no difference",
        ("loudest", "insertion"): "no difference",
    }
    assert found["random", "deletion"].difference.mean == pytest.approx(-0.2 + noise.mean())
    assert "class activation does not beat loudest first" in found["loudest", "deletion"].sentence()
    worse = [replace(clip, curves={**clip.curves, "loudest": curves(0.1)}) for clip in clips]
    assert {c.verdict for c in comparisons(worse) if c.baseline == "loudest"} == {"worse"}
