"""Exploratory analysis of a collection with every fault; the page is checked in a browser if one is installed."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.browsing import faultless, inspect
from hydra import compose, initialize_config_dir
from matplotlib.transforms import Bbox

from soundfold.config import CONF, register
from soundfold.eda.augmentation_gallery import augmentation_gallery
from soundfold.eda.explore import explore
from soundfold.errors import InputError
from soundfold.features.augment import Augmentation
from soundfold.features.augment_params import MaskSpec, Uniform
from soundfold.features.logmel import LogMel
from soundfold.features.pipeline import FrontEnd
from soundfold.report.drawing import new_figure
from soundfold.report.point_labels import label_points

ROOT = Path(__file__).resolve().parents[2]
RATE = 44100
FAULTY = {
    "unreadable": "text.ogg",
    "empty": "no_bytes.ogg",
    "silent": "silent.wav",
    "clipped": "clipped.wav",
    "truncated": "truncated.wav",
}


def config(*overrides: str):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("explore", ["data.download=null", "device=cpu", *overrides])


def write_table(root: Path, rows: list[tuple]) -> None:
    (root / "meta").mkdir()
    with (root / "meta" / "esc50.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["filename", "fold", "target", "category", "esc10", "src_file"])
        writer.writerows((name, fold, target, category, True, name) for name, fold, target, category in rows)


@pytest.fixture(scope="module")
def faulty(esc10, tmp_path_factory) -> Path:
    """Eight real clips of two classes, an attenuated copy of one, an exact copy of another, and a file per fault."""
    root = tmp_path_factory.mktemp("faulty")
    (root / "audio").mkdir()
    rows = []
    for target, category, ending in ((0, "dog", "-0.ogg"), (1, "crying_baby", "-20.ogg")):
        clips = [path for path in sorted((esc10 / "audio").iterdir()) if path.name.endswith(ending)]
        for number, path in enumerate(clips[:4]):
            shutil.copy(path, root / "audio" / path.name)
            rows.append((path.name, number % 2 + 1, target, category))
    first, _ = soundfile.read(root / "audio" / rows[0][0], dtype="int16")
    shutil.copy(root / "audio" / rows[4][0], root / "audio" / "again.ogg")
    loud = (first / 32768 * 30).clip(-1, 1)
    waves = {
        "softer.wav": first // 2,
        "silent.wav": np.zeros(5 * RATE, np.int16),
        "clipped.wav": np.roll(loud, RATE)[::-1],  # no near duplicate of the first
        "truncated.wav": np.random.default_rng(0).integers(-900, 900, 2 * RATE, dtype=np.int16),
    }
    for name, wave in waves.items():
        soundfile.write(root / "audio" / name, wave, RATE)
    (root / "audio" / "no_bytes.ogg").write_bytes(b"")
    (root / "audio" / "text.ogg").write_text("not audio")
    rows += [(name, 1, 0, "dog") for name in ("again.ogg", *waves, "no_bytes.ogg", "text.ogg")]
    write_table(root, rows)
    return root


@pytest.fixture(scope="module")
def page(faulty, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    overrides = [
        f"data.root={faulty}",
        f"paths.cache={folder / 'cache'}",
        f"paths.outputs={folder}",
        "data.name=faulty",
    ]
    return explore(config(*overrides, "examples=2"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_fault_is_listed(page, faulty):
    """Each fault is listed for exactly its file, in clips.csv and on the page."""
    clips = rows_of(page.parent / "clips.csv")
    assert [row["file"] for row in clips] == [row["filename"] for row in rows_of(faulty / "meta" / "esc50.csv")]
    for fault, name in FAULTY.items():
        assert [row["file"] for row in clips if fault in row["faults"].split("; ")] == [name], fault
    assert {row["reason"] != "" for row in clips if row["sample_rate_hz"] == ""} == {True}
    doubled = {frozenset((row["first"], row["second"])) for row in rows_of(page.parent / "duplicates.csv")}
    names = [row["file"] for row in clips]
    assert doubled == {frozenset((names[0], "softer.wav")), frozenset((names[4], "again.ogg"))}
    text = page.read_text()
    section = text[text.index('<section id="integrity">') : text.index('<section id="silence">')]
    for name in (*FAULTY.values(), "softer.wav", "again.ogg"):
        assert name in section, name


def test_numbers_of_the_classes(page):
    dog, baby = rows_of(page.parent / "classes.csv")
    assert (dog["class"], dog["clips"], dog["fold_1"], dog["fold_2"], dog["usable"]) == ("dog", "11", "9", "2", "9")
    assert (baby["clips"], baby["usable"], baby["energy_third"]) == ("4", "4", "high")
    assert 0.0 < float(dog["silence"]) < 1.0


def test_shortcuts_of_the_classes(page):
    rows = rows_of(page.parent / "shortcuts.csv")
    assert {row["class"] for row in rows} == {"dog", "crying_baby"}
    assert all(0 <= float(row["all_cues_recall_percent"]) <= 100 for row in rows)
    silent = next(row for row in rows_of(page.parent / "cues.csv") if row["file"] == "silent.wav")
    assert (silent["leading_silence_s"], silent["trailing_silence_s"]) == ("5", "0")
    text = page.read_text()
    section = text[text.index('<section id="shortcuts">') : text.index('<section id="descriptors">')]
    assert "permutations of the labels" in section
    assert "trailing_silence_s" in section


def test_every_figure_is_saved_in_three_formats(page):
    names = {path.stem for path in (page.parent / "figures").iterdir()}
    assert {"clips", "durations", "silence", "shortcuts", "descriptors", "plane", "map", "augmentations"} < names
    assert len([name for name in names if name.startswith("clip-")]) >= 4
    for name in names:
        assert (page.parent / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert (page.parent / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (page.parent / "figures" / f"{name}.svg").read_text()


@pytest.mark.slow
def test_the_page_in_a_browser(page, browser):
    for context in ({"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}, {}):
        seen = inspect(browser, page, **context)
        assert faultless(seen)
        assert len(seen["durations"]) == 4 + 4 + 8  # examples, two pairs of duplicates, augmentations
        assert min(seen["durations"]) > 1.9
    tab = seen["tab"]
    marks = "[...document.querySelectorAll('#map g[id*=\"-class-\"]')].map(g => getComputedStyle(g).opacity)"
    assert tab.evaluate(marks) == ["1", "1"]
    tab.select_option("#only", label="crying baby")
    assert tab.evaluate(marks) == ["0.07", "1"]


@pytest.mark.slow
def test_without_sound_or_examples(faulty, page, tmp_path):
    cache = page.parent.parent / "cache"
    overrides = [
        f"data.root={faulty}",
        f"paths.cache={cache}",
        f"paths.outputs={tmp_path}",
        "audio=false",
        "examples=0",
    ]
    quiet = explore(config(*overrides, "augment=none")).read_text()
    assert "<audio" not in quiet
    assert 'id="examples"' not in quiet
    assert 'id="augmentations"' not in quiet


def test_nothing_to_explore(tmp_path):
    (tmp_path / "audio").mkdir()
    write_table(tmp_path, [("a.wav", 1, 0, "dog"), ("b.wav", 2, 1, "cat")])
    overrides = [f"data.root={tmp_path}", f"paths.cache={tmp_path}", f"paths.outputs={tmp_path}"]
    with pytest.raises(InputError, match=r"None of the 2 audio files .* a.wav: there is no such file"):
        explore(config(*overrides))
    soundfile.write(tmp_path / "audio" / "a.wav", np.zeros(RATE), RATE)
    # silence after the channels are averaged
    soundfile.write(tmp_path / "audio" / "b.wav", np.outer(np.sin(np.arange(RATE)), [0.5, -0.5]), RATE)
    with pytest.raises(InputError, match="digital silence"):
        explore(config(*overrides))
    soundfile.write(tmp_path / "audio" / "a.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE)
    with pytest.raises(InputError, match=r"clip=aa.wav .* Did you mean a.wav"):
        explore(config(*overrides, "clip=aa.wav"))


def test_the_script_refuses_a_bad_value_at_once():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "explore.py", "examples=-1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: examples=-1 must be at least 0."


def test_the_gallery_shows_the_augmentations_of_training():
    logmel = LogMel(8000, n_fft=512, hop_length=100, n_mels=32, f_min=0.0, f_max=4000.0)
    wave = (3000 * torch.randn(8000, generator=torch.Generator().manual_seed(0))).short()
    front_end = FrontEnd(logmel, None, Augmentation(8000, pitch_shift=Uniform(0, 2), time_masks=MaskSpec(2, 0.2)))
    front_end.mean.fill_(-30.0)
    front_end.std.fill_(10.0)
    items = augmentation_gallery(front_end, wave)
    assert [item.name for item in items[:-2]] == ["unmodified clip", "pitch shift, +2 semitones", "time masks"]
    plain = wave[None].float() / 32768
    torch.testing.assert_close(items[0].log_mel, logmel(plain)[0, 0], atol=1e-3, rtol=0)
    torch.testing.assert_close(
        items[1].log_mel, logmel(plain, pitch_shift=torch.tensor([2.0]))[0, 0], atol=1e-3, rtol=0
    )
    masked = (items[2].log_mel == -30.0).all(dim=0)
    assert float(masked.float().mean()) == pytest.approx(0.4, abs=0.03)
    assert not torch.equal(items[-1].log_mel, items[-2].log_mel)
    assert augmentation_gallery(FrontEnd(logmel, None, Augmentation(8000, polarity=0.5)), wave) == []


def test_labels_do_not_overlap():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 1, (2, 25))
    figure = new_figure(8, 6)
    axes = figure.subplots()
    axes.set(xlim=(-0.1, 1.1), ylim=(-0.1, 1.1))
    label_points(axes, x, y, [f"class {i}" for i in range(25)])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    overlaps = [Bbox.intersection(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    overlap_area = sum(box.width * box.height for box in overlaps if box is not None)
    assert overlap_area < 0.02 * sum(box.width * box.height for box in boxes)
