import json

from soundfold.benchmark import frontend


def test_the_front_end_is_measured_beside_its_peers(tmp_path):
    frontend.run("cpu", clips=1, repeats=1, root=None, outputs=tmp_path)
    measured = json.loads((tmp_path / "frontend-cpu.json").read_text())
    rows = {row["method"]: row for row in measured["rows"]}
    assert rows[frontend.OURS]["ratio"] == 1
    assert all(row["ms_per_clip"] > 0 for row in rows.values())
    assert {"soundfold, plain", "torchaudio PitchShift, then mel", "notebook: librosa, one of three"} <= set(rows)
    assert measured["header"]["versions"]["torch"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["frontend-cpu.json", "frontend-cpu.md"]
