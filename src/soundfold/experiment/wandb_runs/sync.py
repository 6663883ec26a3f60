"""Upload of offline W&B runs: every run of a cross-validation once, with its whole history."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import wandb
from filelock import FileLock, Timeout

from soundfold.errors import InputError, printable
from soundfold.experiment.wandb_runs.offline import (
    SUPERSEDED,
    is_sent,
    keep_fullest,
    offline_folders,
    read_records,
    run_id_of,
    sent_marker,
)
from soundfold.experiment.wandb_runs.relocate import relocate_artifacts
from soundfold.experiment.wandb_runs.session import CACHE, wandb_environment
from soundfold.io.console import console
from soundfold.io.leases import is_leased

SECONDS_TO_ANSWER = 10
# lines of `wandb sync` that it repeats several times a second
PROGRESS = r"\] (setting up|updating|uploading) "
REMEDY = (
    "Log in with `wandb login`, or set WANDB_API_KEY; WANDB_BASE_URL names a server of your own. Nothing was sent, and "
    "the files stay as they are."
)


def sync_runs(folders: Sequence[Path]) -> None:
    """Upload the offline W&B runs of folds and cross-validations; those that were sent are skipped.

    Of a run that was interrupted, the folder with the longest history is sent. Folds that are being trained are
    skipped. When everything of a run is sent, copies of media, which W&B stores for the upload, are deleted.

    Args:
        folders: of runs, ``outputs/<name>-<id>``.

    Raises:
        InputError: a folder has no W&B files, the server cannot be reached, or it refuses the key or an upload.
    """
    pending = {folder: _unsent(folder) for folder in folders}
    if any(pending.values()):
        with wandb_environment("online", folders[0], remedy=REMEDY):
            # checks the key, and that there is a server, which `wandb sync` would wait for
            wandb.Api(timeout=SECONDS_TO_ANSWER)
            for folder, offline in pending.items():
                _upload(folder, offline)
    for folder, offline in pending.items():
        sent = f"{len(offline)} W&B runs sent" if offline else "all W&B runs were sent before"
        console.print(f"{folder}: {sent}.", soft_wrap=True)
        if not _unsent(folder):
            shutil.rmtree(folder / CACHE, ignore_errors=True)


def _unsent(folder: Path) -> list[Path]:
    """Return the offline folders of a run to send, one for each W&B run."""
    homes = sorted(path for path in [folder / "wandb", *folder.glob("fold*/wandb")] if path.is_dir())
    if not homes:
        raise InputError(
            f"{folder} has no W&B files. Name the folder of a run, outputs/<name>-<id>, that was trained with "
            "logger=wandb."
        )
    return [offline for home in homes for offline in _unsent_of(folder, home)]


def _unsent_of(folder: Path, home: Path) -> Iterator[Path]:
    found = offline_folders(home)
    is_used = is_leased(folder / "cv.lock") if home.parent == folder else _is_held(folder / f"{home.parent.name}.lock")
    if found and is_used:
        console.print(f"{home.parent} is being trained; it can be sent afterwards.", soft_wrap=True)
        return
    for run_id in sorted({run_id_of(path) for path in found}):
        kept = keep_fullest([*offline_folders(home / SUPERSEDED, run_id), *offline_folders(home, run_id)], home)
        log = next(kept.glob("run-*.wandb"), None)
        if log is None or not any(record.HasField("run") for record in read_records(log)):
            console.print(f"{kept} is empty: its process was killed within seconds.", soft_wrap=True)
        elif not is_sent(kept):
            yield kept


def _is_held(path: Path) -> bool:
    """Return whether a process holds a lock, see `soundfold.io.locks.exclusive_lock`."""
    if not path.exists():
        return False
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True


def _upload(folder: Path, offline: Sequence[Path]) -> None:
    """Send offline folders of a run by ``wandb sync``, and print its output."""
    if not offline:
        return
    for path in offline:
        relocate_artifacts(_file(path), folder)
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SILENT"}
    environment["WANDB_DIR"] = str(folder.resolve() / CACHE)  # for its log
    command = [sys.executable, "-m", "wandb", "sync", *(str(_file(path)) for path in offline)]
    pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    errors = []
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        for line in process.stdout or ():
            if not re.search(PROGRESS, line):
                print(printable(line.rstrip("\n")))
            if "ERROR" in line:
                errors.append(line)
    for path in offline:
        # W&B marks a run as sent after a failed upload, too
        marker = sent_marker(path)
        if marker and any(f"/{run_id_of(path)}]" in line for line in errors):
            marker.unlink(missing_ok=True)
    if unsent := [path for path in offline if not is_sent(path)]:
        reason = re.sub(r"\s+", " ", errors[0]).strip() if errors else f"exit code {process.returncode}"
        raise InputError(
            f"{len(unsent)} of {len(offline)} W&B runs of {folder} were not sent, {unsent[0]} among them: {reason} The "
            "same command sends the others again."
        )


def _file(offline: Path) -> Path:
    return next(offline.glob("run-*.wandb"))
