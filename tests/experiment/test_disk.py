"""Full and read-only disks, damaged files, and concurrent processes."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from helpers.killable import server, start
from helpers.tiny import cross_validate, only, overrides, render

from soundfold.errors import InputError
from soundfold.evaluation.compare import load_run
from soundfold.evaluation.results import FoldResult, load_folds
from soundfold.experiment import run as runs
from soundfold.experiment.callbacks.checkpoints import can_resume
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.io.atomic import loads_with_checksum
from soundfold.io.checkpoints import find_damage, load_checkpoint, save_checkpoint
from soundfold.models.classifier import Classifier
from soundfold.report.leaderboard import list_runs

SMALL = ("model.width=8", "split=nested", "average=ema", "average.start=0", "trainer.max_epochs=3")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("tiny") / "root")


@pytest.fixture(scope="module")
def reference(root, tmp_path_factory) -> Path:
    """Outputs of an undisturbed run, with its checkpoints; do not modify."""
    outputs = tmp_path_factory.mktemp("reference")
    cross_validate(root, outputs, *SMALL, "checkpoints.keep=all")
    return outputs


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[..., Path]]:
    """Mount an in-memory disk with these mount options, or remount it with other ones; return its path."""
    path = tmp_path / "disk"
    path.mkdir()

    def mount(*options: str) -> Path:
        args = ["-o", ",".join([*(["remount"] if path.is_mount() else []), *options])]
        done = subprocess.run(["mount", "-t", "tmpfs", *args, "none", str(path)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no permission to mount a disk: {done.stderr.strip()}")
        return path

    yield mount
    if path.is_mount():
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def predictions(outputs: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in only(outputs).glob("fold*/predictions.csv")}


def copy_run(outputs: Path, to: Path, *omitted: str) -> Path:
    """Copy the only run in ``outputs``, without some files of fold 1; return its folder."""
    folder = shutil.copytree(only(outputs), to / only(outputs).name)
    for name in omitted:
        (folder / "fold1" / name).unlink()
    return folder


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_full_cache_is_reported_and_left_clean(root, reference, disk, tmp_path):
    cache = disk("size=120k")
    options = [*SMALL, "fold=1", f"paths.cache={cache}"]
    with pytest.raises(InputError, match=r"No space left on device.* requires 0\.2 MB\. .*set paths\.cache") as caught:
        cross_validate(root, tmp_path / "out", *options)
    assert str(cache) in str(caught.value)
    assert {path.suffix for path in cache.iterdir()} == {".lock"}
    assert not (tmp_path / "out").exists()
    disk("size=4m")
    cross_validate(root, tmp_path / "out", *options)
    assert predictions(tmp_path / "out")["fold1"] == predictions(reference)["fold1"]


WRITES = ("config.yaml", "best.ckpt", "metrics.csv", "last.ckpt", "weights.pt", "predictions.csv", "result.json")


def fill(filler: Path) -> None:
    """Use up the space of a disk."""
    with filler.open("wb", buffering=0) as stream:
        # a write that does not fit may be carried out in part
        for size in (1 << 20, 1):
            with suppress(OSError):
                while stream.write(bytes(size)):
                    pass


@pytest.mark.slow
def test_a_disk_full_at_any_write_is_reported_left_clean_and_resumed_from(root, reference, disk):
    outputs = disk("size=64m")
    filler = outputs / "filler"
    open_file = Path.open

    def fill_and_open(path, mode="r", *args, **options):
        if mode == "wb" and path.name.startswith(name):
            fill(filler)
        return open_file(path, mode, *args, **options)

    for name in (*WRITES, "cv.json", "report.html"):
        with mock.patch.object(Path, "open", fill_and_open), pytest.raises(InputError) as caught:
            cross_validate(root, outputs, *SMALL)
        message = str(caught.value)
        assert re.match(rf"{outputs}/tiny-\w+/.*{re.escape(name)} cannot be written: No space left on device", message)
        assert "Free some space" in message
        if name.endswith((".ckpt", ".pt")):
            assert re.search(r"it takes \d+\.\d MB", message)
        assert not [*outputs.rglob("*.part")]
        # there may be the checkpoint of an earlier epoch
        assert [find_damage(path) for path in outputs.rglob(name)] in ([], [None])
        filler.unlink()
    cross_validate(root, outputs, *SMALL)
    assert predictions(outputs) == predictions(reference)


@pytest.mark.slow  # as the two tests above, but from the command line
def test_a_full_disk_exits_with_2_and_one_paragraph(root, disk, tmp_path):
    outputs = disk("size=100k")
    process = start(overrides(root, outputs, *SMALL, "fold=1"), tmp_path / "log")
    process.join(120)
    log = (tmp_path / "log").read_text()
    assert process.exitcode == 2, log
    assert "best.ckpt cannot be written: No space left on device, and it takes" in log
    assert "Traceback" not in log
    assert not [*outputs.rglob("*.ckpt"), *outputs.rglob("*.part")]


def test_a_read_only_outputs_folder_is_refused_before_training(root, disk, monkeypatch):
    monkeypatch.setattr(runs, "run_fold", lambda *_: pytest.fail("trained"))
    outputs = disk("ro")
    with pytest.raises(InputError, match=r"cannot be written: Read-only file system\. .*paths\.outputs="):
        cross_validate(root, outputs, *SMALL)


def test_data_and_a_complete_cache_may_be_read_only(root, reference, disk, tmp_path):
    mounted = disk("size=4m")
    shutil.copytree(root, mounted / "root")
    shutil.copytree(root.parent / "cache", mounted / "cache")
    options = (*SMALL, "fold=1", f"paths.cache={mounted / 'cache'}")
    disk("ro")
    cross_validate(mounted / "root", tmp_path, *options)
    assert predictions(tmp_path)["fold1"] == predictions(reference)["fold1"]
    with pytest.raises(InputError, match=r"Read-only file system.*set paths\.cache"):
        cross_validate(mounted / "root", tmp_path, *options, "data.seconds=0.4")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("last.ckpt", flip_bit),
        pytest.param("last.ckpt", lambda path: path.write_bytes(b""), marks=pytest.mark.slow),
        ("best.ckpt", flip_bit),
    ],
    ids=["bit of last.ckpt", "all of last.ckpt", "bit of best.ckpt"],
)
def test_a_fold_with_a_damaged_checkpoint_is_trained_from_scratch_with_the_same_result(
    root, reference, tmp_path, capsys, monkeypatch, name, damage
):
    folder = copy_run(reference, tmp_path, "result.json", "predictions.csv", "checkpoints/weights.pt")
    damage(folder / "fold1" / "checkpoints" / name)
    epochs = []
    monkeypatch.setattr(Classifier, "on_train_epoch_start", lambda self: epochs.append(self.current_epoch))
    cross_validate(root, tmp_path, *SMALL, "fold=1")
    assert f"{name} is damaged" in capsys.readouterr().err
    assert epochs == [0, 1, 2]
    assert predictions(tmp_path) == predictions(reference)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("last.ckpt", lambda content: content.pop("state_dict")),
        ("last.ckpt", lambda content: content.pop("loops")),
        ("last.ckpt", lambda content: content["state_dict"].popitem()),
        ("last.ckpt", lambda content: content.update(state_dict=[])),
        ("best.ckpt", lambda content: content.clear()),
        (
            "best.ckpt",
            lambda content: content["state_dict"].update(dict.fromkeys(content["state_dict"], torch.zeros(1))),
        ),
    ],
)
def test_an_intact_checkpoint_without_weights_or_state_is_deleted(name, change, reference, tmp_path, capsys):
    folder = copy_run(reference, tmp_path) / "fold1" / "checkpoints"
    last = load_checkpoint(folder / "last.ckpt")
    model = mock.Mock(state_dict=lambda: last["state_dict"])
    assert can_resume(folder, model)
    content = load_checkpoint(folder / name)
    change(content)
    save_checkpoint(folder / name, content)
    assert not can_resume(folder, model)
    assert f"{name} is damaged (it lacks" in capsys.readouterr().err
    assert not list(folder.glob("*.ckpt"))


def test_a_missing_best_checkpoint_is_named(root, reference, tmp_path):
    copy_run(reference, tmp_path, "result.json", "checkpoints/best.ckpt")
    with pytest.raises(InputError, match=r"checkpoints/best\.ckpt is missing.*rerun=true"):
        cross_validate(root, tmp_path, *SMALL, "fold=1")


def test_every_changed_bit_of_a_checkpoint_is_detected_or_harmless(tmp_path):
    path, values = tmp_path / "archive", {"weights": torch.arange(300.0), "name": "mean", "steps": [1, 2]}
    save_checkpoint(path, values)
    assert find_damage(path) is None
    content = path.read_bytes()
    n_detected = 0
    folder = content.rindex(b"archive/data/0") - 8  # a bit of the zip directory that turns a tensor into a folder
    for bit in [8 * folder + 4, *np.random.default_rng(0).choice(8 * len(content), 1000, replace=False)]:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        if find_damage(path) is not None:
            n_detected += 1
            continue
        loaded = load_checkpoint(path)
        assert torch.equal(loaded["weights"], values["weights"]), bit
        assert (loaded["name"], loaded["steps"]) == ("mean", [1, 2])
    assert n_detected > 500
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        assert find_damage(path) is not None


def test_damaged_weights_are_refused(reference, tmp_path):
    path = copy_run(reference, tmp_path) / "fold1" / "checkpoints" / "weights.pt"
    ModelBundle.load(path)
    flip_bit(path)
    with pytest.raises(InputError, match=r"weights\.pt is not a trained model .*not as it was written.*rerun=true"):
        ModelBundle.load(path)


def test_a_result_edited_by_hand_is_refused(root, reference, tmp_path):
    folder = copy_run(reference, tmp_path)
    path = folder / "fold1" / "result.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "accuracy": 1.0}))
    with pytest.raises(InputError, match=r"fold1/result\.json is not a fold's result .*checksum.*Delete it"):
        cross_validate(root, tmp_path, *SMALL)
    # the layout does not count
    path.write_text(json.dumps(values))
    assert FoldResult.load(path) == FoldResult.load(only(reference) / "fold1" / "result.json")
    del values["checksum"]
    path.write_text(json.dumps({**values, "accuracy": 0.99}))
    with pytest.raises(InputError, match="it has no checksum"):
        load_run(folder)


def test_predictions_that_do_not_match_the_result_are_refused(reference, tmp_path):
    folder = copy_run(reference, tmp_path)
    path = folder / "fold2" / "predictions.csv"
    # a digit that changes no class, so that the accuracy is the same
    text = path.read_text().rstrip("\n")
    path.write_text(text[:-1] + ("1" if text[-1] != "1" else "2") + "\n")
    with pytest.raises(InputError, match=r"fold2/predictions\.csv cannot be read \(it is not the file that"):
        load_run(folder)
    result = FoldResult.load(folder / "fold2" / "result.json")
    replace(result, predictions=None).save(folder / "fold2" / "result.json")
    with pytest.raises(InputError, match=r"fold2/predictions\.csv is not bound to its result\.json"):
        load_run(folder)


@pytest.mark.parametrize("damage", ["edited", "missing"])
def test_a_configuration_that_does_not_match_the_result_is_refused(reference, tmp_path, damage):
    folder = copy_run(reference, tmp_path)
    path = folder / "fold2" / "config.yaml"
    text = path.read_text()
    path.unlink()
    if damage == "edited":
        path.write_text(text.replace("seed: 0", "seed: 1"))
    with pytest.raises(InputError, match=r"fold2/result\.json is not a fold's result .*config\.yaml"):
        load_run(folder)
    # results of the first edition are not bound to their configuration
    path.write_text(text)
    replace(FoldResult.load(folder / "fold2" / "result.json"), config=None).save(folder / "fold2" / "result.json")
    path.write_text(text + "# edited\n")
    load_run(folder)


def test_a_summary_edited_by_hand_is_ignored(reference, tmp_path):
    folder = copy_run(reference, tmp_path)
    values = json.loads((folder / "cv.json").read_text())
    (folder / "cv.json").write_text(json.dumps({**values, "interval": [0.98, 0.99]}))
    ((run,), _) = list_runs([tmp_path])
    assert run.interval == tuple(values["interval"])


def join_all(processes, log: Path) -> None:
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * len(processes), log.read_text()[-3000:]


@pytest.mark.slow
def test_a_process_that_needs_a_fold_in_training_names_the_other_waits_and_reuses_it(root, tmp_path):
    args = overrides(root, tmp_path / "out", *SMALL, "fold=1", "trainer.max_epochs=12")
    barrier = server().Barrier(2)
    both = [start(args, tmp_path / f"log{k}", barrier=barrier) for k in range(2)]
    join_all(both, tmp_path / "log0")
    logs = [(tmp_path / f"log{k}").read_text() for k in range(2)]
    (waited,) = (k for k in range(2) if "waiting for it" in logs[k] and "is training fold1 of this run" in logs[k])
    assert re.search(rf"Process {both[1 - waited].pid} on \S+, since .* is training fold1", logs[waited])
    assert "its result is reused" in logs[waited]
    assert "reused" not in logs[1 - waited]


@pytest.mark.slow
def test_concurrent_processes_build_one_store_and_write_complete_files(root, reference, tmp_path):
    """Two runs, each started several times, for all folds and for single ones."""
    requests = ["seed=0", "fold=1", "seed=1", "seed=0", "fold=2", "seed=1", "fold=3", "fold=1"]
    args = [*overrides(root, tmp_path / "out", *SMALL), f"paths.cache={tmp_path / 'cache'}"]
    barrier = server().Barrier(len(requests))
    join_all([start([*args, request], tmp_path / "log", barrier=barrier) for request in requests], tmp_path / "log")
    assert len((tmp_path / "builds").read_text().splitlines()) == 1
    assert [path.suffix for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [""]
    assert not [*tmp_path.rglob("*.part")]
    folders = sorted((tmp_path / "out").glob("tiny-*"))
    assert len(folders) == 2
    for folder in folders:
        assert [result.fold for result in load_folds(folder)] == [1, 2, 3]
        load_run(folder)
        for path in folder.rglob("*.json"):
            loads_with_checksum(path.read_text())
    folder = tmp_path / "out" / only(reference).name
    for fold in (1, 2, 3):
        name = f"fold{fold}/predictions.csv"
        assert (folder / name).read_bytes() == (only(reference) / name).read_bytes()
    assert "Traceback" not in (tmp_path / "log").read_text()
