import json

import pytest
from benchmarks import folds, frontend, inference, loop, scaling, train
from benchmarks.timing import Timing
from hydra import compose, initialize_config_dir

from soundfold.config import CONF, register
from soundfold.errors import InputError
from soundfold.validation import validate_benchmark


def test_the_front_end_is_measured_beside_its_peers(tmp_path):
    frontend.run("cpu", clips=1, repeats=1, root=None, outputs=tmp_path)
    measured = json.loads((tmp_path / "frontend-cpu.json").read_text())
    rows = {row["method"]: row for row in measured["rows"]}
    assert rows[frontend.OURS]["ratio"] == 1
    assert all(row["ms_per_clip"] > 0 for row in rows.values())
    assert {"soundfold, plain", "torchaudio PitchShift, then mel", "notebook: librosa, one of three"} <= set(rows)
    assert measured["header"]["versions"]["torch"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frontend-cpu.json", "frontend-cpu.md"]


def test_what_lightning_adds_is_a_line_through_two_settings():
    """Plain steps of 10 ms; Lightning adds 2 ms to each, and 30 ms to an epoch. The second turn met a slow machine."""
    few = loop.row("few", 5, [0.09, 0.18, 0.09], [0.05, 0.10, 0.05])
    many = loop.row("many", 45, [0.57, 0.57, 0.57], [0.45, 0.45, 0.45])
    assert loop.shell(few, many) == pytest.approx((0.002, 0.03))
    assert few["overhead"] == pytest.approx(0.8)
    header = {"repeats": 3, "device": "cpu", "threads": 2, "date": "d", "commit": "c", "versions": {"torch": "t"}}
    table = loop.markdown(header, [few, many, loop.row("real", 2, [2.2], [2.0])])
    assert "Lightning adds 2.00 ms a step and 30.0 ms an epoch." in table
    assert "| real | 2 | 1000.00 | 1100.00 | 10.0 |" in table


def test_training_is_compared_turn_by_turn():
    """Steps of 64 clips: the notebook's 2 s; ours 1 s, of which 0.1 s is the front end's and 0.8 s the network's."""
    ceilings = {"float32": 1e11, "bfloat16": 2e11}
    ours = [{"step": 1.0, "front": 0.1, "network": 0.8}] * 2 + [{"step": 3.0, "front": 0.3, "network": 2.4}]
    theirs = [{"step": 2.0}] * 2 + [{"step": 6.0}]
    made = train.row(train.BFLOAT16, ours, theirs, 64, 1e9, ceilings, 5_000_000)
    assert made["speed_over_notebook"] == 2
    assert made["epoch"] == pytest.approx(25)
    assert [made[key] for key in ("front", "network", "overhead")] == pytest.approx([0.1, 0.8, 0.1])
    assert made["utilisation"] == pytest.approx(64e9 / 0.8 / 2e11)
    assert train.row(train.NOTEBOOK, theirs, theirs, 64, 1e9, ceilings, None)["utilisation"] == pytest.approx(0.32)


def test_operations_of_a_step_are_those_of_the_layers():
    """ResNet-18 is 1.8 billion multiplications at 224x224, so 1.8 * (128 / 224)^2 at 128x128; two operations each, and
    backward twice the forward."""
    assert train.flops_of_a_step() == pytest.approx(3 * 2 * 1.8e9 * (128 / 224) ** 2, rel=0.05)


def test_less_than_half_of_a_devices_memory_holds_waveforms():
    clip = 2 * 220500
    assert scaling.resident_clips(4 * clip + 1) == 2
    assert scaling.resident_clips(4 * clip) == 1


def test_growth_is_told_against_the_least_of_its_axis():
    rows = [scaling.row("mels", 32, Timing([0.16], 2_000_000), 16), scaling.row("mels", 64, Timing([0.32], None), 16)]
    header = {"repeats": 1, "device": "cuda", "threads": 2, "date": "d", "commit": "c", "versions": {"torch": "t"}}
    table = scaling.markdown({**header, "resident_clips": 9}, rows)
    assert "| mels | 32 | 10.00 | 1.00 | 2 |" in table
    assert "| mels | 64 | 20.00 | 2.00 | ? |" in table
    assert "up to 9 clips" in table


@pytest.mark.slow
def test_training_is_measured_through_lightning(tmp_path):
    train.run("cpu", batch=4, steps=2, repeats=1, outputs=tmp_path)
    rows = json.loads((tmp_path / "train-cpu.json").read_text())["rows"]
    assert [row["contender"] for row in rows] == [train.NOTEBOOK, train.FLOAT32, train.BFLOAT16]
    assert all(row["epoch"] > 0 for row in rows)


@pytest.mark.slow
def test_folds_are_measured_by_the_command():
    words = ("features.n_mels=32", "features.hop=0.02", "trainer=cpu", "data.batch_size=8", "data.folds=2")
    took = folds.five_folds(8, 1.0, 1, words, folds=2)
    assert took["warm"] > 0
    assert took["cold"] > 0


def test_benchmarks_are_named():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for word in ("what=speed", "steps=0", "batch=0"):
            with pytest.raises(InputError, match=word.split("=")[0]):
                validate_benchmark(compose("benchmark", [word]))


def test_a_model_in_use_is_measured(tmp_path):
    inference.run("cpu", clips=2, repeats=1, outputs=tmp_path, minutes=1)
    measured = json.loads((tmp_path / "inference-cpu.json").read_text())
    rows = {row["method"]: row for row in measured["rows"]}
    assert list(rows) == [f"{by}, {of}" for by in ("PyTorch", "ONNX Runtime") for of in ("one clip", "batch of 2")]
    for row in rows.values():
        assert row["real_time"] == pytest.approx(5000 / row["ms_per_clip"])
        assert row["file_mb"] > 40
    # a minute in windows of 5 s that overlap by half
    assert measured["recording"]["windows"] == 23
    assert measured["recording"]["real_time"] == pytest.approx(60 / measured["recording"]["seconds"])
    assert "A recording of 1 min, 23 windows" in (tmp_path / "inference-cpu.md").read_text()
