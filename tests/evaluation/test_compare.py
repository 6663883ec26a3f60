"""Reading, comparing and ranking finished runs."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.runs import ROOT, rebind, write_run
from omegaconf import OmegaConf

from soundfold.config import NOT_IDENTITY
from soundfold.errors import InputError
from soundfold.evaluation.compare import (
    Comparison,
    compare,
    compare_pairs,
    describe_outcome,
    describe_seeds,
    ensemble,
    load_run,
    seed_groups,
)
from soundfold.evaluation.published import FIGURES, LeaderboardRow, published_leaderboard, published_rows
from soundfold.report.terminal import print_published


def random_correct(share: float, n: int = 120, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n) < share


def test_run_is_read_with_its_interval(tmp_path):
    correct = random_correct(0.8)
    run = load_run(write_run(tmp_path / "run-a", correct))
    assert run.correct.mean() == pytest.approx(correct.mean())
    assert run.interval[0] < correct.mean() < run.interval[1]
    assert len(set(run.sources)) == 60
    assert run.leaks() == "nothing"
    leaky = load_run(write_run(tmp_path / "run-leaky", correct, leaky=True))
    assert leaky.leaks() == "9 of 120 are also training clips; 3 of 120 have the same audio as a training clip"


def test_significant_and_insignificant_differences(tmp_path):
    low, high = random_correct(0.5), np.ones(120, dtype=bool)
    worse, better = load_run(write_run(tmp_path / "worse", low)), load_run(write_run(tmp_path / "better", high))
    for a, b in ((worse, better), (better, worse)):
        comparison = compare(a, b)
        assert abs(comparison.difference) == pytest.approx(1 - low.mean())
        assert comparison.p < 1e-6
        assert comparison.describe().startswith("better is better than worse by")
        assert "which is significant" in comparison.describe()
        # the better run minus the other, in either order
        points = f"{100 * (1 - low.mean()):.2f} points"
        ends = re.search(r"interval of the difference.*: \+([\d.]+) to \+([\d.]+) points", comparison.describe())
        assert points in comparison.describe()
        assert float(ends[1]) < 100 * (1 - low.mean()) < float(ends[2])
    nearly = low.copy()
    nearly[np.flatnonzero(~low)[:2]] = True
    comparison = compare(worse, load_run(write_run(tmp_path / "nearly", nearly)))
    assert comparison.p == pytest.approx(0.5)
    assert "the difference is not significant" in comparison.describe()
    assert "have equal accuracy" in compare(worse, worse).describe()


def test_several_pairs_are_corrected(tmp_path):
    base = random_correct(0.5)
    runs = [load_run(write_run(tmp_path / "base", base))]
    for name, gained in (("little", 6), ("more", 9)):
        correct = base.copy()
        correct[np.flatnonzero(~base)[:gained]] = True
        runs.append(load_run(write_run(tmp_path / name, correct)))
    other = load_run(write_run(tmp_path / "other", random_correct(0.5, n=90)))
    pair = compare(*runs[:2])
    assert pair.p == pair.adjusted_p == pytest.approx(2 / 2**6)
    assert "which is significant" in pair.describe()
    assert "Holm" not in pair.describe()
    outcomes = compare_pairs([*runs, other])
    assert [isinstance(outcome, InputError) for outcome in outcomes] == [False, False, True, False, True, True]
    tested = [outcome for outcome in outcomes if isinstance(outcome, Comparison)]
    # smallest p times 3, the next times 2, the largest once
    assert [outcome.p for outcome in tested] == pytest.approx([2 / 2**6, 2 / 2**9, 2 / 2**3])
    assert [outcome.adjusted_p for outcome in tested] == pytest.approx([2 * 2 / 2**6, 3 * 2 / 2**9, 2 / 2**3])
    assert "but the two tests disagree" in describe_outcome(tested[0])
    assert "p = 0.031, 0.062 after Holm's correction for 3 pairs" in describe_outcome(tested[0])
    assert "which is significant" in describe_outcome(tested[1])


def test_runs_on_different_clips_are_refused_by_name(tmp_path):
    a, b = write_run(tmp_path / "run-a", random_correct(0.8)), write_run(tmp_path / "run-b", random_correct(0.8, n=90))
    with pytest.raises(InputError, match="run-a and run-b were scored on different clips"):
        compare(load_run(a), load_run(b))


def test_mcnemar_is_skipped_if_a_clip_is_scored_several_times(tmp_path):
    folders = [
        write_run(tmp_path / name, random_correct(share, n=60), leaky=True) for name, share in (("a", 0.5), ("b", 0.9))
    ]
    for folder in folders:
        for fold in (2, 3):
            path = folder / f"fold{fold}" / "predictions.csv"
            rows = path.read_text().splitlines()
            names = [f"{i}.wav" for i in range(len(rows) - 1)]
            rest = [row.partition(",")[2] for row in rows[1:]]
            path.write_text("\n".join([rows[0], *map(",".join, zip(names, rest, strict=True))]) + "\n")
            rebind(path.parent)
    comparison = compare(*map(load_run, folders))
    assert comparison.p is None
    assert "McNemar" not in comparison.describe()
    assert "b is better than a" in comparison.describe()


def test_run_with_changed_predictions_is_refused(tmp_path):
    folder = write_run(tmp_path / "run-a", np.ones(120, dtype=bool))
    path = folder / "fold2" / "predictions.csv"
    path.write_text(path.read_text().replace(",a,a,1,0", ",a,a,0,1", 1))
    with pytest.raises(InputError, match=r"predictions\.csv cannot be read \(it is not the file"):
        load_run(folder)
    rebind(path.parent)
    with pytest.raises(InputError, match=r"predictions\.csv does not match the accuracy"):
        load_run(folder)
    path.unlink()
    with pytest.raises(InputError, match=r"predictions\.csv cannot be read"):
        load_run(folder)


def test_runs_that_differ_in_their_seed_are_grouped(tmp_path):
    runs = [
        load_run(write_run(tmp_path / f"run-{seed}", random_correct(0.8, seed=seed), seed=seed)) for seed in (1, 2, 3)
    ]
    ((group, summary),) = seed_groups(runs)
    assert len(group) == summary.seeds == 3
    assert summary.accuracy == pytest.approx(np.mean([run.total.accuracy for run in runs]))
    other = write_run(tmp_path / "other", random_correct(0.8), seed=9)
    for fold in (1, 2, 3):
        path = other / f"fold{fold}" / "config.yaml"
        path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.2"))
    assert seed_groups([runs[0], load_run(other)]) == []


@pytest.mark.parametrize("key", [*NOT_IDENTITY, "label"])
def test_grouping_ignores_names_and_machines(tmp_path, key):
    first, second = (load_run(write_run(tmp_path / f"run-{seed}", random_correct(0.8), seed=seed)) for seed in (1, 2))
    config, other = OmegaConf.create(second.config), OmegaConf.create(first.config)
    OmegaConf.update(config, key, "elsewhere", force_add=True)
    OmegaConf.update(other, key, "here", force_add=True)
    first, second = (replace(run, config=OmegaConf.to_container(c)) for run, c in ((first, other), (second, config)))
    assert second.config != first.config
    assert [len(group) for group, _ in seed_groups([first, second])] == [2]
    OmegaConf.update(config, "data.seconds", 4.0, force_add=True)
    assert seed_groups([first, replace(second, config=OmegaConf.to_container(config))]) == []


def test_ensemble_of_seeds_averages_probabilities(tmp_path):
    runs = [load_run(write_run(tmp_path / f"run-{seed}", random_correct(0.8), seed=seed)) for seed in (1, 2)]
    targets, rows = runs[0].targets, np.arange(len(runs[0].targets))
    sure, unsure = np.zeros_like(runs[0].logits), np.zeros_like(runs[0].logits)
    # the first model is sure of the true class, the second prefers the next one a little; both err on the last ten
    sure[rows, targets], unsure[rows, (targets + 1) % unsure.shape[1]] = 3, 0.5
    sure[-10:] *= -1
    runs = [replace(run, logits=logits) for run, logits in zip(runs, (sure, unsure), strict=True)]
    correct = ensemble(runs)
    assert correct[:-10].all()
    assert not correct[-10:].any()
    ((group, summary),) = seed_groups(runs)
    assert f"Ensemble of the seeds: {100 * (1 - 10 / len(rows)):.2f} %, 95 % interval" in describe_seeds(group, summary)


def test_runs_on_other_clips_are_not_grouped(tmp_path):
    a = load_run(write_run(tmp_path / "run-a", random_correct(0.8), seed=1))
    b = load_run(write_run(tmp_path / "run-b", random_correct(0.8, n=90), seed=2))
    assert seed_groups([a, b]) == []


def test_leaderboard_is_sorted_and_names_its_sources():
    row = LeaderboardRow("mine", 90.0, "split=benchmark", "this run", own=True)
    rows = published_rows("esc50", [row])
    assert [r.accuracy for r in rows] == sorted((r.accuracy for r in rows), reverse=True)
    assert rows.index(row) == 2
    assert all(figure.source and figure.protocol for figure in FIGURES)
    assert published_rows("esc10")[0].accuracy == 96.65
    assert published_rows("urbansound8k", [row]) == []


def run_of(
    collection: str, clips: int, classes: int, folds: int, name: str = "mine", leaky: bool = False
) -> SimpleNamespace:
    """The attributes of a run that the leaderboard reads."""
    total = SimpleNamespace(
        accuracy=0.9, protocol="benchmark", leaky=leaky, classes=["c"] * classes, folds=[{}] * folds
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
def test_only_runs_on_an_entire_collection_are_ranked(run, ranked, capsys):
    print_published([run_of(*run)])
    assert ("mine" in capsys.readouterr().out) == ranked


def test_leaky_runs_and_runs_of_several_collections_are_not_ranked(capsys):
    print_published([run_of("esc10", 400, 10, 5, name="leaks", leaky=True), run_of("esc10", 400, 10, 5)])
    out = capsys.readouterr().out
    assert "mine" in out
    assert "leaks" not in out
    assert published_leaderboard([run_of("esc10", 400, 10, 5, leaky=True)]) == []
    assert published_leaderboard([run_of("esc50", 2000, 50, 5), run_of("esc10", 400, 10, 5)]) == []


def keep_folds(folder: Path, *folds: int) -> None:
    for path in folder.glob("fold*/result.json"):
        if path.parent.name not in {f"fold{fold}" for fold in folds}:
            path.unlink()


def report(*folders: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "report.py"), *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})


@pytest.mark.slow
def test_report_script_compares_runs(tmp_path):
    a = write_run(tmp_path / "run-a", random_correct(0.5), seed=1)
    b = write_run(tmp_path / "run-b", np.ones(120, dtype=bool), seed=2)
    process = report(a, b)
    assert process.returncode == 0, process.stderr
    assert "run-b is better than run-a by" in process.stdout
    assert "2 seeds x 3 folds" in process.stdout
    leaky = write_run(tmp_path / "run-leaky", random_correct(0.9, n=90), leaky=True)
    process = report(a, b, leaky)
    assert process.returncode == 0, process.stderr
    assert "LEAKY" in process.stdout
    assert "run-a and run-leaky were scored on different clips" in " ".join(process.stdout.split())
    process = report(a, leaky)
    assert process.returncode == 2
    assert "different clips" in process.stderr
    process = report(a, a)
    assert process.returncode == 2
    assert "named twice" in process.stderr


def test_an_incomplete_run_is_compared_on_the_folds_that_both_finished(tmp_path):
    low, high = random_correct(0.5), np.ones(120, dtype=bool)
    baseline = load_run(write_run(tmp_path / "baseline", low))
    folders = [write_run(tmp_path / name, high, seed=seed) for seed, name in enumerate(("one", "two", "other"))]
    keep_folds(folders[0], 2)
    keep_folds(folders[1], 2)
    keep_folds(folders[2], 3)
    one, two, other = map(load_run, folders)
    assert one.total.part == "1 of 3 folds"
    comparison = compare(baseline, one)
    assert (comparison.clips, comparison.sources, comparison.folds) == (40, 20, (2,))
    assert comparison.difference == pytest.approx(1 - low[40:80].mean())
    assert compare(one, baseline).difference == -comparison.difference
    assert comparison.p < 1e-3
    assert "over 40 clips of fold 2: p" in comparison.describe()
    assert compare(one, two).folds == (2,)
    with pytest.raises(InputError, match="one and other were scored on different clips"):
        compare(one, other)
    ((group, summary),) = seed_groups([one, two, other])
    assert [run.name for run in group] == ["one", "two"]
    assert summary.fold_sd is None
    assert "2 seeds x 1 of 3 folds (one, two): 100.00 %" in describe_seeds(group, summary)
    assert "over folds" not in describe_seeds(group, summary)
