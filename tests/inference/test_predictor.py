"""A trained model in use, as Python and as scripts/predict.py."""

import csv
import json
import pickle
import runpy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import tiny

from soundfold.errors import InputError
from soundfold.evaluation.metrics import fit_temperature, probabilities
from soundfold.evaluation.results import load_predictions
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.inference.predictor import Prediction, Predictor
from soundfold.inference.timeline import audacity, labels, timeline_csv

PREDICT = tiny.ROOT / "scripts" / "predict.py"


@pytest.fixture
def predict(monkeypatch, capsys, tmp_path):
    """Run scripts/predict.py here: its exit code, output and error output."""

    def run(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["predict.py", "--timelines", str(tmp_path / "timelines"), *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(PREDICT), run_name="__main__")
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def clips_of(run: Path) -> Path:
    return run.parents[1] / "tiny" / "audio"


def test_predictions_of_real_clips_are_those_of_the_fold(real_run, esc10, predict, tmp_path):
    scored = load_predictions(real_run / "fold1" / "predictions.csv", Predictor.load(real_run).classes)
    some = range(0, len(scored.files), 8)
    files = [esc10 / "audio" / scored.files[i] for i in some]
    code, out, err = predict(real_run, *files, "--format=jsonl")
    assert code == 0
    assert "Uncalibrated: the run has no other finished fold" in err
    lines = [json.loads(line) for line in out.splitlines()]
    found = np.array([list(line["probabilities"].values()) for line in lines])
    assert np.abs(found - probabilities(scored.logits[some])).max() < 1e-4
    assert [line["file"] for line in lines] == list(map(str, files))
    assert all(line["windows"] == 1 and not line["calibrated"] and line["seen"] == [] for line in lines)


def test_a_fold_is_calibrated_by_the_predictions_of_the_others(tiny_run):
    predictor = Predictor.load(tiny_run, fold=2)
    others = [load_predictions(tiny_run / f"fold{k}" / "predictions.csv", predictor.classes) for k in (1, 3)]
    fitted = fit_temperature(*(np.concatenate([getattr(o, name) for o in others]) for name in ("logits", "targets")))
    assert predictor.models[0].temperature == fitted
    scored = load_predictions(tiny_run / "fold2" / "predictions.csv", predictor.classes)
    for file, logits in zip(scored.files, scored.logits, strict=True):
        one = predictor.file(clips_of(tiny_run) / file)
        assert one.calibrated
        assert np.abs(one.probabilities - probabilities(logits[None] / fitted)[0]).max() < 1e-4


def test_a_run_is_the_mean_of_its_folds(tiny_run):
    clip = clips_of(tiny_run) / "0.wav"
    whole = Predictor.load(tiny_run).file(clip)
    parts = [Predictor.load(tiny_run, fold=k).file(clip) for k in (1, 2, 3)]
    assert np.abs(whole.probabilities - np.mean([p.probabilities for p in parts], axis=0)).max() < 1e-6
    assert np.ptp([p.probabilities[0] for p in parts]) > 1e-3
    # clip 0 is in fold 1, and has trained the two others
    assert whole.seen == ("2", "3")
    assert "2 of 3 models met this very clip" in whole.notes[0]
    assert parts[0].seen == ()
    assert parts[1].seen == ("2",)


def test_a_file_of_weights_is_enough(tiny_run, tmp_path):
    weights = tiny_run / "fold1" / "checkpoints" / "weights.pt"
    clip = clips_of(tiny_run) / "0.wav"
    inside = Predictor.load(weights)
    assert inside.file(clip).top() == Predictor.load(tiny_run, fold=1).file(clip).top()
    (tmp_path / "alone.pt").write_bytes(weights.read_bytes())
    alone = Predictor.load(tmp_path / "alone.pt")
    assert (alone.classes, alone.sample_rate, alone.samples) == (("noise", "tone"), 8000, 4000)
    found = alone.file(clip)
    assert not found.calibrated
    scored = load_predictions(tiny_run / "fold1" / "predictions.csv", alone.classes)
    row = scored.logits[scored.files.index("0.wav")]
    assert np.abs(found.probabilities - probabilities(row[None])[0]).max() < 1e-4


class Fires:
    def __reduce__(self):
        return (Path.touch, (Path("fired"),))


@pytest.mark.parametrize("kind", ["code", "other", "misfit", "values"])
def test_a_foreign_file_is_refused_and_nothing_in_it_runs(kind, tiny_run, tmp_path, monkeypatch, predict):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "foreign.pt"
    content = torch.load(tiny_run / "fold1" / "checkpoints" / "weights.pt", weights_only=True)
    if kind == "code":
        path.write_bytes(pickle.dumps(Fires()))
    elif kind == "other":
        torch.save({"state_dict": content["network"]}, path)
    elif kind == "misfit":
        torch.save({**content, "classes": ["a", "b", "c"]}, path)
    else:
        torch.save({**content, "config": "data: 3"}, path)
    code, out, err = predict(path, clips_of(tiny_run) / "0.wav")
    assert (code, out) == (2, "")
    assert "is not a trained model" in err or "cannot be rebuilt" in err
    # one paragraph, and none of torch's advice to load it unsafely
    assert len(err.splitlines()) == 1
    assert "weights_only" not in err
    assert not (tmp_path / "fired").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("absent",), "There is no model"),
        (("RUN", "--fold=9"), "no kept model of fold 9; it has 1, 2, 3"),
        (("RUN", "--hop=0.6"), "at most the window's 0.5 s"),
        (("RUN", "--hop=0"), "must be above 0"),
        (("RUN", "--top=0"), "--top=0"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(words, reason, tiny_run, predict):
    run, *options = (str(tiny_run) if word == "RUN" else word for word in words)
    code, out, err = predict(run, clips_of(tiny_run) / "0.wav", *options)
    assert (code, out) == (2, "")
    assert reason in err


def test_bad_files_are_told_and_the_others_predicted(tiny_run, tmp_path, predict):
    clip = clips_of(tiny_run) / "0.wav"
    (tmp_path / "text.wav").write_text("hello")
    code, out, err = predict(tiny_run, tmp_path / "text.wav", clip, tmp_path / "absent.wav", "--format=csv")
    assert code == 1
    (row,) = csv.DictReader(out.splitlines())
    assert row["file"] == str(clip)
    assert float(row["p_noise"]) + float(row["p_tone"]) == pytest.approx(1, abs=1e-5)
    assert row["seen"] == "2 3"
    assert [line[:6] for line in err.splitlines() if "error" in line] == ["error:"] * 2
    code, out, _ = predict(tiny_run, tmp_path / "text.wav", clip)
    assert code == 1
    assert "noise" in out
    assert "not predicted" in out
    code, out, _ = predict(tiny_run, tmp_path / "text.wav", "--format=jsonl")
    assert code == 1
    assert "not audio" in json.loads(out)["error"]


def test_any_rate_and_channels_give_nearly_the_same(tiny_run, tmp_path):
    predictor = Predictor.load(tiny_run)
    wave, rate = soundfile.read(clips_of(tiny_run) / "3.wav", dtype="float32")
    plain = predictor(wave, rate)
    assert np.abs(plain.probabilities - predictor.file(clips_of(tiny_run) / "3.wav").probabilities).max() < 1e-9
    stored = np.rint(wave * 32768).astype(np.int16)
    assert predictor(stored, rate).top() == plain.top()
    assert predictor(torch.from_numpy(wave), rate).top() == plain.top()
    assert predictor(np.stack([wave, wave], axis=1), rate).top() == plain.top()
    from torchaudio.functional import resample

    high = resample(torch.from_numpy(wave), rate, 44_100).numpy()
    soundfile.write(tmp_path / "high.ogg", np.stack([high, high], axis=1), 44_100)
    found = predictor.file(tmp_path / "high.ogg")
    assert len(found.windows) == 1
    assert found.top(1)[0][0] == plain.top(1)[0][0]
    assert np.abs(found.probabilities - plain.probabilities).max() < 0.1


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (np.zeros(0), "no samples"),
        (np.zeros((2, 2, 2)), r"\(2, 2, 2\)"),
        (np.zeros(10, dtype=np.int64), "int64"),
        (np.array([0.0, np.inf]), "not numbers"),
    ],
)
def test_a_waveform_that_is_none_is_refused(wave, reason, tiny_run):
    with pytest.raises(InputError, match=reason):
        Predictor.load(tiny_run, fold=1)(wave, 8000)


@pytest.mark.parametrize("rate", [0, 999, 8000.5, np.nan, np.inf, 2_000_000])
def test_a_rate_that_is_none_is_refused(rate, tiny_run):
    with pytest.raises(InputError, match="must be a whole number from 1000 to 1000000 Hz"):
        Predictor.load(tiny_run, fold=1)(np.zeros(100), rate)


def test_what_is_to_be_known_of_a_recording_is_noted(tiny_run):
    predictor = Predictor.load(tiny_run, fold=1)
    low = predictor(0.1 * np.sin(np.arange(2000)), 4000)
    centres = predictor.centres
    missing = int((centres > 2000).sum())
    assert 0 < missing < len(centres)
    assert f"sampled at 4000 Hz, so {missing} of the 16 mel bands" in low.notes[0]
    assert "digital silence" in predictor(np.zeros(4000), 8000).notes
    assert "filled up with silence to 0.5 s" in predictor(0.1 * np.ones(400), 8000).notes[0]
    assert "far above full scale" in predictor(2000 * np.sin(np.arange(4000.0)), 8000).notes[0]
    assert predictor(0.1 * np.sin(np.arange(4000)), 8000).notes == ()


def test_a_long_recording_is_a_timeline(tiny_run, tmp_path, predict):
    rng = np.random.default_rng(0)
    seconds = np.arange(8000) / 8000
    tone = 0.3 * np.sin(2 * np.pi * 800 * seconds)
    wave = np.concatenate([tone, 0.3 * rng.uniform(-1, 1, 8000), tone])
    path = tmp_path / "long.flac"
    soundfile.write(path, wave, 8000)
    code, out, err = predict(tiny_run, path, path, "--format=jsonl", "--hop=0.1")
    assert code == 0
    assert "Timeline: " in err
    first, again = map(json.loads, out.splitlines())
    assert first["windows"] == 26
    folder = tmp_path / "timelines"
    assert first["timeline"] == [str(folder / f"long.{suffix}") for suffix in ("csv", "png", "txt")]
    # the same name, and none of the two written over
    assert again["timeline"][0] == str(folder / "long-2.csv")
    rows = list(csv.DictReader((folder / "long.csv").open()))
    assert [float(row["start"]) for row in rows] == pytest.approx(np.arange(26) / 10)
    assert [float(row["end"]) for row in rows] == pytest.approx(np.arange(26) / 10 + 0.5)
    mean = np.mean([[float(row["p_noise"]), float(row["p_tone"])] for row in rows], axis=0)
    assert mean == pytest.approx(list(first["probabilities"].values()), abs=1e-5)
    # a window alone has what it has in the recording
    predictor = Predictor.load(tiny_run)
    alone = predictor(soundfile.read(path)[0][8000:12_000], 8000)
    assert float(rows[10]["p_noise"]) == pytest.approx(alone.probabilities[0], abs=1e-5)
    stretches = [line.split("\t") for line in (folder / "long.txt").read_text().splitlines()]
    assert (stretches[0][0], stretches[-1][1]) == ("0.000000", "3.000000")
    assert all(a[1] == b[0] and a[2] != b[2] for a, b in pairwise(stretches))
    assert (folder / "long.png").read_bytes()[:4] == b"\x89PNG"


def made_up(best: list[int]) -> Prediction:
    windows = np.eye(3)[best]
    starts = np.arange(len(best)) * 2.0
    end = starts[-1] + 4
    names = ("a dog", "tab\tbed", "c")
    return Prediction(names, windows.mean(axis=0), windows, starts, starts + 4, end, True, (), ())


def test_labels_are_stretches_of_one_class_without_gaps():
    found = made_up([0, 0, 1, 2, 2])
    assert labels(found) == [(0, 5, "a dog"), (5, 7, "tab\tbed"), (7, 12, "c")]
    assert audacity(found).splitlines()[1] == "5.000000\t7.000000\ttab bed"
    assert labels(made_up([1])) == [(0, 4, "tab\tbed")]
    assert timeline_csv(found).splitlines()[1] == "0.000,4.000,a dog,1.000000,1.000000,0.000000,0.000000"


MEMORY = """
import sys
from soundfold.inference.predictor import Predictor
predictor = Predictor.load(sys.argv[1], fold=1)
for name in sys.argv[2:]:
    assert len(predictor.file(name, hop=0.5, sketch=True).windows) > 1
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of a process's memory")
def test_three_minutes_take_no_more_memory_than_ten_seconds(tiny_run, tmp_path):
    second = (3000 * np.random.default_rng(0).standard_normal((96_000, 2))).astype(np.int16)
    for name, seconds in (("short.wav", 10), ("long.wav", 180)):
        with soundfile.SoundFile(tmp_path / name, "w", 96_000, 2) as file:
            for _ in range(seconds):
                file.write(second)
    command = [sys.executable, "-c", MEMORY, tiny_run, tmp_path / "short.wav", tmp_path / "long.wav"]
    out = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    short, long = map(int, out.split())
    # kilobytes; the samples as float32 are 138 MB, and their average 69 MB more
    assert long - short < 20_000


def test_a_kept_model_of_other_features_is_not_averaged(tiny_run, tmp_path):
    from soundfold.inference.fold_models import FoldModel

    kept = ModelBundle.load(tiny_run / "fold1" / "checkpoints" / "weights.pt")
    other = ModelBundle(
        kept.network, kept.mean, kept.std, kept.classes, kept.config.replace("n_mels: 16", "n_mels: 8"), kept.seen
    )
    with pytest.raises(InputError, match="cannot be averaged"):
        Predictor([FoldModel("1", kept, None, ""), FoldModel("2", other, None, "")])
