"""Runs beside each other, on folders such as a run leaves."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.runs import ROOT, write_run
from omegaconf import OmegaConf

from soundfold.config import NOT_IDENTITY
from soundfold.errors import InputError
from soundfold.evaluation.compare import compare, load_run, seed_groups
from soundfold.evaluation.published import FIGURES, LeaderboardRow, published_rows
from soundfold.report.terminal import print_published


def answers(share: float, n: int = 120, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n) < share


def test_a_run_is_read_with_its_interval(tmp_path):
    right = answers(0.8)
    run = load_run(write_run(tmp_path / "run-a", right))
    assert run.correct.mean() == pytest.approx(right.mean())
    assert run.interval[0] < right.mean() < run.interval[1]
    assert len(set(run.sources)) == 60
    assert run.leaks() == "nothing"
    leaky = load_run(write_run(tmp_path / "run-leaky", right, leaky=True))
    assert leaky.leaks() == "9 of 120 were in training themselves; 3 of 120 have the very audio of a training clip"


def test_a_clear_difference_and_one_that_may_be_chance(tmp_path):
    low, high = answers(0.5), np.ones(120, dtype=bool)
    worse, better = load_run(write_run(tmp_path / "worse", low)), load_run(write_run(tmp_path / "better", high))
    for a, b in ((worse, better), (better, worse)):
        found = compare(a, b)
        assert abs(found.difference) == pytest.approx(1 - low.mean())
        assert found.p < 1e-6
        assert found.describe().startswith("better is better than worse by")
        assert "the data can tell" in found.describe()
    nearly = low.copy()
    nearly[np.flatnonzero(~low)[:2]] = True
    found = compare(worse, load_run(write_run(tmp_path / "nearly", nearly)))
    assert found.p == pytest.approx(0.5)
    assert "it may be chance" in found.describe()
    assert "equally accurate" in compare(worse, worse).describe()


def test_runs_on_different_clips_are_refused_by_name(tmp_path):
    a, b = write_run(tmp_path / "run-a", answers(0.8)), write_run(tmp_path / "run-b", answers(0.8, n=90))
    with pytest.raises(InputError, match="run-a and run-b were scored on different clips"):
        compare(load_run(a), load_run(b))


def test_scores_of_one_clip_in_several_repeats_are_no_independent_trials(tmp_path):
    folders = [write_run(tmp_path / name, answers(share, n=60), leaky=True) for name, share in (("a", 0.5), ("b", 0.9))]
    for folder in folders:
        for fold in (2, 3):
            path = folder / f"fold{fold}" / "predictions.csv"
            rows = path.read_text().splitlines()
            names = [f"{i}.wav" for i in range(len(rows) - 1)]
            rest = [row.partition(",")[2] for row in rows[1:]]
            path.write_text("\n".join([rows[0], *map(",".join, zip(names, rest, strict=True))]) + "\n")
    found = compare(*map(load_run, folders))
    assert found.p is None
    assert "McNemar" not in found.describe()
    assert "b is better than a" in found.describe()


def test_predictions_that_do_not_fit_their_result_are_refused(tmp_path):
    folder = write_run(tmp_path / "run-a", np.ones(120, dtype=bool))
    path = folder / "fold2" / "predictions.csv"
    path.write_text(path.read_text().replace(",a,a,1,0", ",a,a,0,1", 1))
    with pytest.raises(InputError, match=r"predictions\.csv does not give the accuracy"):
        load_run(folder)
    path.unlink()
    with pytest.raises(InputError, match=r"predictions\.csv cannot be read"):
        load_run(folder)


def test_seeds_are_grouped(tmp_path):
    runs = [load_run(write_run(tmp_path / f"run-{seed}", answers(0.8, seed=seed), seed=seed)) for seed in (1, 2, 3)]
    ((group, summary),) = seed_groups(runs)
    assert len(group) == summary.seeds == 3
    assert summary.accuracy == pytest.approx(np.mean([run.total.accuracy for run in runs]))
    other = write_run(tmp_path / "other", answers(0.8), seed=9)
    for fold in (1, 2, 3):
        path = other / f"fold{fold}" / "config.yaml"
        path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.2"))
    assert seed_groups([runs[0], load_run(other)]) == []


@pytest.mark.parametrize("key", [*NOT_IDENTITY, "label"])
def test_seeds_are_grouped_wherever_they_ran(tmp_path, key):
    here, there = (load_run(write_run(tmp_path / f"run-{seed}", answers(0.8), seed=seed)) for seed in (1, 2))
    config = OmegaConf.create(there.config)
    OmegaConf.update(config, key, "elsewhere", force_add=True)
    there = replace(there, config=OmegaConf.to_container(config))
    assert there.config != here.config
    assert [len(group) for group, _ in seed_groups([here, there])] == [2]
    OmegaConf.update(config, "data.seconds", 4.0, force_add=True)
    assert seed_groups([here, replace(there, config=OmegaConf.to_container(config))]) == []


def test_seeds_of_other_clips_are_not_grouped(tmp_path):
    a = load_run(write_run(tmp_path / "run-a", answers(0.8), seed=1))
    b = load_run(write_run(tmp_path / "run-b", answers(0.8, n=90), seed=2))
    assert seed_groups([a, b]) == []


def test_the_ladder_is_ordered_and_knows_its_sources():
    own = LeaderboardRow("mine", 90.0, "split=benchmark", "this run", own=True)
    leaderboard_rows = published_rows("esc50", [own])
    assert [r.accuracy for r in leaderboard_rows] == sorted((r.accuracy for r in leaderboard_rows), reverse=True)
    assert leaderboard_rows.index(own) == 2
    assert all(figure.source and figure.protocol for figure in FIGURES)
    assert published_rows("esc10")[0].accuracy == 96.65
    assert published_rows("urbansound8k", [own]) == []


def scored(collection: str, clips: int, classes: int, folds: int, name: str = "mine") -> SimpleNamespace:
    """A run of so many clips, as the ladder sees it."""
    total = SimpleNamespace(
        accuracy=0.9, protocol="benchmark", leaky=False, classes=["c"] * classes, folds=[{}] * folds
    )
    return SimpleNamespace(name=name, collection=collection, total=total, clips=[(1, "x.wav")] * clips)


@pytest.mark.parametrize(
    ("run", "ranked"),
    [
        (("esc50", 2000, 50, 5), True),
        (("esc10", 400, 10, 5), True),
        (("esc50", 400, 10, 5), False),
        (("esc50", 2000, 50, 4), False),
        (("esc50", 1999, 50, 5), False),
        (("esc10", 80, 2, 5), False),
        (("esc10", 2000, 50, 5), False),
        (("mine", 400, 10, 5), False),
    ],
)
def test_only_a_whole_collection_is_ranked(run, ranked, capsys):
    print_published([scored(*run)])
    assert ("mine" in capsys.readouterr().out) == ranked


def test_a_part_is_left_out_beside_a_whole(capsys):
    print_published([scored("esc10", 80, 2, 5, name="part"), scored("esc10", 400, 10, 5)])
    out = capsys.readouterr().out
    assert "mine" in out
    assert "part" not in out


def told(*words: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "report.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})


def test_the_script_lays_runs_side_by_side(tmp_path):
    a = write_run(tmp_path / "run-a", answers(0.5), seed=1)
    b = write_run(tmp_path / "run-b", np.ones(120, dtype=bool), seed=2)
    done = told(a, b)
    assert done.returncode == 0, done.stderr
    assert "run-b is better than run-a by" in done.stdout
    assert "2 seeds x 3 folds" in done.stdout
    leaky = write_run(tmp_path / "run-leaky", answers(0.9, n=90), leaky=True)
    done = told(a, b, leaky)
    assert done.returncode == 0, done.stderr
    assert "LEAKY" in done.stdout
    assert "run-a and run-leaky were scored on different clips" in " ".join(done.stdout.split())
    done = told(a, leaky)
    assert done.returncode == 2
    assert "different clips" in done.stderr
    done = told(a, a)
    assert done.returncode == 2
    assert "named twice" in done.stderr
    (b / "fold3" / "result.json").unlink()
    done = told(a, b)
    assert done.returncode == 2
    assert "Fold(s) 3 of run-b are not finished" in done.stderr
    assert "Traceback" not in done.stderr
