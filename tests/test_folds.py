from dataclasses import replace

import numpy as np
import pytest

from soundfold.data.folds import audit, make_split, refuse_leak
from soundfold.data.metadata import ClipTable, read_table
from soundfold.errors import InputError


@pytest.fixture
def table() -> ClipTable:
    """Twelve clips, four folds of three, two classes, one source per fold and class."""
    folds = np.repeat([1, 2, 3, 4], 3)
    targets = np.tile([0, 1, 1], 4)
    sources = tuple(f"s{k}{t}" for k, t in zip(folds, targets, strict=True))
    return ClipTable(tuple(f"{i}.wav" for i in range(12)), folds, targets, sources, ("a", "b"))


@pytest.mark.parametrize("protocol", ["benchmark", "nested"])
def test_every_clip_is_scored_once_and_parts_are_disjoint(table, protocol):
    splits = [make_split(table, protocol, k) for k in table.fold_numbers]
    assert sorted(np.concatenate([s.test for s in splits])) == list(range(12))
    for split in splits:
        assert sorted(np.concatenate([split.train, split.val, split.test])) == list(range(12))


def test_nested_validates_on_the_next_fold(table):
    assert set(table.folds[make_split(table, "nested", 2).val]) == {3}
    assert set(table.folds[make_split(table, "nested", 4).val]) == {1}


def test_no_fold_trains_on_all_and_scores_none(table):
    split = make_split(table, "benchmark", None)
    assert len(split.train) == 12
    assert len(split.val) == len(split.test) == 0


@pytest.mark.parametrize(
    ("protocol", "fold", "word"), [("benchmark", 7, "fold=7"), ("random", 1, "split.protocol=random")]
)
def test_unknown_fold_and_protocol(table, protocol, fold, word):
    with pytest.raises(InputError, match=word):
        make_split(table, protocol, fold)


def test_two_folds_are_too_few_for_nested(table):
    two = replace(table, folds=np.where(table.folds > 2, 2, 1))
    with pytest.raises(InputError, match="at least 3"):
        make_split(two, "nested", 1)


def test_official_folds_do_not_leak_but_share_four_sources(esc50_table):
    table = read_table(esc50_table)
    found = [audit(table, make_split(table, "benchmark", k)) for k in table.fold_numbers]
    assert sum(a.same_source_and_class for a in found) == 0
    # sources 131943, 134049, 209698 and 234879 span two folds each, with different classes
    spanning = {"131943", "134049", "209698", "234879"}
    assert sum(a.same_source for a in found) == sum(source in spanning for source in table.sources)


def test_a_leak_is_counted_and_refused(table):
    moved = replace(table, sources=("s20", *table.sources[1:]))
    found = audit(moved, make_split(moved, "benchmark", 1), audio_hashes=["x"] * 2 + [str(i) for i in range(10)])
    assert found.same_source_and_class == 1
    assert found.same_audio == 0
    with pytest.raises(InputError, match="1 of 3 test clips"):
        refuse_leak(found, "benchmark", 1)


def test_duplicate_audio_across_folds_is_counted(table):
    hashes = [str(i) for i in range(12)]
    hashes[5] = hashes[0]
    assert audit(table, make_split(table, "benchmark", 1), hashes).same_audio == 1
