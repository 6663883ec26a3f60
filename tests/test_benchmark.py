import json

import pytest
from benchmarks import folds, frontend, inference, loop, scaling, train
from benchmarks.timing import Timing
from hydra import compose, initialize_config_dir

from soundfold.config import CONF, register
from soundfold.errors import InputError
from soundfold.validation import validate_benchmark


def test_features_are_compared_with_other_libraries(tmp_path):
    frontend.run("cpu", clips=1, repeats=1, root=None, outputs=tmp_path)
    results = json.loads((tmp_path / "frontend-cpu.json").read_text())
    rows = {row["method"]: row for row in results["rows"]}
    assert rows[frontend.OURS]["ratio"] == 1
    assert all(row["ms_per_clip"] > 0 for row in rows.values())
    assert {"soundfold, plain", "torchaudio PitchShift, then mel", "notebook: librosa, one of three"} <= set(rows)
    assert results["header"]["versions"]["torch"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frontend-cpu.json", "frontend-cpu.md"]


def test_lightning_overhead_is_fitted_to_two_epoch_lengths():
    """A plain step takes 10 ms; Lightning adds 2 ms per step and 30 ms per epoch. The second repetition is slow."""
    few = loop.row("few", 5, [0.09, 0.18, 0.09], [0.05, 0.10, 0.05])
    many = loop.row("many", 45, [0.57, 0.57, 0.57], [0.45, 0.45, 0.45])
    assert loop.shell(few, many) == pytest.approx((0.002, 0.03))
    assert few["overhead"] == pytest.approx(0.8)
    header = {"repeats": 3, "device": "cpu", "threads": 2, "date": "d", "commit": "c", "versions": {"torch": "t"}}
    table = loop.markdown(header, [few, many, loop.row("real", 2, [2.2], [2.0])])
    assert "Lightning adds 2.00 ms a step and 30.0 ms an epoch." in table
    assert "| real | 2 | 1000.00 | 1100.00 | 10.0 |" in table


def test_training_is_compared_within_each_repetition():
    """A step of 64 clips takes 2 s in the notebook and 1 s here: 0.1 s for features and 0.8 s for the network."""
    ceilings = {"float32": 1e11, "bfloat16": 2e11}
    ours = [{"step": 1.0, "front": 0.1, "network": 0.8}] * 2 + [{"step": 3.0, "front": 0.3, "network": 2.4}]
    theirs = [{"step": 2.0}] * 2 + [{"step": 6.0}]
    row = train.row(train.BFLOAT16, ours, theirs, 64, 1e9, ceilings, 5_000_000)
    assert row["speed_over_notebook"] == 2
    assert row["epoch"] == pytest.approx(25)
    assert [row[key] for key in ("front", "network", "overhead")] == pytest.approx([0.1, 0.8, 0.1])
    assert row["utilisation"] == pytest.approx(64e9 / 0.8 / 2e11)
    assert train.row(train.NOTEBOOK, theirs, theirs, 64, 1e9, ceilings, None)["utilisation"] == pytest.approx(0.32)


def test_flops_of_a_step_match_the_published_count():
    """ResNet-18 has 1.8e9 multiply-adds at 224x224, scaled by (128 / 224)^2 at 128x128.

    A multiply-add is two operations, and the backward pass takes twice the forward pass.
    """
    assert train.flops_of_a_step() == pytest.approx(3 * 2 * 1.8e9 * (128 / 224) ** 2, rel=0.05)


def test_waveforms_take_less_than_half_of_device_memory():
    clip = 2 * 220500
    assert scaling.resident_clips(4 * clip + 1) == 2
    assert scaling.resident_clips(4 * clip) == 1


def test_growth_is_relative_to_the_smallest_value_of_its_axis():
    rows = [scaling.row("mels", 32, Timing([0.16], 2_000_000), 16), scaling.row("mels", 64, Timing([0.32], None), 16)]
    header = {"repeats": 1, "device": "cuda", "threads": 2, "date": "d", "commit": "c", "versions": {"torch": "t"}}
    table = scaling.markdown({**header, "resident_clips": 9}, rows)
    assert "| mels | 32 | 10.00 | 1.00 | 2 |" in table
    assert "| mels | 64 | 20.00 | 2.00 | ? |" in table
    assert "up to 9 clips" in table


@pytest.mark.slow
def test_training_benchmark_has_a_row_per_contender(tmp_path):
    train.run("cpu", batch=4, steps=2, repeats=1, outputs=tmp_path)
    rows = json.loads((tmp_path / "train-cpu.json").read_text())["rows"]
    assert [row["contender"] for row in rows] == [train.NOTEBOOK, train.FLOAT32, train.BFLOAT16]
    assert all(row["epoch"] > 0 for row in rows)


@pytest.mark.slow
def test_folds_are_timed_through_the_command():
    overrides = ("features.n_mels=32", "features.hop=0.02", "trainer=cpu", "data.batch_size=8", "data.folds=2")
    seconds = folds.five_folds(8, 1.0, 1, overrides, folds=2)
    assert seconds["warm"] > 0
    assert seconds["cold"] > 0


def test_invalid_values_are_refused_by_key():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for override in ("what=speed", "steps=0", "batch=0"):
            with pytest.raises(InputError, match=override.split("=")[0]):
                validate_benchmark(compose("benchmark", [override]))


@pytest.mark.slow
def test_inference_is_timed_per_clip_and_for_a_recording(tmp_path):
    inference.run("cpu", clips=2, repeats=1, outputs=tmp_path, minutes=1)
    results = json.loads((tmp_path / "inference-cpu.json").read_text())
    rows = {row["method"]: row for row in results["rows"]}
    assert list(rows) == [
        f"{runtime}, {size}" for runtime in ("PyTorch", "ONNX Runtime") for size in ("one clip", "batch of 2")
    ]
    for row in rows.values():
        assert row["real_time"] == pytest.approx(5000 / row["ms_per_clip"])
        assert row["file_mb"] > 40
    # a minute in windows of 5 s that overlap by half
    assert results["recording"]["windows"] == 23
    assert results["recording"]["real_time"] == pytest.approx(60 / results["recording"]["seconds"])
    assert "A recording of 1 min, 23 windows" in (tmp_path / "inference-cpu.md").read_text()
