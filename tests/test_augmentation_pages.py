"""The pages of the augmentations: each has one, with its cost and a sound that is changed."""

import sys
from dataclasses import fields

import pytest
import soundfile
import yaml
from helpers.tiny import ROOT

from soundfold.config.augment_schema import Augment, Mixing

EXTENSIONS = ROOT / "docs" / "_ext"
# options of other augmentations, how several are combined, and the user's own
NO_PAGE = {"noise_std", "noise_colours", "one_of", "copies", "extra", "mixing", "mixing.alpha"}


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(EXTENSIONS), *sys.path])
    import augmentation_pages

    return augmentation_pages


def test_every_augmentation_has_a_page_and_a_cost():
    described = yaml.safe_load((EXTENSIONS / "augmentations.yaml").read_text())
    costs = yaml.safe_load((ROOT / "docs" / "results" / "augmentation_costs.yaml").read_text())["ms"]
    names = {field.name for field in fields(Augment)} | {f"mixing.{field.name}" for field in fields(Mixing)}
    assert set(described) == names - NO_PAGE
    assert set(costs) == set(described)


@pytest.mark.parametrize("name", ["low_pass", "gain_db", "mixing.mixup"])
def test_the_clip_after_an_augmentation_differs_from_the_one_before(pages, tmp_path, name):
    before, *after = pages.examples(name, tmp_path)
    assert before.label == "Before"
    assert all(example.label.startswith(("After", "The other clip")) for example in after)
    assert len({example.digest for example in (before, *after)}) == 1 + len(after) >= 2
    # only augmentations of the waveform have a sound that is not reconstructed
    assert (after[-1].wave is not None) == (name in pages.WAVEFORM)


@pytest.mark.slow
def test_a_page_has_pictures_sounds_and_every_key(pages, tmp_path):
    folder, sounds = tmp_path / "pages", tmp_path / "sounds"
    folder.mkdir()
    sounds.mkdir()
    comments = {"augment.time_stretch": "speed factor"}
    text = pages.page_text("time_stretch", folder, sounds, tmp_path, {"ms": {"time_stretch": 1.5}}, comments)
    for end in ("Before", "After: time stretch, 0.8 x speed", "After: time stretch, 1.25 x speed"):
        assert f"**{end}**" in text
    assert "| `augment.time_stretch` | speed factor |" in text
    assert "1.50 ms" in text
    assert len(list(folder.glob("*.png"))) == len(list(sounds.glob("*.ogg"))) == 3
    for sound in sounds.glob("*.ogg"):
        assert soundfile.info(sound).duration == pytest.approx(pages.SECONDS, abs=0.05)
        assert sound.stat().st_size < 60_000
