"""Predictions of trained models, in Python and by scripts/predict.py."""

import csv
import json
import pickle
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import tiny

from soundfold.errors import InputError
from soundfold.evaluation.metrics import fit_temperature, probabilities
from soundfold.evaluation.predictions import load_predictions
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.inference.fold_models import read_models
from soundfold.inference.prediction import Prediction
from soundfold.inference.predictor import Predictor
from soundfold.inference.timeline import audacity, labels, timeline_csv
from soundfold.inference.timeline_figure import timeline_figure

PREDICT = tiny.ROOT / "scripts" / "predict.py"


@pytest.fixture
def predict(monkeypatch, capsys, tmp_path):
    """Run scripts/predict.py in this process and return its exit code, stdout and stderr."""

    def run(*args) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["predict.py", "--timelines", str(tmp_path / "timelines"), *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(PREDICT), run_name="__main__")
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return run


def clips_of(run: Path) -> Path:
    return run.parents[1] / "tiny" / "audio"


def test_predictions_of_real_clips_equal_the_fold_s(real_run, esc10, predict, tmp_path):
    scored = load_predictions(real_run / "fold1" / "predictions.csv", Predictor.load(real_run).classes)
    rows = range(0, len(scored.files), 8)
    files = [esc10 / "audio" / scored.files[i] for i in rows]
    code, out, err = predict(real_run, *files, "--format=jsonl")
    assert code == 0
    assert "Uncalibrated: the run has no other finished fold" in err
    lines = [json.loads(line) for line in out.splitlines()]
    predicted = np.array([list(line["probabilities"].values()) for line in lines])
    assert np.abs(predicted - probabilities(scored.logits[rows])).max() < 1e-4
    assert [line["file"] for line in lines] == list(map(str, files))
    assert all(line["windows"] == 1 and not line["calibrated"] and line["seen_in_training"] == [] for line in lines)


def test_temperature_is_fitted_on_the_other_folds(tiny_run):
    predictor = Predictor.load(tiny_run, fold=2)
    others = [load_predictions(tiny_run / f"fold{k}" / "predictions.csv", predictor.classes) for k in (1, 3)]
    fitted = fit_temperature(*(np.concatenate([getattr(o, name) for o in others]) for name in ("logits", "targets")))
    assert predictor.models[0].temperature == fitted
    scored = load_predictions(tiny_run / "fold2" / "predictions.csv", predictor.classes)
    for file, logits in zip(scored.files, scored.logits, strict=True):
        prediction = predictor.file(clips_of(tiny_run) / file)
        assert prediction.calibrated
        assert np.abs(prediction.probabilities - probabilities(logits[None] / fitted)[0]).max() < 1e-4


def test_a_copied_fold_folder_does_not_change_models_or_temperatures(tiny_run, tmp_path):
    for source in tiny_run.glob("fold?"):
        for name in (source.name, f"{source.name}.bak", f"fold0{source.name[-1]}"):
            (tmp_path / name).symlink_to(source)
    models = [(model.fold, model.temperature) for model in read_models(tiny_run)]
    assert [(model.fold, model.temperature) for model in read_models(tmp_path)] == models


def test_prediction_of_a_run_is_the_mean_of_its_folds(tiny_run):
    clip = clips_of(tiny_run) / "0.wav"
    of_run = Predictor.load(tiny_run).file(clip)
    of_folds = [Predictor.load(tiny_run, fold=k).file(clip) for k in (1, 2, 3)]
    assert np.abs(of_run.probabilities - np.mean([p.probabilities for p in of_folds], axis=0)).max() < 1e-6
    assert np.ptp([p.probabilities[0] for p in of_folds]) > 1e-3
    # clip 0 is in fold 1, and trained the other two models
    assert of_run.seen_in_training == ("2", "3")
    assert "2 of 3 models were trained on this clip" in of_run.notes[0]
    assert of_folds[0].seen_in_training == ()
    assert of_folds[1].seen_in_training == ("2",)


def test_a_weights_file_is_enough(tiny_run, tmp_path):
    weights = tiny_run / "fold1" / "checkpoints" / "weights.pt"
    clip = clips_of(tiny_run) / "0.wav"
    in_run = Predictor.load(weights)
    assert in_run.file(clip).top() == Predictor.load(tiny_run, fold=1).file(clip).top()
    (tmp_path / "copy.pt").write_bytes(weights.read_bytes())
    copy = Predictor.load(tmp_path / "copy.pt")
    assert (copy.classes, copy.sample_rate, copy.samples) == (("noise", "tone"), 8000, 4000)
    prediction = copy.file(clip)
    assert not prediction.calibrated
    scored = load_predictions(tiny_run / "fold1" / "predictions.csv", copy.classes)
    row = scored.logits[scored.files.index("0.wav")]
    assert np.abs(prediction.probabilities - probabilities(row[None])[0]).max() < 1e-4


class RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("kind", ["code", "other_content", "other_shape", "invalid_config"])
def test_an_untrusted_file_is_refused_and_its_code_not_run(kind, tiny_run, tmp_path, monkeypatch, predict):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "foreign.pt"
    content = torch.load(tiny_run / "fold1" / "checkpoints" / "weights.pt", weights_only=True)
    if kind == "code":
        path.write_bytes(pickle.dumps(RunsCode()))
    elif kind == "other_content":
        torch.save({"state_dict": content["network"]}, path)
    elif kind == "other_shape":
        torch.save({**content, "classes": ["a", "b", "c"]}, path)
    else:
        torch.save({**content, "config": "data: 3"}, path)
    code, out, err = predict(path, clips_of(tiny_run) / "0.wav")
    assert (code, out) == (2, "")
    assert "is not a trained model" in err or "cannot be rebuilt" in err
    # one paragraph, without torch's advice to load the file unsafely
    assert len(err.splitlines()) == 1
    assert "weights_only" not in err
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("torchvision.io.write_file\n  filename: executed\n  input: text", "add --trust torchvision"),
        ("torch.hub.download_url_to_file\n  url: https://127.0.0.1/\n  dst: executed", "add --trust torch"),
        ("soundfold.io.atomic.write_text\n  path: executed\n  text: text", "add --trust soundfold"),
        (
            "soundfold.models.libraries.timm_network\n  name: resnet18\n  checkpoint_path: executed",
            "would load weights",
        ),
        ("soundfold.models.libraries.torchvision_network\n  name: resnet18\n  weights_backbone: DEFAULT", "would load"),
        ("soundfold.models.libraries.torchvision_network\n  name: vit_h_14", "cannot be rebuilt"),
    ],
)
def test_a_file_that_names_other_code_is_refused_and_nothing_runs(
    network, reason, tiny_run, tmp_path, monkeypatch, predict
):
    monkeypatch.chdir(tmp_path)
    content = torch.load(tiny_run / "fold1" / "checkpoints" / "weights.pt", weights_only=True)
    before, _, after = content["config"].partition("  _target_: soundfold.models.resnet.ResNet18\n")
    own = ("width", "stem_stride", "max_pool", "frequency_channel", "squeeze", "stochastic_depth", "pooling")
    after = "".join(line for line in after.splitlines(True) if not line.startswith(tuple(f"  {key}" for key in own)))
    torch.save({**content, "config": f"{before}  _target_: {network}\n{after}"}, tmp_path / "foreign.pt")
    code, out, err = predict(tmp_path / "foreign.pt", clips_of(tiny_run) / "0.wav")
    assert (code, out) == (2, "")
    assert reason in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "executed").exists()


def test_channels_in_antiphase_have_a_note(tiny_run, tmp_path):
    predictor = Predictor.load(tiny_run, fold=1)
    rng = np.random.default_rng(0)
    left = rng.uniform(-0.5, 0.5, 12000)
    pair = np.stack([left, -left], axis=1)
    soundfile.write(tmp_path / "exact.wav", pair, 8000)
    soundfile.write(tmp_path / "dithered.wav", pair + rng.uniform(-1e-4, 1e-4, pair.shape), 8000)
    for prediction in (
        predictor.file(tmp_path / "exact.wav"),
        predictor.file(tmp_path / "dithered.wav"),
        predictor(pair, 8000),
    ):
        assert "cancel when they are averaged (antiphase)" in " ".join(prediction.notes)
        assert "digital silence" not in prediction.notes
    silent, stereo = predictor(np.zeros((12000, 2)), 8000), predictor(pair * [1, 0.5], 8000)
    assert silent.notes == ("digital silence",)
    assert stereo.notes == predictor(left, 8000).notes == ()


def damaged(content: dict, name: str, value: float) -> dict:
    """Return the content of a weights.pt with one value of a tensor replaced."""
    tensors = content if name in content else content["network"]
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[0] = value
    return content


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: damaged(content, "conv1.weight", float("nan")), "conv1.weight has values that are not finite"),
        (lambda content: damaged(content, "fc.bias", float("inf")), "fc.bias has values that are not finite"),
        (lambda content: damaged(content, "bn1.running_var", -1.0), "bn1.running_var has a value that is no variance"),
        (lambda content: damaged(content, "mean", float("nan")), "mean has values that are not finite"),
        (lambda content: damaged(content, "std", 0.0), "std has a value that is no variance or standard deviation"),
        (lambda content: {**content, "classes": ["tone", "tone"]}, "class names are not texts, or one occurs twice"),
        (lambda content: {**content, "classes": [1, 2]}, "class names are not texts, or one occurs twice"),
        (lambda content: damaged(content, "conv1.weight", 3e38), "outputs are not finite"),
    ],
)
def test_a_model_that_predicts_nan_or_one_class_twice_is_refused(change, reason, tiny_run, tmp_path, predict):
    content = torch.load(tiny_run / "fold1" / "checkpoints" / "weights.pt", weights_only=True)
    torch.save(change(content), tmp_path / "model.pt")
    code, out, err = predict(tmp_path / "model.pt", clips_of(tiny_run) / "1.wav")
    assert code in (1, 2)
    assert reason in err
    assert "%" not in out.replace("probability %", "")


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("absent",), "There is no model"),
        (("RUN", "--fold=9"), "no saved model of fold 9; it has 1, 2, 3"),
        (("RUN", "--hop=0.6"), "at most the window's 0.5 s"),
        (("RUN", "--hop=0"), "must be above 0"),
        (("RUN", "--top=0"), "--top=0"),
    ],
)
def test_invalid_options_are_refused_before_any_prediction(args, reason, tiny_run, predict):
    run, *options = (str(tiny_run) if arg == "RUN" else arg for arg in args)
    code, out, err = predict(run, clips_of(tiny_run) / "0.wav", *options)
    assert (code, out) == (2, "")
    assert reason in err


def test_unreadable_files_are_reported_and_skipped(tiny_run, tmp_path, predict):
    clip = clips_of(tiny_run) / "0.wav"
    (tmp_path / "text.wav").write_text("hello")
    code, out, err = predict(tiny_run, tmp_path / "text.wav", clip, tmp_path / "absent.wav", "--format=csv")
    assert code == 1
    (row,) = csv.DictReader(out.splitlines())
    assert row["file"] == str(clip)
    assert float(row["p_noise"]) + float(row["p_tone"]) == pytest.approx(1, abs=1e-5)
    assert row["seen_in_training"] == "2 3"
    assert [line[:6] for line in err.splitlines() if "error" in line] == ["error:"] * 2
    code, out, _ = predict(tiny_run, tmp_path / "text.wav", clip)
    assert code == 1
    assert "noise" in out
    assert "not predicted" in out
    code, out, _ = predict(tiny_run, tmp_path / "text.wav", "--format=jsonl")
    assert code == 1
    assert "not audio" in json.loads(out)["error"]


def test_sample_rate_and_channels_hardly_change_the_prediction(tiny_run, tmp_path):
    predictor = Predictor.load(tiny_run)
    wave, rate = soundfile.read(clips_of(tiny_run) / "3.wav", dtype="float32")
    expected = predictor(wave, rate)
    assert np.abs(expected.probabilities - predictor.file(clips_of(tiny_run) / "3.wav").probabilities).max() < 1e-9
    pcm = np.rint(wave * 32768).astype(np.int16)
    assert predictor(pcm, rate).top() == expected.top()
    assert predictor(torch.from_numpy(wave), rate).top() == expected.top()
    assert predictor(np.stack([wave, wave], axis=1), rate).top() == expected.top()
    from torchaudio.functional import resample

    resampled = resample(torch.from_numpy(wave), rate, 44_100).numpy()
    soundfile.write(tmp_path / "high.ogg", np.stack([resampled, resampled], axis=1), 44_100)
    prediction = predictor.file(tmp_path / "high.ogg")
    assert len(prediction.windows) == 1
    assert prediction.top(1)[0][0] == expected.top(1)[0][0]
    assert np.abs(prediction.probabilities - expected.probabilities).max() < 0.1


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (np.zeros(0), "no samples"),
        (np.zeros((2, 2, 2)), r"\(2, 2, 2\)"),
        (np.zeros(10, dtype=np.int64), "int64"),
        (np.array([0.0, np.inf]), "not numbers"),
    ],
)
def test_an_invalid_waveform_is_refused(wave, reason, tiny_run):
    with pytest.raises(InputError, match=reason):
        Predictor.load(tiny_run, fold=1)(wave, 8000)


@pytest.mark.parametrize("rate", [0, 999, 8000.5, np.nan, np.inf, 2_000_000])
def test_an_invalid_sample_rate_is_refused(rate, tiny_run):
    with pytest.raises(InputError, match="must be an integer from 1000 to 1000000 Hz"):
        Predictor.load(tiny_run, fold=1)(np.zeros(100), rate)


def test_notes_describe_problems_of_a_recording(tiny_run):
    predictor = Predictor.load(tiny_run, fold=1)
    low_rate = predictor(0.1 * np.sin(np.arange(2000)), 4000)
    centers = predictor.band_centers
    n_empty = int((centers > 2000).sum())
    assert 0 < n_empty < len(centers)
    assert f"sampled at 4000 Hz, so {n_empty} of the model's 16 mel bands" in low_rate.notes[0]
    assert "digital silence" in predictor(np.zeros(4000), 8000).notes
    assert "padded with silence to 0.5 s" in predictor(0.1 * np.ones(400), 8000).notes[0]
    assert "far above full scale" in predictor(2000 * np.sin(np.arange(4000.0)), 8000).notes[0]
    assert predictor(0.1 * np.sin(np.arange(4000)), 8000).notes == ()


def test_a_long_recording_has_a_timeline(tiny_run, tmp_path, predict):
    rng = np.random.default_rng(0)
    seconds = np.arange(8000) / 8000
    tone = 0.3 * np.sin(2 * np.pi * 800 * seconds)
    wave = np.concatenate([tone, 0.3 * rng.uniform(-1, 1, 8000), tone])
    path = tmp_path / "long.flac"
    soundfile.write(path, wave, 8000)
    other = tmp_path / "other" / "LONG.flac"
    other.parent.mkdir()
    shutil.copy(path, other)
    code, out, err = predict(tiny_run, path, other, "--format=jsonl", "--hop=0.1")
    assert code == 0
    assert "Timeline: " in err
    first, again = map(json.loads, out.splitlines())
    assert first["windows"] == 26
    folder = tmp_path / "timelines"
    assert first["timeline"] == [str(folder / f"long.{suffix}") for suffix in ("csv", "png", "txt")]
    # files of the same name do not overwrite each other, also where a file system ignores case
    assert again["timeline"][0] == str(folder / "LONG-2.csv")
    rows = list(csv.DictReader((folder / "long.csv").open()))
    assert [float(row["start"]) for row in rows] == pytest.approx(np.arange(26) / 10)
    assert [float(row["end"]) for row in rows] == pytest.approx(np.arange(26) / 10 + 0.5)
    mean = np.mean([[float(row["p_noise"]), float(row["p_tone"])] for row in rows], axis=0)
    assert mean == pytest.approx(list(first["probabilities"].values()), abs=1e-5)
    # a window has the same prediction as an excerpt
    predictor = Predictor.load(tiny_run)
    excerpt = predictor(soundfile.read(path)[0][8000:12_000], 8000)
    assert float(rows[10]["p_noise"]) == pytest.approx(excerpt.probabilities[0], abs=1e-5)
    segments = [line.split("\t") for line in (folder / "long.txt").read_text().splitlines()]
    assert (segments[0][0], segments[-1][1]) == ("0.000000", "3.000000")
    assert all(a[1] == b[0] and a[2] != b[2] for a, b in pairwise(segments))
    assert (folder / "long.png").read_bytes()[:4] == b"\x89PNG"


def prediction_of(best: list[int]) -> Prediction:
    """Return a prediction whose windows of 4 s, one every 2 s, have these top classes."""
    windows = np.eye(3)[best]
    starts = np.arange(len(best)) * 2.0
    end = starts[-1] + 4
    names = ("a dog", "tab\tbed", "c")
    return Prediction(names, windows.mean(axis=0), windows, starts, starts + 4, end, True, (), ())


def test_labels_are_segments_of_one_class_without_gaps():
    prediction = prediction_of([0, 0, 1, 2, 2])
    assert labels(prediction) == [(0, 5, "a dog"), (5, 7, "tab\tbed"), (7, 12, "c")]
    assert audacity(prediction).splitlines()[1] == "5.000000\t7.000000\ttab bed"
    assert labels(prediction_of([1])) == [(0, 4, "tab\tbed")]
    assert timeline_csv(prediction).splitlines()[1] == "0.000,4.000,a dog,1.000000,1.000000,0.000000,0.000000"


MEMORY = """
import sys
from soundfold.inference.predictor import Predictor
predictor = Predictor.load(sys.argv[1], fold=1)
for name in sys.argv[2:]:
    assert len(predictor.file(name, hop=0.5, sketch=True).windows) > 1
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="requires Linux's /proc")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tiny_run, tmp_path):
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


def test_models_with_other_features_are_not_averaged(tiny_run, tmp_path):
    from soundfold.inference.fold_models import FoldModel

    bundle = ModelBundle.load(tiny_run / "fold1" / "checkpoints" / "weights.pt")
    other = ModelBundle(
        bundle.network,
        bundle.mean,
        bundle.std,
        bundle.classes,
        bundle.config.replace("n_mels: 16", "n_mels: 8"),
        bundle.seen,
    )
    with pytest.raises(InputError, match="cannot be averaged"):
        Predictor([FoldModel("1", bundle, None, ""), FoldModel("2", other, None, "")])


def test_the_timeline_shows_every_class_that_wins_a_window():
    windows = np.full((12, 9), 0.01)
    winners = [*range(6), *[0] * 6]
    windows[range(12), winners] = 0.9
    starts, classes = np.arange(12.0), tuple(f"class {name}" for name in "abcdefghi")
    prediction = Prediction(
        classes, windows.mean(axis=0), windows, starts, starts + 2, 13.0, True, (), (), np.zeros((16, 130)), 0.1
    )
    lower = timeline_figure(prediction, np.geomspace(100, 8000, 16)).axes[1]
    assert [line.get_label() for line in lower.lines] == list(classes[:6])
    looks = {(line.get_color(), line.get_linestyle()) for line in lower.lines}
    assert len(looks) == 6
    # one class wins all windows, and four are drawn
    single = replace(prediction, windows=windows[6:], starts=starts[6:], ends=starts[6:] + 2)
    assert len(timeline_figure(single, np.geomspace(100, 8000, 16)).axes[1].lines) == 4


@pytest.mark.parametrize(
    ("change", "is_recognized"),
    [
        ("24 bits", True),
        ("ogg", False),
        ("one sample later", False),
        ("within 40 s", False),
        ("at the start of 40 s", True),
    ],
)
def test_what_seen_in_training_can_recognize(change, is_recognized, tiny_run, tmp_path):
    samples, rate = soundfile.read(clips_of(tiny_run) / "0.wav")
    path, options = tmp_path / "copy.wav", {"subtype": "PCM_16"}
    if change == "24 bits":
        options = {"subtype": "PCM_24"}
    elif change == "ogg":
        path, options = tmp_path / "copy.ogg", {}
    elif change == "one sample later":
        samples = np.roll(samples, 1)
    else:
        start = 0 if "start" in change else 7 * rate
        longer = np.zeros(40 * rate)
        longer[start : start + len(samples)] = samples
        samples = longer
    soundfile.write(path, samples, rate, **options)
    assert Predictor.load(tiny_run, fold=2).file(path).seen_in_training == (("2",) if is_recognized else ())
