import csv
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hydra import compose, initialize_config_dir

from soundfold.config import register
from soundfold.data.tables import read_table
from soundfold.eda.collection_audit import audit_table
from soundfold.eda.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]


def test_audit_of_the_official_table(esc50_table):
    audit = audit_table(read_table(esc50_table))
    assert (audit.clips, audit.classes, audit.sources) == (2000, 50, 1524)
    assert set(audit.folds.values()) == {400}
    assert set(audit.several_folds) == {"131943", "134049", "209698", "234879"}
    assert audit.leaks == {}
    mean, least, most = audit.contaminated
    assert audit.tested == 300
    assert 90 < mean < 125
    assert 0 < least < mean < most < 300


def test_a_source_of_one_class_in_two_folds_is_a_leak(esc50_table):
    table = read_table(esc50_table)
    sources = list(table.sources)
    a, b = np.flatnonzero(table.targets == 3)[[0, -1]]
    sources[a] = sources[b] = "same"
    audit = audit_table(replace(table, sources=tuple(sources)))
    assert audit.leaks == {f"same, {table.classes[3]}": sorted({int(table.folds[a]), int(table.folds[b])})}


def run_prepare(*overrides: str) -> None:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        prepare(compose("prepare", list(overrides)))


def run_script(*overrides: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "prepare.py"), *overrides]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def root(tmp_path) -> Path:
    """Twelve noises in three folds; clip 7 is clip 0 at half the amplitude, and clip 5 is silent."""
    rng = np.random.default_rng(0)
    rows = ["filename,fold,target,category,src_file"]
    (tmp_path / "root" / "audio").mkdir(parents=True)
    (tmp_path / "root" / "meta").mkdir()
    waves = rng.uniform(-0.5, 0.5, (12, 8000))
    waves[7], waves[5] = waves[0] / 2, 0
    for number, wave in enumerate(waves):
        soundfile.write(tmp_path / "root" / "audio" / f"{number}.wav", wave, 16000)
        rows.append(f"{number}.wav,{number % 3 + 1},{number // 3 % 2},{'ab'[number // 3 % 2]},{number}")
    (tmp_path / "root" / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "root"


@pytest.mark.slow
def test_a_collection_is_prepared_and_audited(root, tmp_path, capsys):
    overrides = [
        f"data.root={root}",
        "data.download=null",
        "data.name=toy",
        "data.seconds=0.5",
        "data.sample_rate=16000",
    ]
    overrides += [f"paths.cache={tmp_path / 'cache'}", f"paths.outputs={tmp_path / 'out'}"]
    run_prepare(*overrides, "audit=true")
    printed = capsys.readouterr().out
    sentences = (
        r"A random split would test 2 clips\. On average [012] of them, which is \d+ %, would share source and class "
        r"with a training or validation clip\. In \d+ random splits the number was between 0 and [012]\.",
        r"No source has clips of one class in several folds: these folds do not leak\.",
        r"No group of clips has identical samples\.",
        r"1 pair of clips is a near duplicate; 1 of them is across folds\.",
        r"  0\.wav and 7\.wav have a similarity of 1\.000\. They are of class a, in folds 1 and 2, from "
        r"sources 0 and 7\.",
        r"1 clip is digital silence: 5\.wav\.",
        r"    [ab] has a recall of [\d.]+ %.*; the cue of largest weight is [\w ]+\.",
        r"  all cues \(.*\): The accuracy is [\d.]+ %, with a 95 % interval of [\d.]+ to [\d.]+ %\. This is (not )?"
        r"more than the maximum of \d+ permutations of the labels, which is [\d.]+ %; their mean is [\d.]+ %\.",
    )
    lines = printed.splitlines()
    assert [sentence for sentence in sentences if not any(re.fullmatch(sentence, line) for line in lines)] == [], lines
    assert "Shortcuts: accuracy of a linear model" in printed
    written = json.loads((tmp_path / "out" / "audit-toy" / "audit.json").read_text())
    assert written["table"]["clips"] == 12
    assert written["sound"]["silent"] == ["5.wav"]
    assert written["sound"]["across_folds"] == 1
    assert set(written["shortcuts"]["scores"]) == {"file_facts", "band_limit", "all_cues"}
    with (tmp_path / "out" / "audit-toy" / "duplicates.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert (row["first"], row["second"], row["first_fold"], row["second_fold"]) == ("0.wav", "7.wav", "1", "2")

    shutil.rmtree(root / "audio")
    run_prepare(*overrides, "audit=true")
    assert "only the table is audited" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "audit-toy" / "audit.json").read_text())["sound"] is None
    done = run_script(*overrides)
    assert done.returncode == 2
    assert "0.wav" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelled_key_has_a_suggestion():
    done = run_script("audti=true")
    assert done.returncode == 2
    assert "Did you mean audit?" in done.stderr


@pytest.mark.parametrize(
    ("rows", "seconds"), [(100_000, 8), pytest.param(1_000_000, 80, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_reading_and_auditing_a_large_table_takes_linear_time(rows, seconds, tmp_path):
    """Row by row, 100,000 rows took 15 s of CPU time, and a million more than 150 s; now 1 and 12 s."""
    sources = np.random.default_rng(0).integers(0, rows // 4, rows)
    lines = (f"c/{i}.wav,{s % 5 + 1},{s % 50},class {s % 50},{s}" for i, s in enumerate(sources.tolist()))
    (tmp_path / "esc50.csv").write_text("\n".join(["filename,fold,target,category,src_file", *lines]))
    started = time.process_time()
    audit = audit_table(read_table(tmp_path / "esc50.csv"))
    assert time.process_time() - started < seconds
    assert (audit.clips, audit.sources, audit.leaks) == (rows, len(set(sources.tolist())), {})
