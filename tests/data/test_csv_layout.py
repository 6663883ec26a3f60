"""Tables of the user: CSV files with columns of any name, and readers of other formats."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import tiny

from soundfold.config import compose_config
from soundfold.data.collection import open_collection
from soundfold.data.layouts import TableOptions, find_layout
from soundfold.data.leakage import audit
from soundfold.data.splits import BENCHMARK, make_split
from soundfold.data.table_building import build_table
from soundfold.data.tables import ClipTable
from soundfold.errors import ArgumentError, InputError
from soundfold.evaluation.compare import load_run
from soundfold.validation import validate_data

COLUMNS = {"file_column": "path", "class_column": "label"}


def read_csv(root: Path, text: str, **options) -> ClipTable:
    (root / "clips.csv").write_text(text)
    given = TableOptions(table="clips.csv", **{**COLUMNS, **options})
    return find_layout("csv", given).read(root, root / "cache", given)


def rows(n: int = 60, classes: int = 3, per_source: int = 2) -> list[str]:
    """Return lines ``path,label,rec`` of clips of sources with one class each."""
    return [f"{i}.wav,{'zyx'[i // per_source % classes]},rec{i // per_source}" for i in range(n)]


def test_folds_are_made_where_the_table_has_none(tmp_path):
    table = read_csv(tmp_path, "\n".join(["path,label,rec", *rows()]), source_column="rec", folds=4)
    assert table.classes == ("x", "y", "z")
    assert [table.classes[target] for target in table.targets[:3]] == ["z", "z", "y"]
    assert table.has_sources
    counts = np.array([[np.sum((table.folds == k) & (table.targets == c)) for c in range(3)] for k in range(1, 5)])
    assert (counts.min(), counts.max(), counts.sum()) == (4, 6, 60)
    for fold in table.fold_numbers:
        assert audit(table, make_split(table, BENCHMARK, fold)).same_source == 0
    again = read_csv(tmp_path, "\n".join(["path,label,rec", *rows()]), source_column="rec", folds=4)
    assert (again.folds == table.folds).all()


@pytest.mark.parametrize(
    ("header", "options", "folds", "has_sources"),
    [
        ("path,label,fold,source", {}, [1, 2, 3], True),
        ("path,label,part,source", {"fold_column": "part"}, [1, 2, 3], True),
        ("path,label,fold,rec", {}, [1, 2, 3], False),
        ("path,label,part,rec", {"folds": 2}, [1, 2], False),
    ],
)
def test_columns_of_fold_and_source_are_found_or_named(header, options, folds, has_sources, tmp_path):
    lines = [f"{i}.wav,{'xy'[i % 2]},{i // 2 % 3 + 1},rec{i}" for i in range(12)]
    table = read_csv(tmp_path, "\n".join([header, *lines]), **options)
    assert (list(table.fold_numbers), table.has_sources) == (folds, has_sources)
    same_source = audit(table, make_split(table, BENCHMARK, 1)).same_source
    assert same_source == (0 if has_sources else None)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("path,label\na.wav,x\nb.wav\n", {}, r"clips\.csv, line 3: path and label must not be empty"),
        ("path,label,fold\na.wav,x,1\nb.wav,y,two\n", {}, r"line 3: fold must be an integer .* not 'two'"),
        ("path,label,fold\na.wav,x,0\n", {}, r"line 2: fold is 0; folds are numbered from 1"),
        ("path,label\na.wav,x\na.wav,y\n", {}, r"line 3: a\.wav occurs twice"),
        ("path,label\n../a.wav,x\n", {}, r"line 2: path '\.\./a\.wav' must be a file inside the folder of the audio"),
        ("path,label\na.wav,x\nb.wav,X\n", {}, r"line 3: class 'X' differs from 'x' only in case"),
        ("path,tag\na.wav,x\n", {}, r"`class_column`=label is not a column of \S+clips\.csv, which has path, tag"),
        ("path,label\na.wav,x\n", {"source_column": "rec"}, r"`source_column`=rec is not a column of"),
        ("path,label\na.wav,x\nb.wav,y\n", {}, r"2 of 2 classes .* 'x' \(1\), 'y' \(1\)"),
        ("path,label\na.wav,x\nb.wav,x\n", {}, r"has one class only, 'x'"),
    ],
)
def test_errors_name_line_and_column(text, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_csv(tmp_path, text, **options)


def test_a_missing_table_is_named(tmp_path):
    options = TableOptions(table="none.csv")
    with pytest.raises(ArgumentError, match=r"no table of clips at \S+none\.csv\. Set `table`"):
        find_layout("csv", options).read(tmp_path, tmp_path, options)


def read_list(root: Path, name: str, folds: int) -> ClipTable:
    """A reader of a user: lines of class and file."""
    pairs = [line.split() for line in (root / name).read_text().splitlines()]
    return build_table([file for _, file in pairs], [label for label, _ in pairs], folds)


def read_wrong(targets: list, second: str = "b.wav") -> ClipTable:
    """A reader of a user whose targets or files are wrong."""
    files = ("a.wav", second)
    return ClipTable(files, np.array([1, 2]), np.array(targets), files, ("x", "y"))


def unannotated(root):
    """A reader that does not declare what it returns."""


def test_a_reader_of_the_user_replaces_the_layout(tmp_path):
    (tmp_path / "clips.txt").write_text("".join(f"{'xyz'[i % 3]} {i}.wav\n" for i in range(12)))
    (tmp_path / "wav").mkdir()
    for i in range(12):
        soundfile.write(tmp_path / "wav" / f"{i}.wav", np.full(800, 0.1), 8000)
    options = TableOptions(
        reader={"_target_": f"{__name__}.read_list", "name": "clips.txt"}, folds=2, classes=["z", "x"], audio="wav"
    )
    collection = open_collection(tmp_path, tmp_path / "cache", seconds=0.1, sample_rate=8000, options=options)
    table = collection.table
    assert (table.classes, table.fold_numbers, len(table), table.has_sources) == (("x", "z"), (1, 2), 8, False)
    assert table.files == tuple(f"{i}.wav" for i in range(12) if i % 3 != 1)
    assert table.targets.tolist() == [0, 1] * 4


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        ({"_target_": "json.loads"}, r"json\.loads is a function that does not declare to return a \S+ClipTable"),
        ({"_target_": f"{__name__}.unannotated"}, "does not declare to return"),
        ({"_target_": f"{__name__}.read_list"}, r"data\.reader: \S+read_list rejects its options: .*'name'"),
        ({"_target_": f"{__name__}.read_wrong", "targets": [0, 2]}, r"read_wrong: targets must be 0 to 1"),
        ({"_target_": f"{__name__}.read_wrong", "targets": [0.0, 1.0]}, r"read_wrong: targets must be .* int64"),
        ({"_target_": f"{__name__}.read_wrong", "targets": [0, 1], "second": "./a.wav"}, "its file occurs twice"),
        ({"_target_": f"{__name__}.read_wrong", "targets": [0]}, r"read_wrong returned 2 files and 1 targets"),
    ],
)
def test_readers_that_return_no_valid_table_are_refused(reader, message, tmp_path):
    options = TableOptions(reader=reader)
    with pytest.raises(InputError, match=message):
        find_layout("esc50", options).read(tmp_path, tmp_path, options)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=csv"], r"data=csv requires data\.table=FILE"),
        (["data.table=clips.csv"], r"data\.table=clips\.csv requires data=csv, not data\.layout=esc50"),
        (["data.audio=wav"], r"data\.audio=wav requires data=csv or data\.reader"),
        (["data.reader.path=x"], r"data\.reader requires _target_"),
    ],
)
def test_keys_of_other_layouts_are_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        validate_data(compose_config(*overrides))


def test_a_run_on_a_table_of_unknown_sources_says_so(tmp_path, capsys):
    root = tiny.render(tmp_path / "tiny")
    (root / "clips.csv").write_text(
        "file,label\n" + "".join(f"{i}.wav,{'tone' if i // 3 % 2 else 'noise'}\n" for i in range(30))
    )
    options = ["data=csv", f"data.table={root / 'clips.csv'}", f"data.audio={root / 'audio'}", "data.folds=3"]
    options += ["data.file_column=file", "data.class_column=label", "data.root=.", "fold=1", "trainer.max_epochs=1"]
    options += ["model.width=4"]
    tiny.cross_validate(root, tmp_path / "out", *options)
    run = load_run(tiny.only(tmp_path / "out"))
    assert run.leaks() == "sources unknown"
    text = " ".join(capsys.readouterr().out.split())
    assert "(bootstrap over 10 clips, whose sources are unknown). Shared with training: sources unknown." in text
