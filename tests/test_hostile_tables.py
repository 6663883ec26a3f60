"""Hostile tables and folders of clips are read consistently, or refused with an InputError."""

import ntpath
import posixpath
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from helpers.hostile import accepted, bounded, property_test
from helpers.shared import SHARED
from hypothesis import strategies as st

from soundfold.data.folder import read_folder
from soundfold.data.splits import BENCHMARK, make_split
from soundfold.data.tables import ESC50, URBANSOUND8K, ClipTable, read_table
from soundfold.errors import InputError

HEADER = "filename,fold,target,category,esc10,src_file"
SYNTHETIC = [f"{i}.wav,{i % 5 + 1},{i % 3},class {i % 3},{i % 2 == 0},source {i}" for i in range(15)]
OFFICIAL = SHARED / "esc50" / "meta" / "esc50.csv"
VALID_TABLES = [[HEADER, *SYNTHETIC]]
if OFFICIAL.is_file():
    VALID_TABLES.append(OFFICIAL.read_text().splitlines()[:20])
NUMBER_TEXTS = ["-1", "0", "2", "1.0", "nan", "1e3", "9" * 19, "-" + "9" * 30, "9" * 5000, "٣", "1_0"]
PATHS = ["..", "../a.wav", "a/../../b.wav", "/dev/zero", "C:\\a.wav", "C:a.wav", "..\\a.wav", "\\\\host\\a.wav"]
FILE_NAMES = [".", "./0.wav", "a//b.wav", "CON", '"a\nb.wav"', "a,b.wav", 'a"b', "a\0b.wav", "x" * 300, "y" * 140_000]
TEXTS = ["", " ", "True", "maybe", "\ufeff", "fold", "filename", "src_file", "esc10"]
CELLS = st.one_of(*map(st.sampled_from, (NUMBER_TEXTS, PATHS, FILE_NAMES, TEXTS)), st.text(max_size=5))
READ_OPTIONS = st.fixed_dictionaries(
    {
        "subset": st.sampled_from([None, None, None, "esc10", "take", "filename", ""]),
        "classes": st.one_of(st.none(), st.none(), st.lists(st.sampled_from(["class 0", "class 1", "dog", "x"]))),
        "columns": st.sampled_from([ESC50, ESC50, URBANSOUND8K]),
    }
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """Draw the bytes of a valid table with changed cells, rows and bytes, and the options to read it with."""
    rows = [line.split(",") for line in draw(st.sampled_from(VALID_TABLES))]
    options = draw(READ_OPTIONS)
    if options["columns"] is URBANSOUND8K:
        rows[0] = ["slice_file_name", "fold", "classID", "class", "esc10", "fsID", *rows[0][6:]]
    for _ in range(draw(st.integers(0, 3))):
        row = rows[draw(st.integers(0, len(rows) - 1))]
        index = draw(st.integers(0, len(row)))
        inserted, removed = draw(st.sampled_from([(1, 1), (1, 1), (1, 1), (0, 1), (1, 0), (0, 99)]))
        row[index : index + removed] = [draw(CELLS)] * inserted
    newline = draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"]))
    content = newline.join(map(",".join, rows)).encode(draw(st.sampled_from(["utf-8"] * 4 + ["utf-8-sig", "utf-16"])))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 5]))):
        offset = draw(st.integers(0, len(content)))
        content = content[:offset] + draw(st.binary(max_size=3)) + content[offset + draw(st.integers(0, 2)) :]
    return content, options


def check_table(table: ClipTable) -> None:
    assert len(table) == len(table.folds) == len(table.targets) == len(table.sources) > 1
    assert table.folds.dtype == table.targets.dtype == np.int64
    assert table.folds.min() >= 1
    assert np.array_equal(np.unique(table.targets), np.arange(len(table.classes)))
    assert len(set(table.classes)) == len(table.classes) > 1
    assert all(text.strip() for text in (*table.sources, *table.classes))
    for system, root in ((posixpath, "/audio/"), (ntpath, "C:\\audio\\")):
        paths = [system.normpath(system.join(root, file)) for file in table.files]
        assert all(path.startswith(root) and len(path) > len(root) for path in paths)
        assert len(set(paths)) == len(table)
    assert not any("\0" in file for file in table.files)
    for fold in table.fold_numbers:
        split = accepted(lambda fold=fold: make_split(table, BENCHMARK, fold))
        assert (split is None) == (len(table.fold_numbers) < 2)


def table_bytes(*rows: str, header: str = HEADER) -> bytes:
    """Return a table of two valid clips and further rows."""
    return "\n".join([header, "a.wav,1,0,x,True,s", "b.wav,2,1,y,False,t", *rows]).encode()


# the comment is the failure before the fault was refused
INVALID_TABLES = (
    (table_bytes(f"c.wav,{'9' * 30},0,x,True,s"), {}),  # OverflowError: not a 64-bit integer
    (table_bytes("c.wav,1,0,x"), {"subset": "esc10"}),  # AttributeError: no esc10 cell
    (table_bytes("c.wav,1,0,x,perhaps,s"), {"subset": "esc10"}),  # read as False
    (table_bytes("a\0.wav,1,0,x,True,s"), {}),  # ValueError when the clip is opened
    (table_bytes("..\\c.wav,1,0,x,True,s"), {}),  # outside of the folder on Windows
    (table_bytes("0:/c.wav,1,0,x,True,s"), {}),  # another drive on Windows
    (table_bytes(".,1,0,x,True,s"), {}),  # the folder itself
    (table_bytes("./a.wav,2,0,x,True,s"), {}),  # one clip in two folds
    (table_bytes("c, d.wav,1,0,x,True,s"), {}),  # the comma shifts the cells
    (table_bytes("c.wav,1_0,0,x,True,s"), {}),  # fold 10
    (table_bytes("c.wav,1,\u0660,x,True,s"), {}),  # target 0 in Arabic digits
    # predictions.csv could not be read, after all folds were trained
    *((table_bytes(f'"c{c}d.wav",1,0,x,True,s'), {}) for c in "\r\n\x1b\x85\u2028"),
    (table_bytes('c.wav,3,2,"z\rz",True,s'), {}),
    (table_bytes('c.wav,1,0,x,True,"s\rs"'), {}),
    (table_bytes(header=HEADER + ",fold"), {}),  # two columns of one name, of which the last is read
)


@property_test(
    st.one_of(tables(), st.tuples(st.binary(max_size=200), READ_OPTIONS)), few=150, many=4000, examples=INVALID_TABLES
)
def test_table_is_consistent_and_inside_its_folder_or_refused(case, tmp_path):
    content, options = case
    path = tmp_path / "esc50.csv"
    path.write_bytes(content)
    table = accepted(lambda: read_table(path, **options))
    if table is not None:
        check_table(table)


def test_the_table_that_the_cases_change_is_valid(tmp_path):
    (tmp_path / "esc50.csv").write_bytes(table_bytes())
    check_table(read_table(tmp_path / "esc50.csv"))


@pytest.mark.parametrize(("content", "options"), INVALID_TABLES)
def test_known_invalid_table_is_refused(content, options, tmp_path):
    (tmp_path / "esc50.csv").write_bytes(content)
    with pytest.raises(InputError, match="esc50.csv"):
        read_table(tmp_path / "esc50.csv", **options)


def test_a_control_character_is_refused_with_its_line(tmp_path):
    (tmp_path / "esc50.csv").write_bytes(table_bytes('"c\rd.wav",1,0,x,True,s'))
    with pytest.raises(InputError, match=r"line 5: filename 'c\\rd\.wav' has a control character"):
        read_table(tmp_path / "esc50.csv")


def test_thousands_of_classes_are_read(tmp_path):
    rows = [f"{i}.wav,{i % 5 + 1},{-i * 10**14},class {i},True,{i}" for i in range(20_000)]
    (tmp_path / "esc50.csv").write_bytes("\n".join([HEADER, *rows]).encode())
    with bounded():
        table = read_table(tmp_path / "esc50.csv")
    check_table(table)
    assert table.classes[0] == "class 19999"


ODD_NAMES = [
    "a",
    "dog",
    " dog",
    "dog ",
    "a\nb",
    "a\rb",
    "a,b",
    'a"b',
    "a\\b",
    "C:",
    "CON",
    "..a",
    "\udcff",
    "é",
    "x" * 200,
]
NAMES = st.one_of(
    st.sampled_from(ODD_NAMES),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=4),
)
PATTERNS = [None, None, "a", "(", "x*", "(?P<source>.)", "a{99999999999}", "(" * 500 + ")" * 500, "[^/]*"]
SUFFIXES = [".wav", ".FLAC", ".ogg", ".txt"]
TREES = st.tuples(
    st.lists(st.tuples(NAMES, NAMES, st.sampled_from(SUFFIXES)), min_size=2, max_size=12),
    st.sampled_from(PATTERNS),
    st.integers(1, 3),
)
INVALID_TREES = (
    ([("\udcff", "a", ".wav"), ("b", "a", ".wav")], None, 1),  # UnicodeEncodeError: not UTF-8
    ([(" a", "a", ".wav"), ("b", "a", ".wav")], None, 1),  # read back without its space, so the file was missing
    ([("0:", "a", ".wav"), ("b", "a", ".wav")], None, 1),  # another drive on Windows
    ([("a\rb", "a", ".wav"), ("b", "a", ".wav")], None, 1),  # predictions.csv could not be read
    ([("a", "a", ".wav"), ("b", "a", ".wav")], "a{99999999999}", 1),  # OverflowError
    ([("a", "a", ".wav"), ("b", "a", ".wav")], "x*", 1),  # an empty source
)


@property_test(TREES, few=40, many=1000, examples=INVALID_TREES)
def test_folder_is_a_table_of_existing_files_or_refused(case, tmp_path):
    tree, pattern, folds = case
    with TemporaryDirectory(dir=tmp_path) as temporary:
        root = Path(temporary) / "root"
        for category, name, suffix in tree:
            try:
                (root / category).mkdir(parents=True, exist_ok=True)
                (root / category / (name + suffix)).touch()
            except (OSError, ValueError):
                continue  # the file system does not support the name
        table = accepted(lambda: read_folder(root, Path(temporary) / "cache", folds, pattern))
        if table is not None:
            check_table(table)
            assert all((root / file).is_file() for file in table.files)
