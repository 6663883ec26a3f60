"""Storage of a search's Optuna study: an SQLite file, a journal file or a PostgreSQL server, all with heartbeats."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback

# not public; it makes `fail_stale_trials` and the heartbeats of `Study.optimize` work for a journal
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState
from sqlalchemy import Engine, event
from sqlalchemy.exc import SQLAlchemyError

from soundfold.errors import InputError

# heartbeats are experimental since Optuna 2.9
warnings.filterwarnings("ignore", category=ExperimentalWarning)

# seconds between two heartbeats of a running trial
HEARTBEAT_INTERVAL = 10
# seconds without a heartbeat after which a trial counts as dead
GRACE_PERIOD = 60
# a setting that ends its process, for example by lack of memory, must not end every process that retries it
MAX_RETRIES = 10
# seconds to wait for another process that writes to the SQLite file, and for a PostgreSQL server to answer
SQLITE_TIMEOUT, CONNECT_TIMEOUT = 30, 10
# attempts to create the tables, which other processes may create at the same moment
CREATE_ATTEMPTS = 10
STORAGE_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError, StorageInternalError)
# system attribute of a trial in a journal: the time of its last heartbeat
HEARTBEAT = "heartbeat"


class DatabaseStorage(RDBStorage):
    """Optuna's storage in a database; a heartbeat that cannot be stored is skipped."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Store the time. An exception would end the thread of the heartbeats, and the next one may succeed."""
        with suppress(*STORAGE_ERRORS):
            super().record_heartbeat(trial_id)


class JournalFile(JournalFileBackend):
    """Optuna's journal file, whose damage is an error of the storage.

    Of Optuna's two locks it uses the one that creates a file exclusively (``O_EXCL``): atomic on local file systems and
    on NFS from version 3, as on Lustre and SMB. No lock manager is involved, which many NFS servers lack and SQLite
    requires. The other lock, a symbolic link to the absolute path of the journal, is for NFS 2: where machines mount
    the folder under different paths the link is broken, and a lock that a killed process left is never removed. This
    one is removed when it is 30 s old.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), JournalFileOpenLock(str(path)))

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the entries from a number on.

        Raises:
            StorageInternalError: a line is not JSON.
        """
        try:
            yield from super().read_logs(log_number_from)
        except ValueError as error:
            raise StorageInternalError("The journal is damaged.") from error


class HeartbeatJournal(JournalStorage, BaseHeartbeat):
    """Optuna's journal with heartbeats, which Optuna has for databases only.

    A heartbeat is an attribute of the trial. The clocks of several machines may differ, so each process compares with
    what it has read itself: a trial is dead if its heartbeat has not changed for `GRACE_PERIOD`.
    """

    def __init__(self, path: Path, retry: RetryHeartbeatStaleTrialCallback) -> None:
        super().__init__(JournalFile(path))
        self._retry = retry
        # trial id: last heartbeat, and the monotonic time at which this process first read it
        self._heartbeats: dict[int, tuple[Any, float]] = {}

    def record_heartbeat(self, trial_id: int) -> None:
        """Store the time; skip it if the trial was finished by another process or the file cannot be written."""
        with suppress(UpdateFinishedTrialError, StorageInternalError, OSError):
            self.set_trial_system_attr(trial_id, HEARTBEAT, time.time())

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        now, stale = time.monotonic(), []
        for trial in self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,)):
            trial_id = self.get_trial_id_from_study_id_trial_number(study_id, trial.number)
            heartbeat = trial.system_attrs.get(HEARTBEAT)
            last, since = self._heartbeats.get(trial_id, (object(), now))
            if heartbeat != last:
                self._heartbeats[trial_id] = (heartbeat, now)
            elif now - since > GRACE_PERIOD:
                stale.append(trial_id)
        return stale

    def get_heartbeat_interval(self) -> int:
        """Return the seconds between two heartbeats."""
        return HEARTBEAT_INTERVAL

    def get_heartbeat_stale_trial_callback(self) -> Callable[..., None]:
        """Return the function that retries a dead trial."""
        return self._retry


def describe_storage(storage: str, folder: Path) -> str:
    """Return the file of a study or the URL of its server, for messages."""
    return {"sqlite": str(folder / "study.db"), "journal": str(folder / "study.journal")}.get(storage, storage)


def open_storage(
    storage: str, folder: Path, retry: RetryHeartbeatStaleTrialCallback
) -> DatabaseStorage | HeartbeatJournal:
    """Open the storage of a study, and create it if it does not exist.

    Args:
        storage: ``sqlite`` or ``journal``, files in ``folder``, or a URL ``postgresql://USER@HOST/DATABASE``. libpq
            reads the password from ``PGPASSWORD`` or ``~/.pgpass``.
        folder: of the study.
        retry: called for a trial whose process has died.

    Raises:
        SQLAlchemyError: the database cannot be opened.
        StorageInternalError: the journal is damaged.
    """
    if storage == "journal":
        return HeartbeatJournal(folder / "study.journal", retry)
    if storage == "sqlite":
        path = (folder / "study.db").resolve()
        database = _open_database(f"sqlite:///{path}", retry, connect_args={"timeout": SQLITE_TIMEOUT})
        _lock_at_begin(database.engine)
        return database
    url = storage.replace("postgresql://", "postgresql+psycopg://", 1)
    # a trial takes hours, in which a server may restart: test a pooled connection before it is used
    return _open_database(url, retry, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_TIMEOUT})


def _open_database(url: str, retry: RetryHeartbeatStaleTrialCallback, **engine_kwargs: Any) -> DatabaseStorage:
    for attempt in range(CREATE_ATTEMPTS):
        try:
            return DatabaseStorage(
                url,
                engine_kwargs,
                heartbeat_interval=HEARTBEAT_INTERVAL,
                grace_period=GRACE_PERIOD,
                heartbeat_stale_trial_callback=retry,
            )
        except SQLAlchemyError as error:
            raced = "already exists" in str(error) or "UNIQUE constraint" in str(error)
            if not raced or attempt == CREATE_ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0, 0.2))
    raise AssertionError("unreachable")


def _lock_at_begin(engine: Engine) -> None:
    """Lock an SQLite file at the start of each transaction.

    Python begins a transaction at the first write. Two processes that have read that a trial is waiting would both run
    it: SQLite has no ``SELECT ... FOR UPDATE``, by which Optuna prevents this on other databases.
    """

    @event.listens_for(engine, "connect")
    def disable_implicit_begin(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    # connections opened before have no listener
    engine.dispose()


@contextmanager
def explain_study_errors(storage: str, *types: type[Exception]) -> Iterator[None]:
    """Convert errors of Optuna's storage, and of other types, to one sentence.

    Args:
        storage: the file or the URL, see `describe_storage`.
        types: further types to convert.

    Raises:
        InputError: the file of the study is damaged, of a newer Optuna, locked, or not a file; or the server cannot be
            reached, refuses the password, or lacks the database.
    """
    try:
        yield
    except InputError:
        raise
    except (*STORAGE_ERRORS, *types) as error:
        # StorageInternalError replaces the error of SQLite
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        text = str(getattr(cause, "orig", cause) or type(cause).__name__)
        reason = text.splitlines()[0].removesuffix(".")
        if "no longer compatible" in reason:
            reason, remedy = "a newer Optuna wrote it", "Update Optuna."
        elif "://" in storage:
            remedy = _remedy_on_server(text)
        elif "locked" in reason:
            remedy = "Another process holds it: wait for its end, or end it."
        else:
            remedy = "Move it away: the same command starts the study again, and reuses the folds of its trials."
        raise InputError(f"The study {storage} cannot be used ({reason}). {remedy}") from error


def _remedy_on_server(reason: str) -> str:
    if "password" in reason:
        return "Set the environment variable PGPASSWORD, or add a line to ~/.pgpass."
    if "database" in reason and "does not exist" in reason:
        return "Create the database with createdb, or correct search.storage."
    if "permission denied" in reason:
        return "Grant the role CREATE on the schema public of the database."
    return "Start the server, or correct search.storage; the same command continues the study."
