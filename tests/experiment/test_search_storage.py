"""The storages of a search: processes that share a study and die, and errors of storages."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest import mock

import optuna
import pytest
from helpers.killable import server
from helpers.killable import start as start_training
from helpers.study_workers import CONTINUOUS, GRID, PASSWORD, logged, postgresql, study_config, work
from helpers.tiny import ROOT, overrides, render
from optuna.trial import TrialState

from soundfold.cli.overrides import parse_arguments
from soundfold.config import compose_config
from soundfold.errors import InputError
from soundfold.experiment import study_storage
from soundfold.experiment.search import search
from soundfold.experiment.study import RETRY, SearchStudy, TrialFailed
from soundfold.experiment.study_storage import HeartbeatJournal
from soundfold.io.signals import Stopped
from soundfold.report.reporter import RunReporter
from soundfold.validation import validate

SERVER = "PostgreSQL"


@pytest.fixture(scope="module")
def database():
    """A URL of a running server, without the password, and the folder of its socket."""
    with postgresql() as folder:
        yield f"postgresql://searcher@/studies?host={folder}", folder


@pytest.fixture
def storage(request, monkeypatch):
    if request.param != SERVER:
        return request.param
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return request.getfixturevalue("database")[0]


every_storage = pytest.mark.parametrize("storage", ["sqlite", "journal", SERVER], indirect=True)
# SQLAlchemy takes a second to create the tables
SQLITE = pytest.param("sqlite", marks=pytest.mark.slow)
file_storages = pytest.mark.parametrize("storage", [SQLITE, "journal"])


def start(folder: Path, cfg, number: int, **options):
    password = {name: value for name, value in os.environ.items() if name == "PGPASSWORD"}
    process = server().Process(target=work, args=(folder, cfg, number), kwargs={**options, "environment": password})
    process.start()
    return process


@pytest.mark.slow
@every_storage
def test_of_eight_workers_two_are_killed_and_no_trial_is_lost_or_run_twice(storage, tmp_path):
    cfg = study_config(storage, 24, CONTINUOUS)
    # a server keeps the studies of all tests
    folder = tmp_path / f"kill-{time.time_ns()}"
    workers = [start(folder, cfg, number, killed=number < 2) for number in range(8)]
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [-signal.SIGKILL] * 2 + [0] * 6
    study = SearchStudy(folder, cfg)
    assert [trial.state for trial in study.trials()] == [TrialState.COMPLETE] * 24
    ended, started = logged(folder, "end"), logged(folder, "start")
    assert len(ended) == len(set(ended)) == 24
    # only the two dead trials were started again, with the same settings
    assert len(started) == 26
    assert set(started) == set(ended)


@pytest.mark.slow
@file_storages
def test_workers_share_a_small_grid_until_it_is_exhausted(storage, tmp_path):
    cfg = study_config(storage, 50, GRID)
    workers = [start(tmp_path / "study", cfg, number) for number in range(4)]
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    ended = logged(tmp_path / "study", "end")
    assert len(ended) == len(set(ended)) == 12


def value_of(trial) -> float:
    return -trial.params["x"]


@file_storages
@pytest.mark.parametrize("error", [Stopped(143), KeyboardInterrupt()], ids=["SIGTERM", "Ctrl-C"])
def test_a_stopped_trial_is_retried_at_once_with_its_settings(storage, error, tmp_path):
    stopped = []

    def stop(trial):
        stopped.append(trial.params)
        raise error

    study = SearchStudy(tmp_path, study_config(storage, 2, CONTINUOUS))
    with pytest.raises(type(error)):
        study.run_trial(stop)
    study = SearchStudy(tmp_path, study_config(storage, 2, CONTINUOUS))
    assert study.run_trial(value_of) == study.run_trial(value_of) == TrialState.COMPLETE
    assert study.run_trial(value_of) is None
    first, second = study.trials()
    assert first.params == stopped[0]
    reference = SearchStudy(tmp_path / "reference", study_config(storage, 2, CONTINUOUS))
    assert reference.run_trial(value_of) == reference.run_trial(value_of) == TrialState.COMPLETE
    assert [trial.params for trial in reference.trials()] == [first.params, second.params]


@file_storages
def test_a_trial_that_another_process_retries_is_not_stored_twice(storage, tmp_path, capsys):
    study = SearchStudy(tmp_path, study_config(storage, 1, CONTINUOUS))
    other = SearchStudy(tmp_path, study_config(storage, 1, CONTINUOUS))
    values = []

    def paused(trial):
        values.append(trial.params["x"])
        if len(values) == 1:
            # as `fail_stale_trials` does in another process
            RETRY(other.study, other.study.tell(trial.number, state=TrialState.FAIL))
        return value_of(trial)

    assert study.run_trial(paused) == TrialState.COMPLETE
    assert values[0] == values[1]
    assert "Trial 0 was paused for too long" in " ".join(capsys.readouterr().err.split())
    assert [(trial.number, trial.state) for trial in study.trials()] == [(1, TrialState.COMPLETE)]


def test_a_journal_notices_a_trial_whose_heartbeat_stops(tmp_path, monkeypatch):
    """The clock of the machine that wrote the heartbeat does not count."""
    clock = mock.Mock(return_value=100.0)
    monkeypatch.setattr(study_storage.time, "monotonic", clock)
    study = SearchStudy(tmp_path, study_config("journal", 2, CONTINUOUS))
    with warnings.catch_warnings(action="ignore"):
        dead, alive = study.study.ask(), study.study.ask()
    storage, writer = study._storage, SearchStudy(tmp_path, study_config("journal", 2, CONTINUOUS))._storage
    assert isinstance(storage, HeartbeatJournal)
    stale = []
    for seconds in range(0, 2 * study_storage.GRACE_PERIOD, 10):
        clock.return_value = 100.0 + seconds
        with mock.patch.object(study_storage.time, "time", lambda seconds=seconds: -1e9 + seconds):
            writer.record_heartbeat(alive._trial_id)
        stale.append(storage._get_stale_trial_ids(0))
    assert stale[: study_storage.GRACE_PERIOD // 10 + 1] == [[]] * (study_storage.GRACE_PERIOD // 10 + 1)
    assert stale[study_storage.GRACE_PERIOD // 10 + 1 :] == [[dead._trial_id]] * (len(stale) - 7)


@pytest.mark.slow
def test_a_running_trial_of_an_earlier_release_is_retried(tmp_path, monkeypatch):
    monkeypatch.setattr(study_storage, "HEARTBEAT_INTERVAL", 1)
    cfg = study_config("sqlite", 1, CONTINUOUS)
    old = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="formula", direction="maximize")
    trial = old.ask()
    x = trial.suggest_float("x", 0.0, 1.0)
    study = SearchStudy(tmp_path, cfg)
    # without waiting: the heartbeat that the study has given to it is old by then
    with mock.patch.object(study._storage, "grace_period", -1):
        assert study.run_trial(value_of) == TrialState.COMPLETE
    assert study.trials()[0].params["x"] == x


@file_storages
def test_a_failed_trial_has_its_reason_and_does_not_count(storage, tmp_path):
    def fail(_trial):
        raise TrialFailed("no room")

    study = SearchStudy(tmp_path, study_config(storage, 1, CONTINUOUS))
    assert study.run_trial(fail) == TrialState.FAIL
    assert study.trials() == []
    assert study.run_trial(value_of) == TrialState.COMPLETE
    assert [trial.user_attrs for trial in study.trials(TrialState.FAIL)] == [{"error": "no room"}]


def test_a_damaged_journal_is_explained(tmp_path):
    cfg = study_config("journal", 2, CONTINUOUS)
    study = SearchStudy(tmp_path, cfg)
    assert study.run_trial(value_of) == TrialState.COMPLETE
    path = tmp_path / "study.journal"
    path.write_bytes(path.read_bytes().replace(b'"op_code":4', b'"op_c', 1))
    with pytest.raises(InputError, match=r"study\.journal cannot be used \(.+\)\. Move it away"):
        SearchStudy(tmp_path, cfg)


@pytest.fixture(scope="module")
def search_config():
    return compose_config("search=lr_wd")


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("mysql://me@host/studies", r"search\.storage=mysql://\.\.\. must be sqlite, journal or postgresql://"),
        ("mysql://me:secret@host/studies", r"search\.storage=mysql://\.\.\. must be"),
        ("redis", r"search\.storage=redis must be"),
        ("postgresql://me:secret@host/studies", r"search\.storage has a password.*PGPASSWORD or add a line to"),
        ("postgresql://me:se/c@ret@host/studies", "has a password"),
        ("postgresql://me@host/studies?sslmode=require&password=secret", "has a password"),
    ],
)
def test_an_invalid_storage_is_refused_without_its_password(storage, message, search_config):
    cfg = copy.deepcopy(search_config)
    cfg.search.storage = storage
    with pytest.raises(InputError, match=message) as refused:
        validate(cfg)
    assert not {"secret", "se/c"} & set(str(refused.value).replace("@", " ").replace(":", " ").split())
    # before Hydra, which would store it
    if storage.startswith("postgresql"):
        with pytest.raises(InputError, match=r"^search\.storage has a password"):
            parse_arguments([f"search.storage='{storage}'"])


def test_a_storage_without_its_extra_is_refused(monkeypatch, search_config):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    cfg = copy.deepcopy(search_config)
    cfg.search.storage = "postgresql://me@host:5432/studies"
    with pytest.raises(InputError, match=r"requires psycopg, which is not installed: pip install .*postgresql"):
        validate(cfg)


def test_an_unreachable_server_is_explained(tmp_path):
    pytest.importorskip("psycopg")
    url = f"postgresql://me@/studies?host={tmp_path}"
    with pytest.raises(InputError, match=r"^The study postgresql://me@/.* cannot be used \(.+\)\. Start the server"):
        SearchStudy(tmp_path / "study", study_config(url, 1, CONTINUOUS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "password", "message"),
    [
        ("studies", "wrong-horse", r"password authentication failed.*Set the environment variable PGPASSWORD"),
        ("studies", None, r"password.*PGPASSWORD"),
        ("missing", PASSWORD, 'database "missing" does not exist.*createdb'),
    ],
)
def test_a_server_that_refuses_is_explained(name, password, message, database, tmp_path, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    if password is not None:
        monkeypatch.setenv("PGPASSWORD", password)
    cfg = study_config(database[0].replace("/studies", f"/{name}"), 1, CONTINUOUS)
    with pytest.raises(InputError, match=message) as refused:
        SearchStudy(tmp_path / "study", cfg)
    assert "\n" not in str(refused.value)
    assert str(password) not in str(refused.value)


@pytest.mark.slow
def test_a_retried_trial_resumes_the_checkpoint_of_the_dead_one(tmp_path, monkeypatch, capsys):
    args = overrides(render(tmp_path / "root"), tmp_path / "out", "search=lr_wd", "search.trials=1", "report.page=none")
    args += ["search.storage=journal", "model.width=8"]
    process = start_training(args, tmp_path / "log", at=("last.ckpt", "renamed", 1))
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "log").read_text()
    monkeypatch.setattr(study_storage, "HEARTBEAT_INTERVAL", 1)
    monkeypatch.setattr(study_storage, "GRACE_PERIOD", 1)
    search(compose_config(*args), args, RunReporter())
    assert "Fold 1 resumes from its last checkpoint." in capsys.readouterr().err
    (folder,) = (tmp_path / "out").glob("tiny-search-*")
    # one run, although Optuna has two trials
    assert len(list(folder.glob("trials/tiny-*/fold*/result.json"))) == 3
    lines = [json.loads(line) for line in (folder / "study.journal").read_text().splitlines()]
    assert sum("datetime_start" in line and "trial_id" not in line for line in lines) == 2


@pytest.mark.slow
def test_a_search_on_a_server_stores_its_password_nowhere(database, tmp_path):
    """A sweep of two workers, whose commands are stored, with an offline W&B run of each trial."""
    url, _ = database
    root = render(tmp_path / "root")
    args = overrides(root, tmp_path / "out", "search=lr_wd", "search.trials=2", "trainer.max_epochs=1", "logger=wandb")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", *args, f"search.storage='{url}'"]
    done = subprocess.run(
        [*command, "search.worker=1,2", "report.page=none"],
        capture_output=True,
        text=True,
        env={**environment, "PGPASSWORD": PASSWORD, "WANDB_MODE": "offline"},
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out").glob("tiny-search-*")
    # the second worker had nothing left to train
    assert len(list(folder.glob("trials/*/fold*/result.json"))) == 6
    assert not (folder / "study.db").exists()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert any(url.encode() in path.read_bytes() for path in files)
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
    assert PASSWORD not in done.stdout + done.stderr
