"""Hyperparameter searches on the tiny collection."""

import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sqlite3
import sys
import time
import warnings
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import optuna
import pytest
from helpers import formula_folds
from helpers.formula_folds import OVERRIDES, formula_result, patched_folds, search, tried
from helpers.killable import server
from helpers.tiny import overrides, render, train
from helpers.wandb_log import wandb_records
from hydra import compose, initialize_config_dir
from optuna.trial import TrialState

from soundfold.config import CONF, Parameter, register
from soundfold.errors import InputError
from soundfold.evaluation.results import FoldResult
from soundfold.experiment import run as runs
from soundfold.experiment import search as searches
from soundfold.experiment import study_storage
from soundfold.experiment.search_summary import summarize_search
from soundfold.experiment.setup import RunContext
from soundfold.experiment.study import WITHDRAWN, SearchStudy
from soundfold.report.reporter import RunReporter
from soundfold.validation import validate


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("tiny") / "root")


def compose_train(*overrides: str, config_dir: Path | None = None):
    register()
    search_path = [] if config_dir is None else [f"hydra.searchpath=[{config_dir}]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*overrides, *search_path])


def folder_of(outputs: Path) -> Path:
    (folder,) = outputs.glob("tiny-search-*")
    return folder


def trials_of(outputs: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{folder_of(outputs) / 'study.db'}"
    return optuna.load_study(study_name=None, storage=storage).trials


@pytest.fixture(autouse=True)
def clear_tried():
    tried.clear()


def start_search(*args, **kwargs) -> multiprocessing.Process:
    """Start a search in a fork of the fork server: a fork of this process would inherit its threads' locks."""
    process = server().Process(target=search, args=args, kwargs=kwargs)
    process.start()
    return process


@pytest.mark.slow
def test_the_same_command_continues_a_study_and_more_trials_extend_it(root, tmp_path):
    search(root, tmp_path, "search.trials=3")
    assert len(trials_of(tmp_path)) == 3
    best = search(root, tmp_path, "search.trials=6")
    trials, folds = trials_of(tmp_path), len(tried)
    assert len({tuple(trial.params.values()) for trial in trials}) == len(trials) == 6
    assert best == max(trial.value for trial in trials if trial.value is not None)
    assert search(root, tmp_path, "search.trials=6") == best
    assert (len(trials_of(tmp_path)), len(tried)) == (6, folds)


@pytest.mark.slow
def test_a_killed_and_restarted_study_has_the_trials_of_an_uninterrupted_one(root, tmp_path, monkeypatch):
    monkeypatch.setattr(study_storage, "GRACE_PERIOD", 1)
    search(root, tmp_path / "uninterrupted", "search.trials=8")
    process = start_search(root, tmp_path / "killed", "search.trials=8", kill_at=(4, 2))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [trial.state for trial in trials_of(tmp_path / "killed")].count(TrialState.RUNNING) == 1
    # a killed process has no more heartbeats
    time.sleep(2.5)
    search(root, tmp_path / "killed", "search.trials=8")
    expected, killed = trials_of(tmp_path / "uninterrupted"), trials_of(tmp_path / "killed")
    # Optuna retries a trial as a new one
    assert killed.pop(3).state == TrialState.FAIL
    assert len(killed) == 8
    assert [(t.params, t.value, t.state) for t in killed] == [(t.params, t.value, t.state) for t in expected]


@pytest.mark.slow
def test_several_processes_share_a_study(root, tmp_path):
    args = ("search.trials=8", "search.prune_after=null")
    workers = [start_search(root, tmp_path, *args, f"search.worker={k}", pause=0.2) for k in range(3)]
    for worker in workers:
        worker.join(300)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    # one that found, after its start, that the others suffice
    trials = [trial for trial in trials_of(tmp_path) if WITHDRAWN not in trial.user_attrs]
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 8
    assert len({tuple(trial.params.values()) for trial in trials}) == 8
    spans = sorted((trial.datetime_start, trial.datetime_complete) for trial in trials)
    assert any(next_start < end for (_, end), (next_start, _) in pairwise(spans))


def run_sql(*statements: str):
    def run(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return run


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def lock(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


DAMAGES = {
    "garbage": lambda path: path.write_bytes(b"garbage" * 1000),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(path.read_bytes()[:8192] + bytes(40_000) + path.read_bytes()[48_192:]),
    "folder": replace_by_folder,
    "newer Optuna": run_sql("UPDATE alembic_version SET version_num = 'v99.0.0.a'"),
    "distribution": run_sql("UPDATE trial_params SET distribution_json = '[]'"),
    "state": run_sql("UPDATE trials SET state = 'NONSENSE'"),
    "direction": run_sql("UPDATE study_directions SET direction = 'MINIMIZE'"),
    "locked": lock,
}


@pytest.fixture(scope="module")
def finished_study(root, tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("study")
    search(root, outputs, "search.trials=2")
    return folder_of(outputs)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_study_that_cannot_be_used_is_explained(damage, root, finished_study, tmp_path, monkeypatch):
    monkeypatch.setattr(study_storage, "SQLITE_TIMEOUT", 0.1)
    folder = shutil.copytree(finished_study, tmp_path / "study")
    cfg = compose_train(*overrides(root, tmp_path, *OVERRIDES))
    assert len(SearchStudy(folder, cfg).trials()) == 2
    shutil.rmtree(folder)
    shutil.copytree(finished_study, folder)
    connection = DAMAGES[damage](folder / "study.db")
    remedy = {"locked": "wait for its end", "newer Optuna": "Update Optuna"}.get(damage, "Move it away")
    with pytest.raises(InputError, match=rf"study\.db cannot be used \(.+\)\. .*{remedy}") as error:
        SearchStudy(folder, cfg)
    assert "\n" not in str(error.value)
    if damage == "locked":
        connection.close()


def test_a_study_that_is_damaged_during_a_search_is_explained(root, tmp_path, monkeypatch):
    def damage(*_args):
        (folder_of(tmp_path) / "study.db").write_bytes(b"garbage" * 30_000)
        raise RuntimeError("cannot be trained")

    monkeypatch.setattr(formula_folds, "formula_result", damage)
    with pytest.raises(InputError, match=r"study\.db cannot be used \(.*(malformed|not a database)"):
        search(root, tmp_path, "search.trials=2")


NESTED = ("search.nested=true", "search.sampler=random", "search.prune_after=null")


@pytest.mark.slow
def test_a_nested_search_scores_each_fold_with_settings_chosen_without_it(root, tmp_path, capsys):
    """Each fold has a different best learning rate, and its score is the rate that it was scored with."""
    scored = []

    def fold_result(run: RunContext, fold: int):
        lr, protocol = float(run.cfg.optim.lr), run.cfg.split.protocol
        fields = dict.fromkeys(FoldResult.__dataclass_fields__) | {"epochs": 1, "steps": 1, "seconds": 0.0}
        if protocol == "benchmark":
            scored.append((fold, lr))
        objective = -abs(lr - fold * 1e-3) if protocol == "nested" else lr
        return FoldResult(**{**fields, "fold": fold, "folds": [1, 2, 3], "objective": objective})

    # an override of the protocol must not reach the folds' final scores
    args = overrides(root, tmp_path, *OVERRIDES, *NESTED, "search.trials=6", "split.protocol=nested")
    with patched_folds(), mock.patch.object(runs, "run_fold", fold_result):
        searches.search(compose_train(*args), args, RunReporter())
    rates = [trial.params["optim.lr"] for trial in trials_of(tmp_path)]
    nearest = [(fold, min(rates, key=lambda lr, fold=fold: abs(lr - fold * 1e-3))) for fold in (1, 2, 3)]
    assert len({lr for _, lr in nearest}) > 1
    assert [(fold, pytest.approx(lr)) for fold, lr in nearest] == scored
    summary = json.loads((folder_of(tmp_path) / "nested.json").read_text())
    assert summary["accuracy"] == pytest.approx(np.mean([lr for _, lr in nearest]))
    assert summary["std"] == pytest.approx(np.std([lr for _, lr in nearest], ddof=1))
    assert [row["fold"] for row in summary["folds"]] == [1, 2, 3]
    assert "chosen without it" in capsys.readouterr().out


def test_a_nested_search_whose_sampler_uses_all_folds_is_refused(root, tmp_path):
    for nested in (NESTED[:1], NESTED[:2]):
        with pytest.raises(InputError, match=r"sampler=random and search\.prune_after=null"):
            validate(compose_train(*overrides(root, tmp_path, *OVERRIDES, *nested)))


@pytest.mark.slow
def test_a_poor_trial_is_pruned_after_its_first_folds(root, tmp_path, capsys):
    search(root, tmp_path, "search.trials=10")
    pruned = [trial for trial in trials_of(tmp_path) if trial.state == TrialState.PRUNED]
    assert pruned
    assert {len(trial.intermediate_values) for trial in pruned} == {2}
    best = max(trial.value for trial in trials_of(tmp_path) if trial.state == TrialState.COMPLETE)
    assert all(trial.intermediate_values[2] < best for trial in pruned)
    assert re.search(rf"Trial {pruned[0].number} \(optim\.lr=.*\) is pruned: val/loss -?0\.", capsys.readouterr().err)


@pytest.mark.slow
def test_settings_that_cannot_be_trained_do_not_end_the_search(root, tmp_path, capsys):
    search(root, tmp_path, "search.trials=6", "label=faulty")
    states = {trial.params["optim.lr"] < 1e-3: trial.state for trial in trials_of(tmp_path)}
    assert states[True] == TrialState.FAIL
    assert TrialState.FAIL not in {t.state for t in trials_of(tmp_path) if t.params["optim.lr"] >= 1e-3}
    assert "failed: RuntimeError: cannot be trained" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"No trial of .* is complete: RuntimeError: cannot be trained"):
        search(root, tmp_path / "all", "search.trials=2", "label=faulty", "seed=1")


@pytest.mark.slow
def test_a_machine_fault_does_not_use_up_the_trials(root, tmp_path, capsys):
    with pytest.raises(InputError, match="is complete"):
        search(root, tmp_path, "search.trials=8", "label=faulty", "seed=1")
    assert [trial.state for trial in trials_of(tmp_path)] == [TrialState.FAIL] * searches.MAX_CONSECUTIVE_FAILURES
    assert "the same command continues the study" in capsys.readouterr().err
    # once the fault is fixed, failed trials do not count toward search.trials
    with mock.patch.object(formula_folds, "formula_result", result_without_fault):
        search(root, tmp_path, "search.trials=8", "label=faulty", "seed=1")
    states = [trial.state for trial in trials_of(tmp_path)]
    assert states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED) == 8


def result_without_fault(run, fold):
    run.cfg.label = None
    return formula_result(run, fold)


def test_an_error_message_with_brackets_is_printed_as_it_is(root, tmp_path, capsys):
    def fail(run, fold):
        if run.cfg.optim.lr > 5e-3:
            raise RuntimeError("no room in [/data/x] of soundfold[search]")
        return formula_result(run, fold)

    with mock.patch.object(formula_folds, "formula_result", fail):
        search(root, tmp_path, "search.trials=3")
    assert "no room in [/data/x] of soundfold[search]" in " ".join(capsys.readouterr().err.split())
    assert len([t for t in trials_of(tmp_path) if t.state == TrialState.COMPLETE]) == 3


def test_the_scoring_command_does_not_override_the_best_settings(root, tmp_path, capsys):
    search(root, tmp_path, "search.trials=2", "optim.lr=5e-3", "split=nested")
    command = capsys.readouterr().out.partition("Score by split=benchmark: ")[2].splitlines()[0].split()
    assert "split=benchmark" in command
    assert not [arg for arg in command if arg.startswith("optim.lr=") or arg == "split=nested"]
    assert f"data.root={root}" in command


def test_an_exhausted_space_ends_the_search(root, tmp_path, capsys):
    args = overrides(root, tmp_path, *OVERRIDES, "search.trials=5")
    cfg = compose_train(*args)
    cfg.search.space = {"optim.lr": Parameter(choices=[0.001, 0.01, 0.1])}
    with patched_folds():
        searches.search(cfg, args, RunReporter())
    values = [trial.params["optim.lr"] for trial in trials_of(tmp_path) if trial.state == TrialState.COMPLETE]
    assert sorted(values) == [0.001, 0.01, 0.1]
    assert "Every setting in the search space has been tried." in capsys.readouterr().err


@pytest.mark.slow
def test_the_best_settings_reproduce_the_validation_score(root, tmp_path):
    process = train(*overrides(root, tmp_path, *OVERRIDES, "search.trials=2"))
    assert process.returncode == 0, process.stderr
    trials = trials_of(tmp_path)
    values = [trial.value for trial in trials]
    # a line per trial, with the value of the monitor instead of the objective, and no test figure
    lines = re.findall(r"^Trial \d \((.*)\): val/loss (\S+), 3 folds, \d+ s\.$", process.stderr, re.M)
    assert [float(value) for _, value in lines] == pytest.approx([-value for value in values], rel=1e-3)
    assert not re.search("accuracy|Published|mean ± sd|Report:|Outputs:", process.stdout + process.stderr)
    assert len(process.stderr.splitlines()) < 8
    # no weights, no scores, and nothing in the list of runs
    assert [path.name for path in tmp_path.glob("tiny-*")] == [folder_of(tmp_path).name]
    folds = list(folder_of(tmp_path).glob("trials/tiny-*/fold*"))
    assert len(folds) == 6
    assert not [path for path in folds if list(path.glob("checkpoints/*")) or (path / "predictions.csv").exists()]
    results = [FoldResult.load(path / "result.json") for path in folds]
    assert {(r.n, r.accuracy, len(r.metrics), r.loss, r.predictions) for r in results} == {(0, None, 0, None, None)}
    table = process.stdout
    assert "lr_wd: val/loss on validation folds, 2 complete trials, best first" in " ".join(table.split())
    best = sorted(-value for value in values)
    assert [float(row.split("│")[4]) for row in table.splitlines() if row.startswith("│")] == pytest.approx(
        best, rel=1e-3
    )
    # names and commands are complete in a pipe, and numbers have four digits
    assert "optim.weight_decay" in table
    assert "…" not in table
    assert not re.search(r"0\.\d{9}", table)
    assert "Score by split=benchmark: soundfold train" in table
    (command,) = re.findall(r"Reproduce the validation score: soundfold train --config-dir (.*)", table)
    folder, *words = command.split()
    again = [*words, "rerun=true", f"paths.outputs={tmp_path / 'again'}"]
    cfg = compose_train(*again, config_dir=Path(folder))
    assert runs.cross_validate(cfg, RunReporter()) == pytest.approx(max(values), abs=1e-6)


def test_a_trial_that_only_began_is_not_counted(root, tmp_path, capsys):
    search(root, tmp_path, "search.trials=2")
    capsys.readouterr()
    study = SearchStudy(folder_of(tmp_path), compose_train(*overrides(root, tmp_path, *OVERRIDES)))
    with warnings.catch_warnings(action="ignore"):
        study.study.ask()
    summarize_search(study, compose_train("search=lr_wd"), [])
    table = capsys.readouterr().out
    assert "2 complete trials" in table
    assert len([row for row in table.splitlines() if row.startswith("│")]) == 2


@pytest.mark.slow
def test_the_best_settings_are_saved_as_an_experiment(root, tmp_path):
    args = overrides(root, tmp_path, "search=augment", "trainer.max_epochs=1", "search.trials=3", "experiment=demo")
    with patched_folds():
        searches.search(compose_train(*args), args, RunReporter())
    best = max((t for t in trials_of(tmp_path) if t.value is not None), key=lambda trial: trial.value)
    folder = folder_of(tmp_path)
    cfg = compose_train("experiment=augment_best", config_dir=folder)
    assert cfg.optim.lr == best.params["optim.lr"]
    assert cfg.model.label_smoothing == best.params["model.label_smoothing"]
    expected = compose_train(f"augment={best.params['augment']}", "experiment=demo")
    assert cfg.augment == expected.augment
    # it builds on the search's own experiment, but not on its protocol
    assert (cfg.data.batch_size, cfg.split.protocol) == (expected.data.batch_size, "benchmark")


@pytest.mark.parametrize("is_sent", [False, True])
def test_a_search_is_a_run_of_w_and_b_that_grows_with_its_trials(root, tmp_path, monkeypatch, is_sent):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    best = search(root, tmp_path, "logger=wandb", "search.trials=2")
    folder = folder_of(tmp_path)
    if is_sent:
        (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
        path.with_suffix(".wandb.synced").touch()
    best = max(best, search(root, tmp_path, "logger=wandb", "search.trials=3"))
    # one folder, with all of the history that was not sent
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    records = wandb_records(path)
    (run,) = [record.run for record in records if record.HasField("run")]
    assert (run.job_type, run.run_group, run.run_id) == ("search", folder.name, f"search-{folder.name}")
    history = [record.history.item for record in records if record.HasField("history")]
    rows = [{"/".join(item.nested_key) or item.key: item.value_json for item in items} for items in history]
    trials = trials_of(tmp_path)
    objectives = [trial.value for trial in trials]
    first = 2 if is_sent else 0
    assert [float(row["search/objective"]) for row in rows] == objectives[first:]
    assert [float(row["search/best"]) for row in rows] == np.maximum.accumulate(objectives)[first:].tolist()
    assert float(rows[-1]["search/best"]) == best
    assert [float(row["sweep/optim.lr"]) for row in rows] == [trial.params["optim.lr"] for trial in trials][first:]
    assert any(name.startswith("search/trials") for name in rows[-1])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("selection.monitor=test/accuracy",), "never on the fold"),
        (("split=benchmark",), "never on the folds that are scored"),
        (("fold=2",), "leave fold at all"),
        (("search.trials=0",), r"search\.trials=0"),
        (("search.sampler=grid",), r"search\.sampler=grid"),
    ],
)
def test_an_invalid_search_is_refused_by_key(args, message):
    with pytest.raises(InputError, match=message):
        validate(compose_train("search=lr_wd", *args))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"fold": {"choices": [1, 2]}}, "names fold"),
        ({"seed": {"choices": [1, 2]}}, "names seed"),
        ({"split.test": {"low": 0.1, "high": 0.2}}, r"names split\.test"),
        ({"data.classes": {"choices": [1, 2]}}, r"names data\.classes"),
        ({"paths.cache": {"choices": ["a", "b"]}}, r"names paths\.cache"),
        (
            {"optim.lrr": {"low": 1, "high": 2}},
            r"has optim\.lrr, which is not a key of this optimizer: lr, weight_decay, ",
        ),
        ({"optim.lr": {"low": 2, "high": 1}}, "must be below"),
        ({"optim.lr": {"low": 0, "high": 1, "log": True}}, "requires low above 0"),
        ({"optim.lr": {"choices": [1]}}, "nothing to choose"),
        ({"optim.lr": {"low": 1}}, "either low and high, or choices"),
        ({}, "empty"),
    ],
)
def test_an_invalid_space_is_refused_by_key(space, message):
    cfg = compose_train("search=lr_wd")
    cfg.search.space = {key: Parameter(**values) for key, values in space.items()}
    with pytest.raises(InputError, match=message):
        validate(cfg)


def test_a_missing_optuna_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "soundfold.experiment.search")
    with pytest.raises(InputError, match=r"pip install -e '\.\[search\]'"):
        importlib.import_module("soundfold.experiment.search")


FLOAT, INT = optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution
WIDE = {"optim.lr": FLOAT(0, 9), "optim.weight_decay": FLOAT(0, 9)}
GOOD = {"optim.lr": 1e-3, "optim.weight_decay": 1e-2}


@pytest.mark.parametrize(
    ("params", "more", "message"),
    [
        ({**GOOD, "optim._target_": "os.getcwd"}, {}, r"trial 0 has optim\._target_='os\.getcwd', which is outside of"),
        ({**GOOD, "data.root": "${oc.env:HOME}"}, {}, r"trial 0 has data\.root="),
        ({**GOOD, "optim.lr": 8.5}, {}, r"trial 0 has optim\.lr=8\.5"),
        ({**GOOD, "optim.lr": 1}, {}, r"trial 0 has optim\.lr=1,"),
        ({"optim.lr": "1e-3,fold=1"}, {}, r"trial 0 has optim\.lr='1e-3,fold=1'"),
        ({"optim.lr": 1e-3}, {}, "trial 0 lacks settings"),
        ({}, {"state": TrialState.WAITING, "system_attrs": {"fixed_params": {"optim._target_": "x"}}}, "_target_='x'"),
        (GOOD, {"user_attrs": {"objectives": {"1,2": 0.5}}}, "lacks settings or scores of its folds"),
        (GOOD, {"user_attrs": {"objectives": {"1": "${seed}"}}}, "lacks settings or scores of its folds"),
        (GOOD, {"user_attrs": {"objectives": {"1": 0.5, "2": 0.6}}}, r"has the score 0\.9, which is not the mean"),
        (GOOD, {"value": float("inf")}, "has the score inf"),
    ],
)
def test_settings_outside_of_the_search_space_are_refused(tmp_path, root, params, more, message):
    """A stored parameter would become an override, such as the class that is called."""
    cfg = compose_train(*overrides(root, tmp_path), "search=lr_wd")
    with mock.patch.object(searches, "cross_validate") as called, mock.patch.object(searches, "compose_config") as read:
        folder = searches._study_folder(cfg)
        folder.mkdir()
        study = optuna.create_study(
            storage=f"sqlite:///{folder / 'study.db'}", study_name="lr_wd", direction="maximize", load_if_exists=True
        )
        kinds = {str: lambda value: optuna.distributions.CategoricalDistribution([value]), int: lambda _: INT(0, 9)}
        distributions = {
            key: kinds[type(value)](value) if type(value) in kinds else WIDE[key] for key, value in params.items()
        }
        more = {**({} if "state" in more else {"value": 0.9}), **more}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, **more))
        with pytest.raises(InputError, match=message):
            searches.search(cfg, [], RunReporter())
    assert not called.called
    assert not read.called
