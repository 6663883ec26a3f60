import json

import pytest

from soundfold.benchmark import frontend, inference


def test_the_front_end_is_measured_beside_its_peers(tmp_path):
    frontend.run("cpu", clips=1, repeats=1, root=None, outputs=tmp_path)
    measured = json.loads((tmp_path / "frontend-cpu.json").read_text())
    rows = {row["method"]: row for row in measured["rows"]}
    assert rows[frontend.OURS]["ratio"] == 1
    assert all(row["ms_per_clip"] > 0 for row in rows.values())
    assert {"soundfold, plain", "torchaudio PitchShift, then mel", "notebook: librosa, one of three"} <= set(rows)
    assert measured["header"]["versions"]["torch"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frontend-cpu.json", "frontend-cpu.md"]


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
