from collections import Counter
from pathlib import Path

import pytest

from soundfold.data.tables import read_table
from soundfold.errors import ArgumentError, InputError

HEADER = "filename,fold,target,category,esc10,src_file,take\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "esc50.csv"
    path.write_text(text)
    return path


def test_official_table(esc50_table):
    table = read_table(esc50_table)
    assert len(table) == 2000
    assert len(set(table.sources)) == 1524
    assert table.fold_numbers == (1, 2, 3, 4, 5)
    assert Counter(table.targets.tolist()) == {target: 40 for target in range(50)}
    assert table.classes[0] == "dog"
    assert table.classes[49] == "hand_saw"


def test_subset_is_renumbered(esc50_table):
    table = read_table(esc50_table, subset="esc10")
    assert len(table) == 400
    assert sorted(set(table.targets.tolist())) == list(range(10))
    # the targets of ESC-10 are 0, 1, 10, ...; renumbering preserves their order
    assert table.classes[:3] == ("dog", "rooster", "rain")


def test_select_classes(esc50_table):
    table = read_table(esc50_table, classes=["rain", "dog"])
    assert table.classes == ("dog", "rain")
    assert len(table) == 80


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("filename,fold,target\na.wav,1,0\n", ["category"]),
        (HEADER, ["no rows"]),
        (HEADER + "a.wav,one,0,dog,True,1,A\n", ["line 2", "'one'"]),
        (HEADER + "a.wav,0,0,dog,True,1,A\n", ["line 2", "fold is 0"]),
        (HEADER + "a.wav,1,0,dog,True,1,A\na.wav,2,0,dog,True,1,A\n", ["line 3", "a.wav", "twice"]),
        (HEADER + "a.wav,1,0,dog,True,1,A\nb.wav,2,0,cat,True,1,A\n", ["line 3", "target 0", "'cat'", "'dog'"]),
        (HEADER + "a.wav,1,0,dog,True,1,A\nb.wav,2,1,dog,True,1,A\n", ["line 3", "'dog'", "target 1"]),
        # NFC and NFD, as in a copy from another file system; and two spellings
        (
            HEADER + "a.wav,1,0,caf\u00e9,True,1,A\nb.wav,1,1,cafe\u0301,True,1,A\n",
            ["line 3", "caf\\xe9", "cafe\\u0301"],
        ),
        (HEADER + "a.wav,1,0,Dog,True,1,A\nb.wav,1,1,dog,True,1,A\n", ["line 3", "'Dog'", "'dog'", "only in case"]),
        (HEADER + "../a.wav,1,0,dog,True,1,A\n", ["../a.wav", "inside"]),
        (HEADER + ",1,0,dog,True,1,A\n", ["line 2", "empty"]),
        (HEADER + "a.wav,1,0,dog,True,1,A,x\n", ["line 2", "more cells than the header"]),
        (HEADER.replace("take", "fold") + "a.wav,1,0,dog,True,1,2\n", ["more than one column fold"]),
        # blank lines count as lines of the file
        (HEADER + "\n\na.wav,0,0,dog,True,1,A\n", ["line 4", "fold is 0"]),
        (HEADER + "a.wav,1,0,dog,True,1,A\nb.wav,2,0,dog,True,1,A\n", ["one class only, 'dog'", "needs two"]),
    ],
)
def test_invalid_tables_are_refused(tmp_path, text, fragments):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_table(path)
    for fragment in [str(path), *fragments]:
        assert fragment in str(caught.value)


def test_surplus_blank_cells_are_accepted(tmp_path):
    text = HEADER + "a.wav,1,0,dog,True,1,A,\nb.wav,1,1,cat,True,1,A, \n"
    assert len(read_table(write(tmp_path, text))) == 2


def test_missing_table_names_the_remedy(tmp_path):
    with pytest.raises(ArgumentError, match=r"There is no table of clips at .*Set `root`.*`download`=esc50"):
        read_table(tmp_path / "meta" / "esc50.csv")


def test_the_remedy_for_another_table_is_not_to_download_esc50(tmp_path):
    with pytest.raises(ArgumentError, match=r"Set `root` to its folder\.$"):
        read_table(tmp_path / "metadata" / "UrbanSound8K.csv")


def test_unknown_class_is_refused(esc50_table):
    with pytest.raises(ArgumentError, match="`classes` names wolf"):
        read_table(esc50_table, classes=["wolf"])


def test_one_remaining_class_is_refused(esc50_table):
    with pytest.raises(ArgumentError, match="one class only left, 'rain'.*`classes`"):
        read_table(esc50_table, classes=["rain"])


def test_without_source_column_every_clip_is_its_own_source(tmp_path):
    table = read_table(write(tmp_path, "filename,fold,target,category\na.wav,1,3,x\nb.wav,2,4,y\n"))
    assert table.sources == ("a.wav", "b.wav")
