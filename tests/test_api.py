"""soundfold from Python: runs as frames, figures and HTML, with the values of their files."""

import csv
import json
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.runs import write_run
from helpers.tiny import overrides, render
from matplotlib.figure import Figure

import soundfold
from soundfold import Prediction, Predictor, cross_validate, load_run
from soundfold.config import compose_config
from soundfold.errors import ArgumentError, InputError
from soundfold.models.classifier import Classifier


def test_importing_soundfold_imports_nothing_heavy():
    code = "import sys, soundfold; assert not {'torch', 'pandas', 'hydra', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(soundfold.__all__) <= set(dir(soundfold))
    with pytest.raises(AttributeError, match="no attribute 'cross_validte'"):
        soundfold.cross_validte  # noqa: B018


def test_frames_have_the_values_of_the_files(tiny_run):
    run = load_run(str(tiny_run))
    assert run.folds.index.tolist() == [1, 2, 3]
    for fold, row in run.folds.iterrows():
        result = json.loads((tiny_run / f"fold{fold}" / "result.json").read_text())
        for key in ("n", "accuracy", "f1", "top5", "loss", "epochs", "steps", "seconds"):
            assert row[key] == pytest.approx(result[key]), key
        assert not {"val_accuracy", "audit", "environment"} & set(run.folds)  # benchmark has no validation
        with (tiny_run / f"fold{fold}" / "predictions.csv").open() as stream:
            rows = {row["filename"]: row for row in csv.DictReader(stream)}
        clips = run.predictions[run.predictions.fold == fold]
        assert sorted(clips.filename) == sorted(rows)
        for clip in clips.to_dict("records"):
            stored = rows[clip["filename"]]
            assert [clip[key] for key in ("source", "target", "prediction")] == [
                stored[key] for key in ("source", "target", "prediction")
            ]
            assert clip["correct"] == (stored["target"] == stored["prediction"])
            logits = np.array([float(stored[f"logit_{name}"]) for name in ("noise", "tone")])
            assert [clip["logit_noise"], clip["logit_tone"]] == pytest.approx(logits)
            assert clip["probability"] == pytest.approx(np.exp(logits.max()) / np.exp(logits).sum(), rel=1e-5)
        with (tiny_run / f"fold{fold}" / "metrics.csv").open() as stream:
            epochs = list(csv.DictReader(stream))
        curves = run.curves[run.curves.fold == fold]
        assert curves.epoch.tolist() == [0, 1]
        for column in ("step", "lr", "train/loss", "train/accuracy"):
            assert curves[column].tolist() == pytest.approx([float(epoch[column]) for epoch in epochs])
    total = json.loads((tiny_run / "cv.json").read_text())
    assert (run.accuracy, list(run.interval)) == (total["accuracy"], total["interval"])
    assert run.config["name"] == "tiny"


def test_figures_are_matplotlib_figures_on_white(tiny_run):
    run = load_run(tiny_run)
    figures = (run.plot_confusion_matrix(), run.plot_learning_curves(), run.plot_classes(), run.plot_calibration())
    assert all(isinstance(figure, Figure) and figure.get_facecolor() == (1, 1, 1, 1) for figure in figures)
    counts = [text.get_text() for text in figures[0].axes[0].texts]
    assert sum(map(int, counts)) == 30


def test_html_is_escaped_and_marks_leaky_and_incomplete_runs(tmp_path):
    run = load_run(write_run(tmp_path / "<b>x", np.arange(30) % 3 > 0, leaky=True))
    html = run._repr_html_()
    assert "<b>&lt;b&gt;x</b>: LEAKY, so too high: accuracy 66.67 % over 30 clips" in html
    assert html.count("<tr") == 3 + 2  # the header has two rows
    assert repr(run).startswith("<Run <b>x: LEAKY")
    with pytest.raises(InputError, match=r"has no metrics\.csv"):
        run.plot_learning_curves()
    (tmp_path / "<b>x" / "fold3" / "result.json").unlink()
    assert "2 of 3 folds" in load_run(tmp_path / "<b>x")._repr_html_()


def test_the_html_of_a_prediction_is_escaped():
    half = np.array([0.25, 0.75])
    prediction = Prediction(("a", "<b>"), half, half[None], half[:1], half[1:], 0.5, False, (), ("<i>",))
    html = prediction._repr_html_()
    assert "<td>&lt;b&gt;</td>" in html
    assert html.index("75.0") < html.index("25.0")
    assert "uncalibrated" in html
    assert "<li>&lt;i&gt;</li>" in html
    assert "uncalibrated" not in replace(prediction, calibrated=True)._repr_html_()


def test_cross_validating_returns_the_run_of_the_command(tiny_run, tmp_path):
    options = overrides(tiny_run.parents[1] / "tiny", tiny_run.parent, "report.page=none")
    run = cross_validate(options)
    assert run.folder.samefile(tiny_run)
    assert cross_validate(compose_config(*options)).predictions.equals(run.predictions)
    # letters that Hydra takes only in quotes
    folder = tmp_path / "Jörg's (own), conf"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nfold: none\n")
    with pytest.raises(InputError, match="fold=none trains a model to use"):
        cross_validate([*options, "experiment=mine", "checkpoints.keep=none"], config_dir=folder)
    assert Predictor.load(run.folder).classes == ("noise", "tone")


def test_ctrl_c_stops_a_training_and_not_python(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "training_step", interrupt)
    root, handler = render(tmp_path / "clips"), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(overrides(root, tmp_path / "outputs", "fold=1"))
    assert signal.getsignal(signal.SIGINT) is handler


def test_arguments_that_are_not_one_run_are_refused():
    with pytest.raises(ArgumentError, match=r"must be a list of overrides, such as \['data=esc10'\]"):
        cross_validate("data=esc10")
    for option in ("search=lr_wd", "experiment=find_lr"):
        with pytest.raises(ArgumentError, match="Run these on the command line"):
            cross_validate([option, "split=nested"])
    # keys of the class of another network, which are not in the schema
    with pytest.raises(ArgumentError, match="Run these on the command line"):
        cross_validate(["model=timm", "model.drop_rate=0.1", "search=lr_wd", "split=nested"])
    with pytest.raises(InputError, match=r"^optim\.lrr is not a key .* Did you mean optim\.lr\?"):
        cross_validate(["optim.lrr=1"])
