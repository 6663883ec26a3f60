"""Collections without a table: one folder of audio per class."""

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.tiny import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from soundfold.cli.hydra_errors import explain
from soundfold.config import CONF, register
from soundfold.data.collection import open_collection
from soundfold.data.folder import read_folder
from soundfold.data.folds import assign_folds
from soundfold.data.layouts import TableOptions
from soundfold.data.leakage import audit
from soundfold.data.splits import BENCHMARK, make_split
from soundfold.eda.collection_audit import _table_lines, audit_table
from soundfold.errors import ArgumentError, InputError


def write_folder(root: Path, classes: int = 3, recordings: int = 8) -> Path:
    """Write recordings of one to three clips per class, <class>/<recording>-<clip>.wav, in several sample formats."""
    rng = np.random.default_rng(0)
    number = 0
    for c in range(classes):
        for r in range(recordings):
            for cut in range(r % 3 + 1):
                path = root / f"class{c}" / ("deep" if r % 2 else "") / f"rec{c}{r}-{cut}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                shape = (rng.integers(800, 3000), 2) if r % 2 else rng.integers(800, 3000)
                subtype = ("PCM_U8", "PCM_24", "FLOAT", "PCM_16")[number % 4]
                soundfile.write(path, rng.uniform(-0.5, 0.5, shape), (8000, 11025, 16000)[number % 3], subtype)
                number += 1
    (root / "class0" / "notes.txt").write_text("not audio")
    (root / "class0" / ".hidden.wav").write_text("not audio either")
    (root / "class0" / "headless.raw").write_bytes(bytes(1600))
    return root


PATTERN = r"^(rec\d+)-"


def test_folds_are_balanced_and_never_split_a_source(tmp_path):
    root = write_folder(tmp_path / "clips")
    table = read_folder(root, tmp_path / "cache", folds=4, source_pattern=PATTERN)
    assert table.classes == ("class0", "class1", "class2")
    assert len(table) == 3 * (1 + 2 + 3 + 1 + 2 + 3 + 1 + 2)
    assert table.fold_numbers == (1, 2, 3, 4)
    for source in set(table.sources):
        assert len(set(table.folds[np.array(table.sources) == source])) == 1
    counts = np.array([[np.sum((table.folds == k) & (table.targets == c)) for c in range(3)] for k in range(1, 5)])
    assert counts.min() >= 3
    assert counts.max() <= 5
    for fold in table.fold_numbers:
        assert audit(table, make_split(table, BENCHMARK, fold)).same_source == 0
    (path,) = (tmp_path / "cache").glob("folds-*.csv")
    written = path.read_bytes()
    again = read_folder(root, tmp_path / "elsewhere", folds=4, source_pattern=PATTERN)
    assert np.array_equal(again.folds, table.folds)
    # an edited or damaged table in the cache is replaced
    for content in (written, written.replace(b",1,", b",2,", 1), b""):
        path.write_bytes(content)
        again = read_folder(root, tmp_path / "cache", folds=4, source_pattern=PATTERN)
        assert np.array_equal(again.folds, table.folds)
        assert path.read_bytes() == written


def test_folds_of_a_large_collection_are_balanced():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 50, 4000)
    sources = [f"{t}-{rng.integers(40)}" for t in targets]
    folds = assign_folds(targets, sources, [str(c) for c in range(50)], 10)
    counts = np.array([np.bincount(targets[folds == k], minlength=50) for k in range(1, 11)])
    mean = np.bincount(targets) / 10
    assert np.abs(counts - mean).max() <= 4
    assert np.abs(counts.sum(axis=1) - 400).max() < 40


def test_without_a_pattern_every_file_is_a_source(tmp_path):
    table = read_folder(write_folder(tmp_path / "clips"), tmp_path / "cache")
    assert len(set(table.sources)) == len(table)
    selected = read_folder(tmp_path / "clips", tmp_path / "cache", classes=["class0", "class2"])
    assert selected.classes == ("class0", "class2")


def test_a_folder_opens_as_a_collection(tmp_path):
    root = write_folder(tmp_path / "clips")
    collection = open_collection(
        root,
        tmp_path / "cache",
        layout="folder",
        options=TableOptions(folds=3, source_pattern=PATTERN),
        seconds=0.2,
        sample_rate=8000,
    )
    assert collection.waves.samples.shape == (len(collection.table), 1600)
    assert (np.abs(collection.waves.samples).max(axis=1) > 1000).all()
    assert set(collection.waves.lengths) > {1600}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"folds": 9, "source_pattern": PATTERN},
            r"3 of 3 classes .* `folds`=9, .* 'class0' \(8\), 'class1' \(8\), 'class2' \(8\)\. .* is `folds`=8",
        ),
        ({"source_pattern": "x(.*)"}, r"`source_pattern`='x\(\.\*\)' does not match 'class0/"),
        ({"source_pattern": "("}, "not a regular expression"),
        ({"classes": ["class0", "class7"]}, "`classes` names class7"),
    ],
)
def test_invalid_options_are_refused(tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        read_folder(write_folder(tmp_path / "clips"), tmp_path / "cache", **options)


def test_invalid_folders_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"There is no folder .*Set `root`"):
        read_folder(tmp_path / "nothing", tmp_path / "cache")
    root = write_folder(tmp_path / "one", classes=1)
    with pytest.raises(ArgumentError, match="needs two classes"):
        read_folder(root, tmp_path / "cache")
    soundfile.write(root / "stray.wav", np.zeros(10), 8000)
    with pytest.raises(ArgumentError, match=r"stray\.wav is in no folder of a class"):
        read_folder(root, tmp_path / "cache")


def test_links_to_folders_and_files_are_followed(tmp_path):
    root = write_folder(tmp_path / "clips")
    shutil.move(root / "class1", tmp_path / "elsewhere")
    (root / "class1").symlink_to(tmp_path / "elsewhere")
    shutil.move(root / "class2" / "deep", tmp_path / "deeper")
    (root / "class2" / "deep").symlink_to(tmp_path / "deeper")
    shutil.move(root / "class0" / "rec00-0.wav", tmp_path / "one.wav")
    (root / "class0" / "rec00-0.wav").symlink_to(tmp_path / "one.wav")
    linked = read_folder(root, tmp_path / "cache")
    plain = read_folder(write_folder(tmp_path / "plain"), tmp_path / "cache")
    assert (linked.files, linked.classes) == (plain.files, plain.classes)


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("class0/loop", "..", r"class0/loop and .*clips are one folder, reached through a link"),
        ("class0/self", ".", "class0/self and .*class0 are one folder"),
        ("class9", "class0", "class9 and .*class0 are one folder"),
        ("class9", "unmounted/class9", r"class9 is a broken link \(No such file.*\), so clips would be missing"),
        ("class0/x.wav", "nothing.wav", "class0/x.wav is a broken link"),
        ("class0/x", "x", "class0/x is a broken link"),
    ],
)
def test_links_that_repeat_or_lose_clips_are_refused(tmp_path, link, target, message):
    root = write_folder(tmp_path / "clips")
    (root / link).symlink_to(target)
    with pytest.raises(InputError, match=message):
        read_folder(root, tmp_path / "cache")


def test_a_folder_or_file_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "clips")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("class1/deep"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    with monkeypatch.context() as patch:
        # the tests may run as root, whom no permission stops
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(InputError, match=r"class1/deep cannot be read \(Permission denied\), so clips would be"):
            read_folder(root, tmp_path / "cache")

    def refuse_file(path, *args, **options):
        if path.name == "rec00-0.wav":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_file(path, *args, **options)

    open_file = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse_file)
        with pytest.raises(InputError, match=r"class0/rec00-0\.wav cannot be read: .*Permission denied"):
            open_collection(root, tmp_path / "cache", layout="folder", seconds=0.2, sample_rate=8000)
    os.mkfifo(root / "class0" / "pipe.wav")
    with pytest.raises(InputError, match=r"class0/pipe\.wav is not a regular file"):
        read_folder(root, tmp_path / "cache")


def test_folders_that_are_not_classes_are_named(tmp_path, capsys):
    root = write_folder(tmp_path / "clips")
    table = read_folder(root, tmp_path / "cache")
    assert capsys.readouterr().err == ""
    for name in ("__MACOSX", "lost+found", ".git", "class0/__MACOSX"):
        (root / name).mkdir()
        shutil.copy(root / "class0" / "rec00-0.wav", root / name / "x.wav")
    (root / "bird\x1bs").mkdir()
    (root / "bird\x1bs" / "song.m4a").write_bytes(bytes(100))
    (root / ".#lock").symlink_to("nothing")
    again = read_folder(root, tmp_path / "cache")
    assert (again.files, again.classes) == (table.files, table.classes)
    assert " ".join(capsys.readouterr().err.split()) == (
        f"note: Folders in {root} that are not classes: '.git', '__MACOSX', 'lost+found' (hidden, or of the system); "
        r"'bird\x1bs' (no file of a known audio format)."
    )


def test_all_classes_with_too_few_sources_are_named_at_once():
    targets = np.repeat([0, 1, 2], [6, 3, 2])
    sources = [f"s{number}" for number in range(len(targets))]
    with pytest.raises(ArgumentError, match=r"2 of 3 classes .*: 'b' \(3\), 'c' \(2\)\. .* works is `folds`=2\."):
        assign_folds(targets, sources, ["a", "b", "c"], 5)
    assert set(assign_folds(targets, sources, ["a", "b", "c"], 2)) == {1, 2}
    with pytest.raises(ArgumentError, match=r"'c' \(1\)\. No number of folds works for a class with one source"):
        assign_folds(targets, [*sources[:-1], sources[-2]], ["a", "b", "c"], 2)


def test_the_pattern_of_the_tutorial_passes_the_shell_and_hydra(tmp_path):
    text = (ROOT / "docs" / "tutorials" / "own-sounds.md").read_text()
    (quoted,) = re.findall(r"`(\"data\.source_pattern=[^\n]+?\")`", text)
    options = [quoted, quoted.replace("^(.+)-[0-9]+", r"^(?P<source>rec\d{2})-\d+\.wav$")]
    register()
    for option in options:
        shell = subprocess.run(["sh", "-c", f"printf %s {option}"], capture_output=True, text=True, check=True)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            pattern = compose("train", ["data=folder", shell.stdout]).data.source_pattern
        table = read_folder(write_folder(tmp_path / "clips"), tmp_path / "cache", source_pattern=pattern)
        assert set(table.sources) == {f"rec{c}{r}" for c in range(3) for r in range(8)}
        assert table.has_sources


def test_without_a_pattern_no_audit_claims_that_nothing_leaks(tmp_path):
    table = read_folder(write_folder(tmp_path / "clips"), tmp_path / "cache")
    counts = audit(table, make_split(table, BENCHMARK, 1))
    assert (counts.same_source, counts.same_source_and_class, counts.same_clip) == (None, None, 0)
    lines = "\n".join(_table_lines("mine", audit_table(table)))
    assert "nobody knows whether clips of one recording are in several folds" in lines
    assert "do not leak" not in lines


def test_a_pattern_without_quotes_is_refused_with_the_remedy():
    parse = OverridesParser.create().parse_overrides
    with pytest.raises(OverrideParseException) as error:
        parse(["data.source_pattern=^(.+)-"])
    assert "quotes around special characters, within those of the shell: \"KEY='VALUE'\"" in explain(error.value)
