from dataclasses import replace

import numpy as np
import pytest

from soundfold.data.copies import OfflineCopies, make_copies
from soundfold.data.leakage import SeenClips, audit, check_leakage, seen_clips
from soundfold.data.splits import Protocol, make_split
from soundfold.data.tables import ClipTable, read_table
from soundfold.errors import ArgumentError

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
def test_every_clip_is_tested_once_and_splits_are_disjoint(table, protocol):
    splits = [make_split(table, Protocol(protocol), k) for k in table.fold_numbers]
    assert sorted(np.concatenate([s.test for s in splits])) == list(range(12))
    for split in splits:
        assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(12))


def test_nested_validates_on_the_next_fold(table):
    assert set(table.folds[make_split(table, NESTED, 2).val]) == {3}
    assert set(table.folds[make_split(table, NESTED, 4).val]) == {1}


def test_without_a_fold_every_clip_trains(table):
    split = make_split(table, BENCHMARK, None)
    assert len(split.train) == 12
    assert len(split.val) == len(split.test) == 0


def test_unknown_fold(table):
    with pytest.raises(ArgumentError, match="`fold`=7"):
        make_split(table, BENCHMARK, 7)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "random"}, "`protocol`=random is unknown"),
        ({"name": "nested", "test": 0.1}, "`test` requires the protocol random_clips, not nested"),
        ({"name": "benchmark", "test_in_training": True}, "`test_in_training` requires"),
        ({"name": "random_clips"}, "`test`=None"),
        ({"name": "random_clips", "test": 0.1, "val": 1.0}, "`val`=1"),
        ({"name": "random_clips", "test": 0.1, "val": 0.1, "image_val": 0.0}, "`image_val`=0"),
    ],
)
def test_invalid_protocols_are_refused(values, message):
    with pytest.raises(ArgumentError, match=message):
        Protocol(**values)


def test_random_split_has_the_sizes_of_the_notebook(esc50_table):
    table = read_table(esc50_table)
    split = make_split(table, RANDOM, 1)
    assert [len(split.train), len(split.val), len(split.test)] == [1190, 510, 300]
    assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(2000))
    again, repeat, other = (make_split(table, RANDOM, fold, seed) for fold, seed in ((1, 0), (2, 0), (1, 1)))
    assert np.array_equal(split.test, again.test)
    assert not np.array_equal(split.test, repeat.test)
    assert not np.array_equal(split.test, other.test)
    counts = audit(table, split)
    assert counts.same_source_and_class > 100
    assert (counts.same_clip, counts.val_copies) == (0, 0)
    check_leakage(counts, RANDOM, 1)


def test_copies_stay_with_their_clips_unless_images_are_split(esc50_table):
    table = read_table(esc50_table)
    number = OfflineCopies(1, 5)
    clean = make_split(table, BENCHMARK, 2)
    copies = make_copies(number, clean, BENCHMARK, len(table), seed=0, fold=2)
    per_clip = np.bincount(copies.clips) - 1
    assert (per_clip.min(), per_clip.max()) == (1, 5)
    assert copies.augmented.tolist() == [False] * len(table) + [True] * per_clip.sum()
    assert set(copies.clips[copies.train]) == set(clean.train)
    assert len(copies.train) == len(clean.train) + per_clip[clean.train].sum()
    counts = audit(table, clean, copies=copies)
    assert (counts.images, counts.same_clip, counts.val_copies) == (len(copies.train), 0, 0)

    split = make_split(table, RANDOM, 1)
    copies = make_copies(number, split, RANDOM, len(table), seed=0, fold=1)
    assert audit(table, split, copies=copies).same_clip == 0

    leaky = replace(RANDOM, image_val=0.15, test_in_training=True)
    images = make_copies(number, split, leaky, len(table), seed=0, fold=1)
    # the notebook had 8,143
    assert len(images.train) + len(images.val) == len(images.clips)
    assert 7700 < len(images.clips) < 8300
    assert not set(images.train) & set(images.val)
    counts = audit(table, split, copies=images)
    assert counts.same_clip == 300
    assert counts.val_copies > 0.95 * len(images.val)

    images = make_copies(number, split, replace(RANDOM, image_val=0.15), len(table), seed=0, fold=1)
    assert audit(table, split, copies=images).same_clip == 0


def test_two_folds_are_too_few_for_nested(table):
    two = replace(table, folds=np.where(table.folds > 2, 2, 1))
    with pytest.raises(ArgumentError, match="at least 3"):
        make_split(two, NESTED, 1)


def test_official_folds_do_not_leak_but_share_four_sources(esc50_table):
    table = read_table(esc50_table)
    audits = [audit(table, make_split(table, BENCHMARK, k)) for k in table.fold_numbers]
    assert sum(counts.same_source_and_class for counts in audits) == 0
    # each in two folds, with different classes
    spanning = {"131943", "134049", "209698", "234879"}
    assert sum(counts.same_source for counts in audits) == sum(source in spanning for source in table.sources)


def test_a_leak_is_counted_and_refused(table):
    moved = replace(table, sources=("s20", *table.sources[1:]))
    counts = audit(moved, make_split(moved, BENCHMARK, 1), audio_hashes=["x"] * 2 + [str(i) for i in range(10)])
    assert counts.same_source_and_class == 1
    assert counts.same_audio == 0
    with pytest.raises(ArgumentError, match="fold 1: 1 of 3 test clips share source and class with a training"):
        check_leakage(counts, BENCHMARK, 1)


def test_clips_behind_the_initial_weights_are_counted_and_refused(table):
    hashes = [str(i) for i in range(12)]
    seen = seen_clips(table, make_split(table, BENCHMARK, 2), hashes)
    split = make_split(table, BENCHMARK, 1)
    by_audio = audit(table, split, hashes, seen=SeenClips(hashes=seen.hashes))
    by_source = audit(table, split, seen=SeenClips(sources=seen.sources))
    assert by_audio.seen_before == by_source.seen_before == 3
    with pytest.raises(ArgumentError, match="fold 1: 3 of 3 test clips, or clips of their sources.*`weights`=imagenet"):
        check_leakage(by_audio, BENCHMARK, 1)
    assert audit(table, make_split(table, BENCHMARK, 2), hashes, seen=seen).seen_before == 0


def test_duplicate_audio_across_folds_is_counted(table):
    hashes = [str(i) for i in range(12)]
    hashes[5] = hashes[0]
    assert audit(table, make_split(table, BENCHMARK, 1), hashes).same_audio == 1
