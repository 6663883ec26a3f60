"""Searches over settings, on the tiny collection of whole runs."""

import json
import multiprocessing
import re
import signal
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import optuna
import pytest
from helpers import formula_folds as judged_folds
from helpers.formula_folds import WORDS, judge, judged, search, tried
from helpers.killable import server
from helpers.tiny import overrides, render, train
from hydra import compose, initialize_config_dir
from optuna.trial import TrialState

from soundfold.config import CONF, Parameter, register
from soundfold.errors import InputError
from soundfold.evaluation.results import FoldResult
from soundfold.experiment import run as runs
from soundfold.experiment import search as searches
from soundfold.experiment.setup import RunContext
from soundfold.report.reporter import RunReporter
from soundfold.validation import validate


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("tiny") / "root")


def composed(*words: str, config_dir: Path | None = None):
    register()
    more = [] if config_dir is None else [f"hydra.searchpath=[{config_dir}]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*words, *more])


def folder_of(outputs: Path) -> Path:
    (folder,) = outputs.glob("tiny-search-*")
    return folder


def trials_of(outputs: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{folder_of(outputs) / 'study.db'}"
    return optuna.load_study(study_name=None, storage=storage).trials


@pytest.fixture(autouse=True)
def nothing_tried():
    tried.clear()


def in_a_process(*arguments, **options) -> multiprocessing.Process:
    """A search in a process that shares nothing with this one; a fork of this one would share its threads' locks."""
    process = server().Process(target=search, args=arguments, kwargs=options)
    process.start()
    return process


def test_a_study_goes_on_where_it_ended_and_can_be_extended(root, tmp_path):
    search(root, tmp_path, "search.trials=3")
    assert len(trials_of(tmp_path)) == 3
    best = search(root, tmp_path, "search.trials=6")
    trials, folds = trials_of(tmp_path), len(tried)
    assert len({tuple(trial.params.values()) for trial in trials}) == len(trials) == 6
    assert best == max(trial.value for trial in trials if trial.value is not None)
    assert search(root, tmp_path, "search.trials=6") == best
    assert (len(trials_of(tmp_path)), len(tried)) == (6, folds)


def test_a_study_killed_and_started_again_is_the_uninterrupted_one(root, tmp_path):
    search(root, tmp_path / "whole", "search.trials=8")
    process = in_a_process(root, tmp_path / "killed", "search.trials=8", kill_at=(4, 2))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [trial.state for trial in trials_of(tmp_path / "killed")].count(TrialState.RUNNING) == 1
    search(root, tmp_path / "killed", "search.trials=8")
    whole, killed = trials_of(tmp_path / "whole"), trials_of(tmp_path / "killed")
    assert len(killed) == 8
    assert [(t.params, t.value, t.state) for t in killed] == [(t.params, t.value, t.state) for t in whole]


def test_several_processes_share_a_study(root, tmp_path):
    words = ("search.trials=8", "search.prune_after=null")
    workers = [in_a_process(root, tmp_path, *words, f"search.worker={k}", pause=0.2) for k in range(3)]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    trials = trials_of(tmp_path)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 8
    assert len({tuple(trial.params.values()) for trial in trials}) == 8
    spans = sorted((trial.datetime_start, trial.datetime_complete) for trial in trials)
    assert any(later < end for (_, end), (later, _) in pairwise(spans))


NESTED = ("search.nested=true", "search.sampler=random", "search.prune_after=null")


def test_a_nested_search_scores_each_fold_by_what_was_chosen_without_it(root, tmp_path, capsys):
    """Each fold has a best rate of its own, and a score that tells which one it was scored with."""
    scored = []

    def judge_by_fold(run: RunContext, fold: int):
        lr, protocol = float(run.cfg.optim.lr), run.cfg.split.protocol
        known = dict.fromkeys(FoldResult.__dataclass_fields__)
        if protocol == "benchmark":
            scored.append((fold, lr))
        objective = -abs(lr - fold * 1e-3) if protocol == "nested" else lr
        return FoldResult(**{**known, "fold": fold, "folds": [1, 2, 3], "objective": objective})

    # a word about the protocol does not make the score another search's figure
    given = overrides(root, tmp_path, *WORDS, *NESTED, "search.trials=6", "split.protocol=nested")
    with judged(), mock.patch.object(runs, "run_fold", judge_by_fold):
        searches.search(composed(*given), given, RunReporter())
    tried = [trial.params["optim.lr"] for trial in trials_of(tmp_path)]
    nearest = [(fold, min(tried, key=lambda lr, fold=fold: abs(lr - fold * 1e-3))) for fold in (1, 2, 3)]
    assert len({lr for _, lr in nearest}) > 1
    assert [(fold, pytest.approx(lr)) for fold, lr in nearest] == scored
    found = json.loads((folder_of(tmp_path) / "nested.json").read_text())
    assert found["accuracy"] == pytest.approx(np.mean([lr for _, lr in nearest]))
    assert found["std"] == pytest.approx(np.std([lr for _, lr in nearest], ddof=1))
    assert [row["fold"] for row in found["folds"]] == [1, 2, 3]
    assert "chosen without it" in capsys.readouterr().out


def test_a_nested_search_of_trials_that_learn_from_all_folds_is_refused(root, tmp_path):
    for words in (NESTED[:1], NESTED[:2]):
        with pytest.raises(InputError, match=r"sampler=random and search\.prune_after=null"):
            validate(composed(*overrides(root, tmp_path, *WORDS, *words)))


def test_a_hopeless_trial_is_given_up_after_its_first_folds(root, tmp_path, capsys):
    search(root, tmp_path, "search.trials=10")
    pruned = [trial for trial in trials_of(tmp_path) if trial.state == TrialState.PRUNED]
    assert pruned
    assert {len(trial.intermediate_values) for trial in pruned} == {2}
    best = max(trial.value for trial in trials_of(tmp_path) if trial.state == TrialState.COMPLETE)
    assert all(trial.intermediate_values[2] < best for trial in pruned)
    assert f"Trial {pruned[0].number} is given up" in capsys.readouterr().err


def test_a_setting_that_cannot_be_trained_does_not_end_the_search(root, tmp_path, capsys):
    search(root, tmp_path, "search.trials=6", "label=faulty")
    states = {trial.params["optim.lr"] < 1e-3: trial.state for trial in trials_of(tmp_path)}
    assert states[True] == TrialState.FAIL
    assert TrialState.FAIL not in {t.state for t in trials_of(tmp_path) if t.params["optim.lr"] >= 1e-3}
    assert "failed: RuntimeError: cannot be trained" in capsys.readouterr().err
    with pytest.raises(InputError, match="No trial of .* has come to its end: RuntimeError: cannot be trained"):
        search(root, tmp_path / "all", "search.trials=2", "label=faulty", "seed=1")


def test_a_fault_of_the_machine_does_not_use_up_the_trials(root, tmp_path, capsys):
    with pytest.raises(InputError, match="has come to its end"):
        search(root, tmp_path, "search.trials=8", "label=faulty", "seed=1")
    assert [trial.state for trial in trials_of(tmp_path)] == [TrialState.FAIL] * searches.MOST_FAILURES
    assert "the same command goes on" in capsys.readouterr().err
    # what failed is mended: the study goes on with as many trials as were asked for
    with mock.patch.object(judged_folds, "judge", lambda run, fold: judge_mended(run, fold)):
        search(root, tmp_path, "search.trials=8", "label=faulty", "seed=1")
    states = [trial.state for trial in trials_of(tmp_path)]
    assert states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) == 8


def judge_mended(run, fold):
    run.cfg.label = None
    return judge(run, fold)


def test_an_error_with_brackets_is_told_and_does_not_end_the_search(root, tmp_path, capsys):
    def fail(run, fold):
        if run.cfg.optim.lr > 5e-3:
            raise RuntimeError("no room in [/data/x] of soundfold[search]")
        return judge(run, fold)

    with mock.patch.object(judged_folds, "judge", fail):
        search(root, tmp_path, "search.trials=3")
    assert "no room in [/data/x] of soundfold[search]" in " ".join(capsys.readouterr().err.split())
    assert len([t for t in trials_of(tmp_path) if t.state == TrialState.COMPLETE]) == 3


def test_the_command_that_scores_says_nothing_against_the_best_settings(root, tmp_path, capsys):
    search(root, tmp_path, "search.trials=2", "optim.lr=5e-3", "split=nested")
    command = capsys.readouterr().out.partition("Scored, by split=benchmark: ")[2].splitlines()[0].split()
    assert "split=benchmark" in command
    assert not [word for word in command if word.startswith("optim.lr=") or word == "split=nested"]
    assert f"data.root={root}" in command


def test_a_space_that_is_used_up_ends_the_search(root, tmp_path, capsys):
    given = overrides(root, tmp_path, *WORDS, "search.trials=5")
    cfg = composed(*given)
    cfg.search.space = {"optim.lr": Parameter(choices=[0.001, 0.01, 0.1])}
    with judged():
        searches.search(cfg, given, RunReporter())
    values = [trial.params["optim.lr"] for trial in trials_of(tmp_path) if trial.state == TrialState.COMPLETE]
    assert sorted(values) == [0.001, 0.01, 0.1]
    assert "no more settings" in capsys.readouterr().err


def test_the_best_settings_run_again_to_the_same_figure(root, tmp_path):
    done = train(*overrides(root, tmp_path, *WORDS, "search.trials=2"))
    assert done.returncode == 0, done.stderr
    assert "Scored, by split=benchmark" in done.stdout
    (command,) = re.findall(r"The same validation figure: python scripts/train.py (.*)", done.stdout)
    values = [trial.value for trial in trials_of(tmp_path)]
    cfg = composed(*command.split(), "rerun=true", f"paths.outputs={tmp_path / 'again'}")
    assert runs.cross_validate(cfg, RunReporter()) == pytest.approx(max(values), abs=1e-6)


def test_the_best_settings_are_an_overlay(root, tmp_path):
    words = ("search=augment", "trainer.max_epochs=1", "search.trials=3", "experiment=demo")
    given = overrides(root, tmp_path, *words)
    with judged():
        searches.search(composed(*given), given, RunReporter())
    best = max((t for t in trials_of(tmp_path) if t.value is not None), key=lambda trial: trial.value)
    folder = folder_of(tmp_path)
    cfg = composed("experiment=augment_best", config_dir=folder)
    assert cfg.optim.lr == best.params["optim.lr"]
    assert cfg.model.label_smoothing == best.params["model.label_smoothing"]
    expected = composed(f"augment={best.params['augment']}", "experiment=demo")
    assert cfg.augment == expected.augment
    # what the search stood on is in it too, and its protocol is not
    assert (cfg.data.batch_size, cfg.split.protocol) == (expected.data.batch_size, "benchmark")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("selection.monitor=test/accuracy",), "never on the fold"),
        (("split=benchmark",), "never on the folds that are scored"),
        (("fold=2",), "leave fold at all"),
        (("search.trials=0",), r"search\.trials=0"),
        (("search.sampler=grid",), r"search\.sampler=grid"),
    ],
)
def test_bad_searches_are_refused_by_name(words, told):
    with pytest.raises(InputError, match=told):
        validate(composed("search=lr_wd", *words))


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"fold": {"choices": [1, 2]}}, "names fold"),
        ({"seed": {"choices": [1, 2]}}, "names seed"),
        ({"split.test": {"low": 0.1, "high": 0.2}}, r"names split\.test"),
        ({"data.classes": {"choices": [1, 2]}}, r"names data\.classes"),
        ({"paths.cache": {"choices": ["a", "b"]}}, r"names paths\.cache"),
        ({"optim.lrr": {"low": 1, "high": 2}}, r"Did you mean optim\.lr"),
        ({"optim.lr": {"low": 2, "high": 1}}, "must be below"),
        ({"optim.lr": {"low": 0, "high": 1, "log": True}}, "requires low above 0"),
        ({"optim.lr": {"choices": [1]}}, "nothing to choose"),
        ({"optim.lr": {"low": 1}}, "either low and high, or choices"),
        ({}, "empty"),
    ],
)
def test_bad_spaces_are_refused_by_name(space, told):
    cfg = composed("search=lr_wd")
    cfg.search.space = {key: Parameter(**values) for key, values in space.items()}
    with pytest.raises(InputError, match=told):
        validate(cfg)
