import numpy as np
import pytest

from soundfold.data.store import Waveforms
from soundfold.data.tables import ClipTable
from soundfold.eda import collection_audit, duplicate_search, shortcuts
from soundfold.eda.collection_audit import audit_sound
from soundfold.eda.duplicate_search import find_near_duplicates, groups_to_compare
from soundfold.io.console import Terminal

RATE = 8000
# clips 0 to 5; 6 is a copy of 1 in its class, 7 one of 2 in another class
TARGETS = np.array([0, 1, 2, 0, 1, 2, 1, 0])


@pytest.fixture
def waves() -> Waveforms:
    rng = np.random.default_rng(0)
    # noise in bursts, whose envelopes differ
    samples = (3000 * rng.standard_normal((8, RATE)) * np.repeat(rng.random((8, 20)), RATE // 20, axis=1)).astype("<i2")
    samples[6], samples[7] = samples[1] // 2, samples[2] // 2
    return Waveforms(samples, np.full(8, RATE), tuple("abcdefgh"), RATE, "")


def search(waves: Waveforms, rows: list[int]) -> tuple[list[tuple[int, int]], int | None]:
    pairs, compared = find_near_duplicates(waves, np.array(rows), TARGETS[rows], lambda text, items, total: items)
    return [(pair.first, pair.second) for pair in pairs], compared


def test_a_large_collection_is_compared_within_its_classes(waves, monkeypatch, capsys):
    assert search(waves, [*range(8)]) == ([(1, 6), (2, 7)], None)
    # indices are those of the rows
    assert search(waves, [1, 2, 6, 7]) == ([(0, 2), (1, 3)], None)
    monkeypatch.setattr(duplicate_search, "MAX_COMPARED", 5)
    pairs, compared = find_near_duplicates(waves, np.arange(8), TARGETS, lambda text, items, total: items)
    assert [(pair.first, pair.second) for pair in pairs] == [(1, 6)]
    names = tuple(f"{i}.wav" for i in range(8))
    table = ClipTable(names, np.arange(8) % 2 + 1, TARGETS, names, ("x", "y", "z"))
    console = Terminal(width=1000)
    for line in collection_audit._sound_lines(audit_sound(table, waves.hashes, pairs, [], compared)):
        console.print(line)
    assert "within each class only" in capsys.readouterr().out


def test_groups_are_classes_of_which_the_large_ones_are_sampled():
    targets = np.repeat([0, 1, 3], [50, 1, 8])
    assert [group.tolist() for group in groups_to_compare(targets, 59)] == [[*range(59)]]
    large, small = groups_to_compare(targets, 10)
    assert len(set(large)) == 10
    assert sorted(large) == large.tolist()
    assert large.max() < 50
    assert small.tolist() == [*range(51, 59)]


def test_shortcuts_of_a_large_collection_are_those_of_a_sample_of_its_sources(monkeypatch):
    monkeypatch.setattr(shortcuts, "MAX_CLIPS", 400)
    sources = tuple(f"{i // 4}" for i in range(2000))
    table = ClipTable(sources, np.ones(2000, int), np.zeros(2000, int), sources, ("x", "y"))
    clips = shortcuts._sample(table)
    assert 300 < len(clips) < 500
    assert set(np.unique(table.source_numbers[clips], return_counts=True)[1]) == {4}
    assert len(shortcuts._sample(table.rows(range(400)))) == 400
