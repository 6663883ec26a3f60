"""The registry of layouts, and collections with a table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundfold.config import Data
from soundfold.data.collection import open_collection
from soundfold.data.layouts import LAYOUTS, Layout, TableOptions, find_layout
from soundfold.data.tables import read_table
from soundfold.errors import ArgumentError, InputError


def test_registry_has_the_layouts_that_the_schema_accepts():
    assert set(LAYOUTS) == set(Data.__dataclass_fields__["layout"].metadata["choices"])


def test_a_new_layout_is_one_entry(tmp_path, monkeypatch):
    def read(root: Path, cache: Path, options: TableOptions):
        return read_table(root / "clips.csv", classes=options.classes)

    monkeypatch.setitem(LAYOUTS, "flat", Layout(read, audio=".", table="clips.csv"))
    rows = ["filename,fold,target,category", "a.wav,1,0,x", "b.wav,2,1,y", "c.wav,2,2,z"]
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(800), 8000)
    collection = open_collection(
        tmp_path,
        tmp_path / "cache",
        seconds=0.1,
        sample_rate=8000,
        layout="flat",
        options=TableOptions(classes=["x", "y"]),
    )
    assert collection.table.files == ("a.wav", "b.wav")
    assert collection.waves.lengths.tolist() == [800, 800]


def test_a_table_without_audio_is_recognized(tmp_path):
    assert not LAYOUTS["esc50"].lacks_audio(tmp_path)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").touch()
    assert LAYOUTS["esc50"].lacks_audio(tmp_path)
    (tmp_path / "audio").mkdir()
    assert not LAYOUTS["esc50"].lacks_audio(tmp_path)
    assert not LAYOUTS["folder"].lacks_audio(tmp_path / "nothing")


def test_urbansound8k_has_its_own_table_and_ten_folds(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "UrbanSound8K"
    (root / "metadata").mkdir(parents=True)
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for number in range(40):
        fold, target = number % 10 + 1, number // 10 % 2 * 5
        name = f"{1000 + number}-{target}-0-0.wav"
        rows.append(f"{name},{1000 + number},0.0,4.0,1,{fold},{target},{'siren' if target else 'dog_bark'}")
        path = root / "audio" / f"fold{fold}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rate, channels = (8000, 44100, 96000)[number % 3], number % 2 + 1
        subtype = ("PCM_U8", "PCM_24", "FLOAT")[number % 3]
        soundfile.write(path, rng.uniform(-0.5, 0.5, (rate * (number % 4 + 1) // 10, channels)), rate, subtype)
    (root / "metadata" / "UrbanSound8K.csv").write_text("\n".join(rows) + "\n")
    collection = open_collection(root, tmp_path / "cache", layout="urbansound8k", seconds=0.4, sample_rate=8000)
    assert collection.table.fold_numbers == tuple(range(1, 11))
    assert collection.table.classes == ("dog_bark", "siren")
    assert collection.table.sources[3] == "1003"
    assert collection.waves.lengths.tolist() == [800 * (number % 4 + 1) for number in range(40)]
    with pytest.raises(InputError, match="There is no table of clips"):
        open_collection(tmp_path, tmp_path / "cache", layout="urbansound8k", seconds=0.4, sample_rate=8000)


def test_classes_are_left_out_without_a_change_of_the_folds(tmp_path):
    rows = ["filename,category", *(f"{name}{i}.wav,{name}" for name in ("x", "y", "z") for i in range(6))]
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    options = TableOptions(table="clips.csv", folds=3)
    complete, known = (
        find_layout("csv", o).read(tmp_path, tmp_path, o) for o in (options, replace(options, leave_out=["y"]))
    )
    assert known.classes == ("x", "z")
    kept = [i for i, file in enumerate(complete.files) if not file.startswith("y")]
    assert known.files == complete.rows(kept).files
    assert known.folds.tolist() == complete.folds[kept].tolist()
    for classes, message in (
        (["w"], r"`leave_out` names w; the collection has \['x', 'y', 'z'\]"),
        (["x", "y"], "two"),
    ):
        wrong = replace(options, leave_out=classes)
        with pytest.raises(ArgumentError, match=message):
            find_layout("csv", wrong).read(tmp_path, tmp_path, wrong)
