from dataclasses import replace

import numpy as np
import pytest

from soundfold.data.splits import Protocol, audit, check_leakage, make_copies, make_split
from soundfold.data.tables import ClipTable, read_table
from soundfold.errors import InputError

BENCHMARK, NESTED = Protocol("benchmark"), Protocol("nested")
RANDOM = Protocol("random_clips", test=0.15, val=0.3)


@pytest.fixture
def table() -> ClipTable:
    """Twelve clips, four folds of three, two classes, one source per fold and class."""
    folds = np.repeat([1, 2, 3, 4], 3)
    targets = np.tile([0, 1, 1], 4)
    sources = tuple(f"s{k}{t}" for k, t in zip(folds, targets, strict=True))
    return ClipTable(tuple(f"{i}.wav" for i in range(12)), folds, targets, sources, ("a", "b"))


@pytest.mark.parametrize("protocol", ["benchmark", "nested"])
def test_every_clip_is_scored_once_and_parts_are_disjoint(table, protocol):
    splits = [make_split(table, Protocol(protocol), k) for k in table.fold_numbers]
    assert sorted(np.concatenate([s.test for s in splits])) == list(range(12))
    for split in splits:
        assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(12))


def test_nested_validates_on_the_next_fold(table):
    assert set(table.folds[make_split(table, NESTED, 2).val]) == {3}
    assert set(table.folds[make_split(table, NESTED, 4).val]) == {1}


def test_no_fold_trains_on_all_and_scores_none(table):
    split = make_split(table, BENCHMARK, None)
    assert len(split.train) == 12
    assert len(split.val) == len(split.test) == 0


def test_unknown_fold(table):
    with pytest.raises(InputError, match="fold=7"):
        make_split(table, BENCHMARK, 7)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"name": "random"}, r"split\.protocol=random is unknown"),
        ({"name": "nested", "test": 0.1}, r"split\.test belongs to split=random_clips"),
        ({"name": "benchmark", "test_in_training": True}, "test_in_training belongs"),
        ({"name": "random_clips"}, r"split\.test=None"),
        ({"name": "random_clips", "test": 0.1, "val": 1.0}, r"split\.val=1"),
        ({"name": "random_clips", "test": 0.1, "val": 0.1, "image_val": 0.0}, r"split\.image_val=0"),
    ],
)
def test_a_protocol_of_bad_values(values, word):
    with pytest.raises(InputError, match=word):
        Protocol(**values)


def test_a_random_split_is_the_notebooks(esc50_table):
    table = read_table(esc50_table)
    split = make_split(table, RANDOM, 1)
    assert [len(part) for part in (split.train, split.val, split.test)] == [1190, 510, 300]
    assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(2000))
    again, repeat, other = (make_split(table, RANDOM, fold, seed) for fold, seed in ((1, 0), (2, 0), (1, 1)))
    assert np.array_equal(split.test, again.test)
    assert not np.array_equal(split.test, repeat.test)
    assert not np.array_equal(split.test, other.test)
    found = audit(table, split)
    assert found.same_source_and_class > 100
    assert (found.same_clip, found.val_copies) == (0, 0)
    check_leakage(found, RANDOM, 1)


def test_copies_stay_with_their_clips_unless_images_are_split(esc50_table):
    table = read_table(esc50_table)
    honest = make_split(table, BENCHMARK, 2)
    copies = make_copies(honest, BENCHMARK, len(table), 1, 5, seed=0, fold=2)
    number = np.bincount(copies.clips) - 1
    assert (number.min(), number.max()) == (1, 5)
    assert set(copies.clips[copies.train]) == set(honest.train)
    assert len(copies.train) == len(honest.train) + number[honest.train].sum()
    found = audit(table, honest, copies=copies)
    assert (found.images, found.same_clip, found.val_copies) == (len(copies.train), 0, 0)

    split = make_split(table, RANDOM, 1)
    kept = make_copies(split, RANDOM, len(table), 1, 5, seed=0, fold=1)
    assert audit(table, split, copies=kept).same_clip == 0

    leaky = replace(RANDOM, image_val=0.15, test_in_training=True)
    images = make_copies(split, leaky, len(table), 1, 5, seed=0, fold=1)
    # about 8,000 images, of which the notebook had 8,143
    assert len(images.train) + len(images.val) == len(images.clips)
    assert 7700 < len(images.clips) < 8300
    assert not set(images.train) & set(images.val)
    found = audit(table, split, copies=images)
    assert found.same_clip == 300
    assert found.val_copies > 0.95 * len(images.val)

    clean = make_copies(split, replace(RANDOM, image_val=0.15), len(table), 1, 5, seed=0, fold=1)
    assert audit(table, split, copies=clean).same_clip == 0


def test_two_folds_are_too_few_for_nested(table):
    two = replace(table, folds=np.where(table.folds > 2, 2, 1))
    with pytest.raises(InputError, match="at least 3"):
        make_split(two, NESTED, 1)


def test_official_folds_do_not_leak_but_share_four_sources(esc50_table):
    table = read_table(esc50_table)
    found = [audit(table, make_split(table, BENCHMARK, k)) for k in table.fold_numbers]
    assert sum(a.same_source_and_class for a in found) == 0
    # sources 131943, 134049, 209698 and 234879 span two folds each, with different classes
    spanning = {"131943", "134049", "209698", "234879"}
    assert sum(a.same_source for a in found) == sum(source in spanning for source in table.sources)


def test_a_leak_is_counted_and_refused(table):
    moved = replace(table, sources=("s20", *table.sources[1:]))
    found = audit(moved, make_split(moved, BENCHMARK, 1), audio_hashes=["x"] * 2 + [str(i) for i in range(10)])
    assert found.same_source_and_class == 1
    assert found.same_audio == 0
    with pytest.raises(InputError, match="1 of 3 test clips"):
        check_leakage(found, BENCHMARK, 1)


def test_duplicate_audio_across_folds_is_counted(table):
    hashes = [str(i) for i in range(12)]
    hashes[5] = hashes[0]
    assert audit(table, make_split(table, BENCHMARK, 1), hashes).same_audio == 1
