import contextlib
import json
import sys
import time

import pytest
import torch
from benchmarks import (
    folds,
    frontend,
    frontend_peers,
    inference,
    launchers,
    loop,
    peers,
    scale,
    scaling,
    speedrun,
    train,
)
from benchmarks.timing import Timing
from helpers.tiny import render
from hydra import compose, initialize_config_dir

from soundfold.config import CONF, register
from soundfold.errors import InputError, TrainingError
from soundfold.validation import check_values


@pytest.mark.slow
def test_features_are_compared_with_other_libraries(tmp_path, monkeypatch):
    """Compilation is replaced: one method compiles, one fails, and one takes too long."""
    compilers = iter([lambda method: lambda: None, _fail, _hang])
    monkeypatch.setattr(torch, "compile", lambda method: next(compilers)(method))
    monkeypatch.setattr(frontend_peers, "COMPILE_LIMIT", 0.5)
    broken = {"no-such-library": ("no_such_module", None), "broken": ("json", lambda wave, files: _fail(None)())}
    monkeypatch.setattr(frontend_peers, "LIBRARIES", frontend_peers.LIBRARIES | broken)
    frontend.run("cpu", clips=1, repeats=1, root=None, outputs=tmp_path)
    results = json.loads((tmp_path / "frontend-cpu.json").read_text())
    rows = {row["method"]: row for row in results["rows"]}
    assert rows[frontend.OURS]["ratio"] == 1
    assert all(row["ms_per_clip"] > 0 for row in rows.values())
    shift, stretch, mel = (
        "torchaudio PitchShift, then mel",
        "torchaudio TimeStretch, then mel",
        "torchaudio mel, plain",
    )
    expected = {f"{frontend.OURS}, as in training", "soundfold, plain", shift, stretch, mel, f"{shift}, compiled"}
    assert expected | {"notebook: librosa, one of three"} <= set(rows)
    assert results["header"]["versions"]["torch"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frontend-cpu.json", "frontend-cpu.md"]
    assert list(results["first_call"]) == [f"{shift}, compiled"]
    table = (tmp_path / "frontend-cpu.md").read_text()
    assert f"| {stretch}, compiled | failed: ValueError: no kernel | | | | |" in table
    assert f"| {mel}, compiled | skipped: its first call took more than 0.5 s | | | | |" in table
    assert "| no-such-library | skipped: not installed: pip install" in table
    assert "| broken | failed: ValueError: no kernel | | | | |" in table


def _fail(method):
    def call():
        raise ValueError("no kernel\nand a long trace")

    return call


def _hang(method):
    def call():
        while True:
            # a compiler that tries another way after each error
            with contextlib.suppress(Exception):
                time.sleep(60)

    return call


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


def test_scale_has_a_row_per_size_and_reads_the_larger_one_from_a_sparse_file(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "SIZES", (60, 80))
    monkeypatch.setattr(scale, "CLASSES", 2)
    monkeypatch.setattr(scale, "RATE", 8000)
    scale.run(60, tmp_path)
    real, simulated = json.loads((tmp_path / "scale.json").read_text())["rows"]
    parts = {"table", "folds", "audit", "results", "mapped", "ahead"}
    assert real["memory"] > 0
    # 1 s at 8 kHz in 16 bits, and the header
    assert (real["store_mb"], simulated["store_mb"]) == (60 * 0.016 + 128e-6, 80 * 0.016 + 128e-6)
    assert {"clips", "is_real", "peak_mb", "epoch_peak_mb", "store_mb", *parts} == set(simulated)
    assert all(0 <= row[part] < 1 for row in (real, simulated) for part in parts)
    table = (tmp_path / "scale.md").read_text()
    assert "| 60 | 1 |" in table
    assert "| 80* | 1 |" in table
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scale.json", "scale.md"]


@pytest.mark.slow
def test_training_benchmark_has_a_row_per_contender(tmp_path, monkeypatch):
    # without bfloat16 instructions, a product of 2048 rows takes a minute
    monkeypatch.setitem(train.PRODUCT, "cpu", 256)
    monkeypatch.setitem(train.CONTENDERS, "fails", ("optim.lr=-1",))
    with pytest.raises(TrainingError, match="Not measured: fails, see "):
        train.run("cpu", batch=4, steps=2, repeats=1, outputs=tmp_path)
    rows = json.loads((tmp_path / "train-cpu.json").read_text())["rows"]
    assert [row["contender"] for row in rows] == [train.NOTEBOOK, train.FLOAT32, train.BFLOAT16]
    assert all(row["epoch"] > 0 for row in rows)
    assert "fails: not measured, ValueError: Invalid learning rate: -1.0" in (tmp_path / "train-cpu.md").read_text()


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
                check_values(compose("benchmark", [override]))


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


TINY = ("data.seconds=0.5", "data.sample_rate=8000", "features.window=0.064", "features.f_max=4000")
PRINTS = """
import json, sys
from pathlib import Path
root, size, batch, clips, epochs, device, scratch, started, *options = sys.argv[1:]
assert (Path(root) / "meta" / "esc50.csv").is_file()
print(json.dumps({"first_step": 2.0, "epochs": [4.0, 3.0 if options else 1.5], "version": "1"}))
"""
COUNTS = """
import json, sys
from pathlib import Path
file = Path(sys.argv[7]) / "runs"
runs = int(file.read_text()) if file.exists() else 0
file.write_text(str(runs + 1))
print(json.dumps({"first_step": runs, "epochs": [1.0], "version": "1"}))
"""


def test_peers_are_run_as_processes_and_absent_ones_are_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "prints.py").write_text(PRINTS)
    # the rows before it are written by then
    (tmp_path / "fails.py").write_text(
        "import json; raise ValueError(len(json.load(open('out/peers-cpu.json'))['rows']))"
    )
    (tmp_path / "counts.py").write_text(COUNTS)
    # an environment without any package
    (tmp_path / "bare").write_text("#!/bin/sh\necho no module >&2; exit 1\n")
    (tmp_path / "bare").chmod(0o755)
    entries = {
        peers.OURS: peers.Peer("prints"),
        "other": peers.Peer("prints", "json", ("fast",)),
        "absent": peers.Peer("prints", "absent_package"),
        "fails": peers.Peer("fails", "json"),
        "second": peers.Peer("counts", "json", stores=True),
    }
    monkeypatch.setattr(peers, "PEERS", entries)
    monkeypatch.setattr(peers, "SCRIPTS", tmp_path)
    monkeypatch.chdir(tmp_path)
    root = render(tmp_path / "clips")
    path = peers.run("cpu", 4, 8, str(root), [str(tmp_path / "bare"), sys.executable], tmp_path / "out", ("32x32",))
    rows = {row["peer"]: row for row in json.loads(path.with_suffix(".json").read_text())["rows"]}
    assert list(rows) == [peers.OURS, "other", "second"]
    assert rows["second"]["first_step"] == 1  # the first run, which stores what it reads, is not counted
    table = path.read_text()
    assert "| other | 32x32 | 2.0 | 3.0 | 2.00 | 1 |" in table
    assert "Not measured: absent: ModuleNotFoundError: No module named 'absent_package'" in table
    assert "Not measured: fails, 32x32: ValueError: 2." in table
    assert "other, 32x32: 3.0 s an epoch\n" in capsys.readouterr().out
    with pytest.raises(InputError, match="peers_python: nowhere does not exist"):
        peers.run("cpu", 4, 8, None, ["nowhere"], tmp_path)


def test_every_peer_has_a_script_and_a_requirement():
    for peer in peers.PEERS.values():
        required = (peers.SCRIPTS / peers.REQUIREMENTS[peer.environment]).read_text().replace("-", "_")
        assert (peers.SCRIPTS / f"{peer.script}.py").is_file()
        assert peer.package is None or f"\n{peer.package}>=" in required


@pytest.mark.slow
def test_ours_is_timed_from_the_command(tmp_path):
    root = render(tmp_path / "clips")
    command = [sys.executable, str(peers.SCRIPTS / "ours.py"), str(root), "32x32", "4", "20", "2", "cpu"]
    row, reason = peers._measure([*command, str(tmp_path)], peers.Peer("ours", None, TINY, stores=True))
    assert reason == ""
    assert row["first_step"] > 0
    assert len(row["epochs"]) == 1


@pytest.mark.slow
def test_a_speedrun_reports_every_run_of_a_fixed_length(tmp_path):
    root = render(tmp_path / "clips")
    recipe = (*TINY, "features.n_mels=16", "trainer.max_epochs=-1", "data.batch_size=8")
    path = speedrun.run("cpu", str(root), "esc50_16k", 2, 2, tmp_path / "out", recipe)
    content = json.loads(path.with_suffix(".json").read_text())
    assert [run["folds"] for run in content["runs"]] == [3, 3]
    assert all(run["seconds"] > run["training_seconds"] > 0 for run in content["runs"])
    assert "2 steps in each of 3 folds of clips, fixed beforehand: `data=esc50_16k " in path.read_text()


def test_a_speedrun_needs_a_collection_and_says_whether_it_reached_an_accuracy(tmp_path):
    with pytest.raises(InputError, match="root=None is not a collection"):
        speedrun.run("cpu", None, "esc50", 2, 1, tmp_path)
    header = {"steps": 9, "source": "ESC-50", "recipe": ["experiment=scratch"], "device": "d", "threads": 2}
    runs = [{"accuracy": value, "seconds": 9.0, "training_seconds": 5.0, "folds": 5} for value in (0.69, 0.73)]
    table = speedrun.markdown({**header, "date": "today", "commit": "c"}, runs)
    assert "The mean accuracy is at least 70 %." in table
    assert "| 2 | 71.00 (sd 2.83) | 9.0 | 5.0 |" in table


@pytest.fixture
def trained(monkeypatch):
    """Commands of a benchmark of launchers, whose runs are written without training; SLURM's give another accuracy."""
    commands = []

    def write(folder, name, *arguments):
        commands.append(arguments)
        run = folder / name / "run-1a2b3c4d"
        run.mkdir(parents=True)
        accuracy = 0.5 if name != "slurm" else 0.4
        (run / "cv.json").write_text(json.dumps({"accuracy": accuracy, "seconds": len(commands)}))

    monkeypatch.setattr(launchers, "_train", write)
    return commands


def test_launchers_are_timed_on_the_same_sweep_and_slurm_where_there_is_one(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launchers, "_has_slurm", lambda: False)
    table = launchers.run(tmp_path / "out").read_text()
    assert table.count("| equal to `basic`'s |") == 2
    assert "| `slurm` |" in table
    assert "not measured: no SLURM answers" in table
    assert [command[0] for command in trained] == ["data=synthetic", "-m", "-m", "-m"]
    assert not list(tmp_path.glob("launchers-*"))


def test_a_launcher_with_other_results_is_an_error(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launchers, "_has_slurm", lambda: True)
    with pytest.raises(TrainingError, match="The results of launcher=slurm differ"):
        launchers.run(tmp_path / "out")
    table = (tmp_path / "out" / "launchers.md").read_text()
    assert "| `ray` |" in table
    assert "slurm" not in table
