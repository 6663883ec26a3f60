"""Full and read-only disks, damaged files, and processes that want the same thing at once."""

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
def whole(root, tmp_path_factory) -> Path:
    """Outputs of an undisturbed run, its checkpoints kept; not to be changed."""
    outputs = tmp_path_factory.mktemp("whole")
    cross_validate(root, outputs, *SMALL, "checkpoints.keep=all")
    return outputs


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[..., Path]]:
    """Mounts a disk of so many bytes, in memory, or changes what was mounted."""
    place = tmp_path / "disk"
    place.mkdir()

    def mounted(*options: str) -> Path:
        how = ["-o", ",".join([*(["remount"] if place.is_mount() else []), *options])]
        done = subprocess.run(["mount", "-t", "tmpfs", *how, "none", str(place)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"may not mount a disk: {done.stderr.strip()}")
        return place

    yield mounted
    if place.is_mount():
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def predictions(outputs: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in only(outputs).glob("fold*/predictions.csv")}


def copied(integer: Path, to: Path, *without: str) -> Path:
    """A copy of the undisturbed run, less some files of fold 1; its folder."""
    folder = shutil.copytree(only(whole), to / only(whole).name)
    for name in without:
        (folder / "fold1" / name).unlink()
    return folder


def flip(path: Path, at: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


def test_a_full_cache_is_told_and_left_clean(root, whole, disk, tmp_path):
    cache = disk("size=120k")
    words = [*SMALL, "fold=1", f"paths.cache={cache}"]
    with pytest.raises(InputError, match=r"No space left on device.* needs 0\.2 MB; .*paths\.cache=") as caught:
        cross_validate(root, tmp_path / "out", *words)
    assert str(cache) in str(caught.value)
    assert {path.suffix for path in cache.iterdir()} == {".lock"}
    assert not (tmp_path / "out").exists()
    disk("size=4m")
    cross_validate(root, tmp_path / "out", *words)
    assert predictions(tmp_path / "out")["fold1"] == predictions(whole)["fold1"]


WRITES = ("config.yaml", "best.ckpt", "metrics.csv", "last.ckpt", "weights.pt", "predictions.csv", "result.json")


def fill(filler: Path) -> None:
    """Take all the space of a disk."""
    with filler.open("wb", buffering=0) as stream:
        # what does not fit may still be taken in part
        for size in (1 << 20, 1):
            with suppress(OSError):
                while stream.write(bytes(size)):
                    pass


@pytest.mark.slow
def test_outputs_that_are_full_at_any_write_are_told_left_clean_and_gone_on_from(root, whole, disk):
    outputs = disk("size=64m")
    filler = outputs / "filler"
    opened = Path.open

    def open_full(path, mode="r", *more, **options):
        if mode == "wb" and path.name.startswith(name):
            fill(filler)
        return opened(path, mode, *more, **options)

    for name in (*WRITES, "cv.json", "report.html"):
        with mock.patch.object(Path, "open", open_full), pytest.raises(InputError) as caught:
            cross_validate(root, outputs, *SMALL)
        told = str(caught.value)
        assert re.match(rf"{outputs}/tiny-\w+/.*{re.escape(name)} cannot be written: No space left on device", told)
        assert "Free some space" in told
        if name.endswith((".ckpt", ".pt")):
            assert re.search(r"it takes \d+\.\d MB", told)
        assert not [*outputs.rglob("*.part")]
        # a checkpoint may be there of an epoch before
        assert [find_damage(path) for path in outputs.rglob(name)] in ([], [None])
        filler.unlink()
    cross_validate(root, outputs, *SMALL)
    assert predictions(outputs) == predictions(whole)


@pytest.mark.slow  # as the two before, but from the command line
def test_the_terminal_gets_one_paragraph_of_a_full_disk(root, disk, tmp_path):
    outputs = disk("size=100k")
    process = start(overrides(root, outputs, *SMALL, "fold=1"), tmp_path / "log")
    process.join(120)
    told = (tmp_path / "log").read_text()
    assert process.exitcode == 2, told
    assert "best.ckpt cannot be written: No space left on device, and it takes" in told
    assert "Traceback" not in told
    assert not [*outputs.rglob("*.ckpt"), *outputs.rglob("*.part")]


def test_outputs_that_may_only_be_read_are_refused_before_training(root, disk, monkeypatch):
    monkeypatch.setattr(runs, "run_fold", lambda *_: pytest.fail("trained"))
    outputs = disk("ro")
    with pytest.raises(InputError, match=r"cannot be written: Read-only file system\. .*paths\.outputs="):
        cross_validate(root, outputs, *SMALL)


def test_data_and_a_finished_cache_may_be_read_only(root, whole, disk, tmp_path):
    place = disk("size=4m")
    shutil.copytree(root, place / "root")
    shutil.copytree(root.parent / "cache", place / "cache")
    words = (*SMALL, "fold=1", f"paths.cache={place / 'cache'}")
    disk("ro")
    cross_validate(place / "root", tmp_path, *words)
    assert predictions(tmp_path)["fold1"] == predictions(whole)["fold1"]
    with pytest.raises(InputError, match=r"Read-only file system.*paths\.cache="):
        cross_validate(place / "root", tmp_path, *words, "data.seconds=0.4")


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("last.ckpt", flip),
        pytest.param("last.ckpt", lambda path: path.write_bytes(b""), marks=pytest.mark.slow),
        ("best.ckpt", flip),
    ],
    ids=["a bit of last", "all of last", "a bit of best"],
)
def test_a_fold_with_a_damaged_checkpoint_is_trained_anew_and_comes_out_the_same(
    root, whole, tmp_path, capsys, monkeypatch, name, harm
):
    folder = copied(whole, tmp_path, "result.json", "predictions.csv", "checkpoints/weights.pt")
    harm(folder / "fold1" / "checkpoints" / name)
    epochs = []
    monkeypatch.setattr(Classifier, "on_train_epoch_start", lambda self: epochs.append(self.current_epoch))
    cross_validate(root, tmp_path, *SMALL, "fold=1")
    assert f"{name} is damaged" in capsys.readouterr().err
    assert epochs == [0, 1, 2]
    assert predictions(tmp_path) == predictions(whole)


def test_a_best_checkpoint_that_is_gone_is_missed_by_name(root, whole, tmp_path):
    copied(whole, tmp_path, "result.json", "checkpoints/best.ckpt")
    with pytest.raises(InputError, match=r"checkpoints/best\.ckpt is gone.*rerun=true"):
        cross_validate(root, tmp_path, *SMALL, "fold=1")


def test_every_changed_bit_of_an_archive_is_found_or_changes_nothing(tmp_path):
    path, values = tmp_path / "archive", {"weights": torch.arange(300.0), "name": "mean", "steps": [1, 2]}
    save_checkpoint(path, values)
    assert find_damage(path) is None
    content = path.read_bytes()
    found = 0
    folder = content.rindex(b"archive/data/0") - 8  # an attribute in the directory that makes a tensor a folder
    for bit in [8 * folder + 4, *np.random.default_rng(0).choice(8 * len(content), 1000, replace=False)]:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        if find_damage(path) is not None:
            found += 1
            continue
        read = load_checkpoint(path)
        assert torch.equal(read["weights"], values["weights"]), bit
        assert (read["name"], read["steps"]) == ("mean", [1, 2])
    assert found > 500
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        assert find_damage(path) is not None


def test_kept_weights_that_are_damaged_are_refused_by_name(whole, tmp_path):
    path = copied(whole, tmp_path) / "fold1" / "checkpoints" / "weights.pt"
    ModelBundle.load(path)
    flip(path)
    with pytest.raises(InputError, match=r"weights\.pt is not a model .*not as it was written.*rerun=true"):
        ModelBundle.load(path)


def test_figures_changed_by_hand_are_refused_by_name(root, whole, tmp_path):
    folder = copied(whole, tmp_path)
    path = folder / "fold1" / "result.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "accuracy": 1.0}))
    with pytest.raises(InputError, match=r"fold1/result\.json is not a fold's result .*checksum.*Delete it"):
        cross_validate(root, tmp_path, *SMALL)
    # its layout is nobody's business, and an earlier version knew no checksum
    path.write_text(json.dumps(values))
    ours = FoldResult.load(path)
    del values["checksum"]
    path.write_text(json.dumps(values))
    assert FoldResult.load(path) == ours == FoldResult.load(only(whole) / "fold1" / "result.json")


def test_predictions_other_than_the_results_are_refused_by_name(whole, tmp_path):
    folder = copied(whole, tmp_path)
    path = folder / "fold2" / "predictions.csv"
    # a digit that changes no class, so that the accuracy stays
    text = path.read_text().rstrip("\n")
    path.write_text(text[:-1] + ("1" if text[-1] != "1" else "2") + "\n")
    with pytest.raises(InputError, match=r"fold2/predictions\.csv cannot be read \(it is not the file that"):
        load_run(folder)
    result = FoldResult.load(folder / "fold2" / "result.json")
    replace(result, predictions=None).save(folder / "fold2" / "result.json")
    load_run(folder)


def test_a_summary_changed_by_hand_is_not_believed(whole, tmp_path):
    folder = copied(whole, tmp_path)
    values = json.loads((folder / "cv.json").read_text())
    (folder / "cv.json").write_text(json.dumps({**values, "interval": [0.98, 0.99]}))
    ((run,), _) = list_runs(tmp_path)
    assert run.interval == tuple(values["interval"])


def finish(processes, log: Path) -> None:
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * len(processes), log.read_text()[-3000:]


def test_who_wants_a_fold_that_is_being_trained_is_told_by_whom_and_reuses_it(root, tmp_path):
    words = overrides(root, tmp_path / "out", *SMALL, "fold=1", "trainer.max_epochs=12")
    barrier = server().Barrier(2)
    both = [start(words, tmp_path / f"log{k}", barrier=barrier) for k in range(2)]
    finish(both, tmp_path / "log0")
    logs = [(tmp_path / f"log{k}").read_text() for k in range(2)]
    (waited,) = (k for k in range(2) if "waiting for it" in logs[k] and "is training fold1 of this run" in logs[k])
    assert re.search(rf"Process {both[1 - waited].pid} on \S+, since .* is training fold1", logs[waited])
    assert "its result is reused" in logs[waited]
    assert "reused" not in logs[1 - waited]


@pytest.mark.slow
def test_processes_on_a_fresh_collection_build_one_store_and_tear_nothing(root, whole, tmp_path):
    """The same and other runs, and single folds of them."""
    asked = ["seed=0", "fold=1", "seed=1", "seed=0", "fold=2", "seed=1", "fold=3", "fold=1"]
    words = [*overrides(root, tmp_path / "out", *SMALL), f"paths.cache={tmp_path / 'cache'}"]
    barrier = server().Barrier(len(asked))
    finish([start([*words, word], tmp_path / "log", barrier=barrier) for word in asked], tmp_path / "log")
    assert len((tmp_path / "builds").read_text().splitlines()) == 1
    assert [path.suffix for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [""]
    assert not [*tmp_path.rglob("*.part")]
    folders = sorted((tmp_path / "out").glob("tiny-*"))
    assert len(folders) == 2
    for folder in folders:
        assert [result.fold for result in load_folds(folder)] == [1, 2, 3]
        load_run(folder)
        for path in folder.rglob("*.json"):
            loads_with_checksum(path.read_text(), require_checksum=True)
    ours = tmp_path / "out" / only(whole).name
    for fold in (1, 2, 3):
        name = f"fold{fold}/predictions.csv"
        assert (ours / name).read_bytes() == (only(whole) / name).read_bytes()
    assert "Traceback" not in (tmp_path / "log").read_text()
