"""Processes that share a study whose trials are a formula, and a PostgreSQL server. No training is involved."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from omegaconf import DictConfig, OmegaConf
from optuna.trial import Trial

from soundfold.experiment import study_storage
from soundfold.experiment.study import SearchStudy

CONTINUOUS = {"x": {"low": 0.0, "high": 1.0}, "y": {"low": 1e-4, "high": 1.0, "log": True}}
GRID = {"x": {"choices": [1, 2, 3, 4]}, "y": {"low": 1, "high": 3, "integer": True}}
PASSWORD = "correct-horse-7Qz"


def study_config(storage: str, trials: int, space: dict[str, Any]) -> DictConfig:
    parameter = {"low": None, "high": None, "log": False, "integer": False, "choices": None}
    search = {"name": "formula", "storage": storage, "trials": trials, "sampler": "random", "prune_after": None}
    search["space"] = {key: {**parameter, **values} for key, values in space.items()}
    return OmegaConf.create({"search": search, "seed": 0})


def work(folder: Path, cfg: DictConfig, number: int, killed: bool = False, environment: dict[str, str] | None = None):
    """Run trials until none is left, and log the start and the end of each; a worker that is killed dies in its first.

    Heartbeats come every second, and a trial is dead after ten without one.
    """
    os.environ.update(environment or {})
    study_storage.HEARTBEAT_INTERVAL, study_storage.GRACE_PERIOD = 1, 10
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    log = (folder.parent / f"worker{number}.log").open("w", buffering=1)

    def objective(trial: Trial) -> float:
        log.write(f"start {trial.params}\n")
        time.sleep(0.3)
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        log.write(f"end {trial.params}\n")
        return -float(trial.params["x"])

    study = SearchStudy(folder, cfg)
    while study.run_trial(objective) is not None:
        pass


def logged(folder: Path, event: str) -> list[str]:
    """Return the settings of the trials that all workers started or ended."""
    lines = [line for path in folder.parent.glob("worker*.log") for line in path.read_text().splitlines()]
    return [line.removeprefix(f"{event} ") for line in lines if line.startswith(event)]


@contextmanager
def postgresql() -> Iterator[Path]:
    """Start a PostgreSQL server on a socket in a temporary folder, and yield the folder; skip the test without one.

    User ``searcher`` with `PASSWORD` owns the database ``studies``. Debian's package keeps the server's programs off
    the path, and the server refuses to run as root.
    """
    binaries = [shutil.which("initdb"), *sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)]
    initdb = next(filter(None, binaries), None)
    if initdb is None:
        pytest.skip("requires a PostgreSQL server (Debian's package postgresql)")
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    # pytest's own folders are closed to other users, and a socket's path has at most 107 bytes
    folder = Path(tempfile.mkdtemp(prefix="soundfold-pg-"))
    try:
        if user:
            shutil.chown(folder, "postgres", "postgres")
        run = {"cwd": folder, "check": True, "capture_output": True, "text": True, **user}
        options = ["--no-sync", "--auth=scram-sha-256", "--username=searcher", "--pwfile=password", "--no-locale"]
        (folder / "password").write_text(PASSWORD)
        subprocess.run([initdb, "-D", folder / "data", "--encoding=UTF8", *options], **run)
        arguments = ["-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        server = Path(initdb).resolve().with_name("postgres")
        with subprocess.Popen([server, *arguments], cwd=folder, stderr=subprocess.DEVNULL, **user) as process:
            try:
                _create_database(folder, "studies")
                yield folder
            finally:
                # fast shutdown
                process.send_signal(signal.SIGINT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _create_database(folder: Path, name: str) -> None:
    import psycopg

    for _ in range(100):
        try:
            with psycopg.connect(
                host=str(folder), user="searcher", password=PASSWORD, dbname="postgres", autocommit=True
            ) as connection:
                connection.execute(f'CREATE DATABASE "{name}"')
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    pytest.fail("the PostgreSQL server does not answer")
