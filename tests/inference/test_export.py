"""Exported models: ONNX, torch.export and 8 bits."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
from helpers import tiny

from soundfold.data.store import decode, to_int16
from soundfold.evaluation.predictions import load_predictions
from soundfold.inference.export import export
from soundfold.inference.predictor import Predictor

SCRIPT = tiny.ROOT / "scripts" / "export.py"


def run(monkeypatch, *args) -> int:
    """Run scripts/export.py in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, args)])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return int(exit_.value.code or 0)


@pytest.mark.slow
def test_onnx_probabilities_of_real_clips_equal_the_predictor_s(real_run, esc10, tmp_path):
    predictor = Predictor.load(real_run)
    export(predictor, tmp_path / "model.onnx", "onnx")
    files = sorted((esc10 / "audio").iterdir())[::80]
    waves = [to_int16(decode(file, 44_100, predictor.samples), predictor.samples) for file in files]
    waves[-1] //= 4000  # nearly silent: the floor of a log-mel is relative to the clip's own maximum
    expected = np.concatenate([predictor.probabilities(torch.from_numpy(w)[None]).numpy() for w in waves])
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    wave = np.stack(waves) / np.float32(32768)
    for batch in (slice(0, 1), slice(0, 3), slice(0, 5)):
        exported = session.run(["probabilities"], {"wave": wave[batch]})[0]
        assert exported.shape == expected[batch].shape
        assert np.abs(exported - expected[batch]).max() < 1e-4
    assert np.ptp(expected, axis=0).max() > 0.01
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == list(predictor.classes)
    assert (json.loads(metadata["sample_rate"]), json.loads(metadata["samples"])) == (44_100, 220_500)
    assert metadata["soundfold_version"] == "0.1.0"
    ((mean, std),) = json.loads(metadata["normalisation"])
    assert (mean, std) == (predictor.scorer.front_ends[0].mean, predictor.scorer.front_ends[0].std)


@pytest.mark.slow
def test_torch_export_writes_the_mean_of_a_run_s_folds(tiny_run, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tiny_run, "--format=torch_export", f"--out={tmp_path / 'm.pt2'}") == 0
    assert "maximum difference to PyTorch" in capsys.readouterr().out
    extra = {"soundfold.json": ""}
    program = torch.export.load(tmp_path / "m.pt2", extra_files=extra).module()
    assert json.loads(extra["soundfold.json"])["folds"] == '["1", "2", "3"]'
    predictor = Predictor.load(tiny_run)
    wave = torch.rand(4, 4000, generator=torch.Generator().manual_seed(1)) - 0.5
    expected = predictor.probabilities((wave * 32768).round().short())
    assert (program(wave) - expected).abs().max() < 1e-4


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory) -> tuple[Path, str]:
    """Fold 2 as ONNX, with its 8-bit version in the same folder; the path and the command's output."""
    out = tmp_path_factory.mktemp("exported") / "model.onnx"
    command = [sys.executable, str(SCRIPT), str(tiny_run), "--fold=2", "--int8", f"--out={out}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.mark.slow
def test_int8_is_scored_on_the_fold_s_test_clips(exported, tiny_run):
    out, printed = exported
    scored = load_predictions(tiny_run / "fold2" / "predictions.csv", ["noise", "tone"])
    before = 100 * (scored.logits.argmax(axis=1) == scored.targets).mean()
    assert re.search(rf"accuracy on the fold's 10 test clips \d+\.00 %, {before:.2f} % before", printed)
    int8_path = out.with_name("model-int8.onnx")
    assert int8_path.stat().st_size < 0.3 * out.stat().st_size
    wave = soundfile.read(tiny_run.parents[1] / "tiny" / "audio" / "1.wav", dtype="float32")[0][None]
    float32, int8 = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"wave": wave})[0]
        for path in (out, int8_path)
    )
    assert 0 < np.abs(float32 - int8).max() < 0.2


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("--int8",), "the model of one fold"),
        (("--int8", "--format=torch_export"), "--int8 requires --format=onnx"),
        (("--int8", "--fold=2", "--data=absent"), "there is no absent"),
        (("--fold=2", "--out=absent/model.onnx"), "cannot be written"),
    ],
)
def test_invalid_options_are_refused(args, reason, tiny_run, monkeypatch, capsys):
    assert run(monkeypatch, tiny_run, *args) == 2
    assert reason in capsys.readouterr().err


EXAMPLE = """
import runpy, sys
sys.argv = ["onnx_example.py", *sys.argv[2:]]
runpy.run_path(sys.argv[0].replace("onnx_example.py", "SCRIPT"), run_name="__main__")
assert not {"torch", "soundfold", "librosa"} & set(sys.modules)
"""


@pytest.mark.slow
def test_the_example_imports_neither_torch_nor_soundfold(exported, tiny_run):
    predictor = Predictor.load(tiny_run, fold=2)
    clip = tiny_run.parents[1] / "tiny" / "audio" / "0.wav"
    example = tiny.ROOT / "scripts" / "onnx_example.py"
    code = EXAMPLE.replace("SCRIPT", str(example))
    command = [sys.executable, "-c", code, "-", str(exported[0]), str(clip)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name, value = predictor.file(clip).top(1)[0]
    assert done.stdout.splitlines()[0] == f"{100 * value:5.1f} %  {name}"
    assert len(example.read_text().splitlines()) <= 30
