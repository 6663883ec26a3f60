"""Folders of offline W&B runs: of several of one run, one remains; paths are corrected after a move; uploads."""

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from wandb.proto.wandb_internal_pb2 import Record

from soundfold.cli import main
from soundfold.errors import InputError
from soundfold.experiment.wandb_runs.offline import (
    SUPERSEDED,
    first_unsent_step,
    last_step,
    offline_folders,
    read_records,
    run_id_of,
    superseding,
)
from soundfold.experiment.wandb_runs.relocate import encode_records, relocate_artifacts
from soundfold.experiment.wandb_runs.sync import sync_runs

ID = "fold1-1a2b3c4d-5e6f"


def write_records(home: Path, second: int, steps: int, *more: Record, cut: int = 0) -> Path:
    """Write an offline folder with a history of ``steps`` rows of 1 kB, without its last ``cut`` bytes; return it."""
    folder = home / f"offline-run-20261126_1200{second:02}-{ID}"
    folder.mkdir(parents=True, exist_ok=True)
    run = Record()
    run.run.run_id, run.run.run_group = ID, "esc10-1a2b3c4d"
    rows = [Record() for _ in range(steps)]
    for step, row in enumerate(rows):
        row.history.step.num = step
        row.history.item.add(key="loss", value_json="1" * 1000)
    log = b":W&B\x1e\xbe\x00" + encode_records([run, *rows, *more])
    (folder / f"run-{ID}.wandb").write_bytes(log[: len(log) - cut])
    return folder


def kept_steps(home: Path) -> list[int]:
    return [last_step(folder) + 1 for folder in offline_folders(home)]


def test_records_are_read_up_to_the_cut(tmp_path):
    folder = write_records(tmp_path, 0, 100)  # several blocks of 32 KiB
    assert last_step(folder) == 99
    assert len(list(read_records(next(folder.iterdir())))) == 101
    assert last_step(write_records(tmp_path, 1, 100, cut=1)) == 98
    assert last_step(write_records(tmp_path, 2, 100, cut=60_000)) < 45
    (tmp_path / f"offline-run-x-{ID}").mkdir()
    assert last_step(tmp_path / f"offline-run-x-{ID}") == -1


def test_the_id_of_a_run_is_that_of_its_log(tmp_path):
    folder = write_records(tmp_path, 0, 1)
    # two folders of one second
    assert run_id_of(folder.rename(folder.with_name(f"{folder.name}-1"))) == ID
    assert run_id_of(tmp_path / f"offline-run-x-{ID}") == ID


@pytest.mark.parametrize(
    ("earlier", "rows", "ending", "expected"),
    [
        ([], 5, None, [5]),
        ([3], 5, None, [5]),
        # of three folders, which earlier versions left
        ([3, 7, 4], 8, None, [8]),
        # a fold that early stopping ends sooner, after a rerun of the checkpoint
        ([7], 5, None, [5]),
        ([7], 5, RuntimeError, [7]),
        ([7], 9, KeyboardInterrupt, [9]),
        ([7], 0, SystemExit, [7]),
        ([], 0, RuntimeError, [0]),
    ],
)
def test_one_folder_of_a_run_remains(tmp_path, earlier, rows, ending, expected):
    for second, steps in enumerate(earlier):
        write_records(tmp_path, second, steps)
    current = write_records(tmp_path, 9, 0)
    try:
        with superseding(current, ID):
            # `wandb sync` finds no other folder meanwhile
            assert offline_folders(tmp_path) == [current]
            write_records(tmp_path, 9, rows)
            if ending:
                raise ending
    except (RuntimeError, KeyboardInterrupt, SystemExit):
        pass
    assert kept_steps(tmp_path) == expected
    assert not (tmp_path / SUPERSEDED).exists()


def test_after_a_killed_process_two_folders_are_left_and_the_next_one_decides(tmp_path):
    write_records(tmp_path, 0, 7)
    killed = write_records(tmp_path, 1, 0)
    context = superseding(killed, ID)
    context.__enter__()
    write_records(tmp_path, 1, 4)
    assert (kept_steps(tmp_path), kept_steps(tmp_path / SUPERSEDED)) == ([4], [7])
    current = write_records(tmp_path, 2, 0)
    with superseding(current, ID):
        assert (kept_steps(tmp_path), kept_steps(tmp_path / SUPERSEDED)) == ([0], [7])
        write_records(tmp_path, 2, 9)
    assert kept_steps(tmp_path) == [9]


@pytest.mark.parametrize(("is_sent", "first"), [(False, 0), (True, 7)])
def test_after_an_upload_the_next_folder_begins_where_it_ended(tmp_path, is_sent, first):
    sent = write_records(tmp_path, 0, 7)
    if is_sent:
        (sent / f"run-{ID}.wandb.synced").touch()
    current = write_records(tmp_path, 1, 0)
    with superseding(current, ID):
        assert first_unsent_step(current, ID) == first


@pytest.mark.parametrize("fails", [False, True])
def test_an_offline_folder_of_a_run_that_continues_online_is_not_sent_any_more(tmp_path, fails):
    write_records(tmp_path, 0, 7)
    try:
        with superseding(tmp_path / f"run-20261126_120001-{ID}", ID):
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert offline_folders(tmp_path) == []
    # until it has succeeded
    assert kept_steps(tmp_path / SUPERSEDED) == ([7] if fails else [])


def test_another_run_of_the_same_folder_stays(tmp_path):
    other = tmp_path / f"offline-run-20261126_115900-x-{ID}"
    other.mkdir()
    with superseding(write_records(tmp_path, 0, 1), ID):
        pass
    assert other in offline_folders(tmp_path)


def artifact(local_path: Path) -> Record:
    record = Record()
    record.artifact.name = "model"
    record.artifact.manifest.contents.add(path="weights.pt", local_path=str(local_path))
    return record


def test_paths_of_artifacts_follow_a_moved_run(tmp_path):
    old, new = tmp_path / "outputs" / "esc10-1a2b3c4d", tmp_path / "elsewhere" / "renamed"
    (old / "fold1").mkdir(parents=True)
    (old / "fold1" / "weights.pt").touch()
    outside = tmp_path / "outside.txt"
    outside.touch()
    made = (artifact(old / "fold1" / "weights.pt"), artifact(outside))
    write_records(old / "fold1" / "wandb", 0, 60, *made)
    shutil.move(old, new)
    (path,) = new.glob("fold1/wandb/*/*.wandb")
    before = list(read_records(path))
    relocate_artifacts(path, new)
    after = list(read_records(path))
    assert after[:-2] == before[:-2]
    paths = [record.artifact.manifest.contents[0].local_path for record in after[-2:]]
    assert paths == [str(new / "fold1" / "weights.pt"), str(outside)]
    written = path.stat().st_mtime_ns
    relocate_artifacts(path, new)
    assert path.stat().st_mtime_ns == written
    (new / "fold1" / "weights.pt").unlink()
    with pytest.raises(InputError, match=r"renamed/fold1/weights\.pt is missing, a file of the artifact model"):
        relocate_artifacts(path, new)


def test_nothing_is_uploaded_that_was_sent_or_is_being_written(tmp_path, capsys):
    """Without a server: it would be an error to need one."""
    run = tmp_path / "esc10-1a2b3c4d"
    sent = write_records(run / "wandb", 0, 3)
    (sent / f"run-{ID}.wandb.synced").touch()
    write_records(run / "fold1" / "wandb", 0, 3)
    empty = write_records(run / "fold2" / "wandb", 0, 3, cut=10_000)
    (run / ".wandb-cache").mkdir()
    with FileLock(run / "fold1.lock"):
        sync_runs([run])
    out = capsys.readouterr().err
    assert f"{run}/fold1 is being trained; it can be sent afterwards." in out
    assert f"{empty} is empty: its process was killed within seconds." in out
    assert f"{run}: all W&B runs were sent before." in out


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WANDB_API_KEY": None}, r"^W&B: No API key configured.* Log in with `wandb login`, or set WANDB_API_KEY;"),
        (
            {"WANDB_API_KEY": "x" * 40},
            r"^W&B: Failed to verify .* http://127.*: user is not logged in Log",
        ),
        ({"WANDB_BASE_URL": "http://127.0.0.1:9"}, r"^W&B: Failed to verify credentials with http://127\.0\.0\.1:9: "),
    ],
)
def test_an_upload_without_key_or_server_is_an_input_error(tmp_path, wandb_server, monkeypatch, environment, message):
    monkeypatch.setattr("soundfold.experiment.wandb_runs.sync.SECONDS_TO_ANSWER", 1)
    write_records(tmp_path / "esc10-1a2b3c4d" / "fold1" / "wandb", 0, 3)
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    before = dict(os.environ)
    with pytest.raises(InputError, match=message):
        sync_runs([tmp_path / "esc10-1a2b3c4d"])
    assert dict(os.environ) == before


def test_the_command_names_a_folder_without_w_and_b_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["soundfold", "wandb", "sync", str(tmp_path)])
    assert main.main() == 2
    assert f"error: {tmp_path} has no W&B files. Name the folder of a run" in capsys.readouterr().err
