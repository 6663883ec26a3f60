"""Complete runs on a tiny collection of tones and noises, on the CPU."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
import torch
from helpers.tiny import LEAKY, ROOT, cross_validate, only, overrides, render, train
from helpers.wandb_log import wandb_records

from soundfold.data import store
from soundfold.errors import InputError
from soundfold.evaluation.results import FoldResult, load_folds
from soundfold.experiment import computed, device
from soundfold.experiment import run as runs
from soundfold.experiment.callbacks.metrics_csv import MetricsCsv
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.features.augment_params import DRAWS
from soundfold.models.classifier import Classifier


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("tiny") / "root")


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("finished")
    cross_validate(root, outputs)
    return outputs


def test_files_of_a_run(finished):
    folder = only(finished)
    for k in (1, 2, 3):
        names = {str(p.relative_to(folder / f"fold{k}")) for p in (folder / f"fold{k}").rglob("*") if p.is_file()}
        expected = {"config.yaml", "result.json", "predictions.csv", "metrics.csv"}
        assert names == expected | {"checkpoints/weights.pt", "checkpoints/weights.md"}
        result = json.loads((folder / f"fold{k}" / "result.json").read_text())
        assert result["audit"]["same_source_and_class"] == 0
        assert result["protocol"] == "benchmark"
        assert result["environment"]["versions"]["torch"] == torch.__version__.split("+")[0]
        with (folder / f"fold{k}" / "metrics.csv").open() as stream:
            assert [row["epoch"] for row in csv.DictReader(stream)] == ["0", "1"]
    total = json.loads((folder / "cv.json").read_text())
    assert total["n"] == 30
    scored = [line for k in (1, 2, 3) for line in (folder / f"fold{k}/predictions.csv").read_text().splitlines()[1:]]
    assert len({line.split(",")[0] for line in scored}) == 30
    correct = sum(line.split(",")[3] == line.split(",")[4] for line in scored)
    assert total["accuracy"] == pytest.approx(correct / 30)
    page = (folder / "report.html").read_text()
    assert f"{100 * total['accuracy']:.2f} %" in page
    assert "soundfold report" in page  # the plain page has the command for the full one
    assert not (folder / "figures").exists()


def test_the_same_command_reuses_finished_folds(root, finished, monkeypatch, capsys):
    def refuse(*_args):
        raise AssertionError("trained again")

    monkeypatch.setattr(runs, "run_fold", refuse)
    monkeypatch.setattr(store, "decode", refuse)
    assert cross_validate(root, finished) is not None
    assert "rerun=true" in capsys.readouterr().err


def test_a_copied_fold_folder_does_not_prevent_the_summary(root, finished, tmp_path, capsys):
    folder = tmp_path / only(finished).name
    for name in ("fold1", "fold2", "fold3"):
        shutil.copytree(only(finished) / name, folder / name, ignore=shutil.ignore_patterns("checkpoints"))
    shutil.copytree(folder / "fold1", folder / "fold1.bak")
    cross_validate(root, tmp_path)
    assert "mean ± sd" in capsys.readouterr().out
    assert json.loads((folder / "cv.json").read_text())["n"] == 30


def test_a_fold_without_weights_is_reused_with_a_warning(root, tmp_path, monkeypatch, capsys):
    cross_validate(root, tmp_path, "fold=1", "trainer.max_epochs=1", "checkpoints.keep=none")
    monkeypatch.setattr(runs, "run_fold", None)
    cross_validate(root, tmp_path, "fold=1", "trainer.max_epochs=1", "checkpoints.keep=none")
    assert "weights.pt" not in capsys.readouterr().err
    cross_validate(root, tmp_path, "fold=1", "trainer.max_epochs=1", "checkpoints.keep=weights")
    warning = " ".join(capsys.readouterr().err.split())
    assert "It has no weights.pt: it was trained with checkpoints.keep=none" in warning


def test_a_result_of_other_code_is_reused_with_a_warning(root, finished, tmp_path, capsys):
    folder = tmp_path / only(finished).name
    for k in (1, 2, 3):
        (folder / f"fold{k}").mkdir(parents=True)
        for name in ("result.json", "config.yaml", "predictions.csv"):
            shutil.copy(only(finished) / f"fold{k}" / name, folder / f"fold{k}" / name)
        result = FoldResult.load(folder / f"fold{k}" / "result.json")
        result.environment["versions"]["torch"] = "0.1"
        result.save(folder / f"fold{k}" / "result.json")
    cross_validate(root, tmp_path)
    assert "made with other code: torch 0.1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fold_per_job_gives_the_summary_of_one_job(root, finished, tmp_path, capsys):
    for count, k in enumerate((3, 1, 2), start=1):
        cross_validate(root, tmp_path, f"fold={k}", "report.page=plain")
        page, out = (only(tmp_path) / "report.html").read_text(), capsys.readouterr().out
        # the report of an incomplete run: marked, without a deviation of one fold, and without a summary file
        assert (f"{count} of 3 folds" in page) == (f"{count} of 3 folds" in out) == (count < 3)
        assert ("mean ± sd" in page) == ("mean ± sd" in out) == (count > 1)
        assert (only(tmp_path) / "cv.json").exists() == (count == 3)
    assert only(tmp_path).name == only(finished).name
    single, jobs = (json.loads((only(o) / "cv.json").read_text()) for o in (finished, tmp_path))
    for total in (single, jobs):
        del total["seconds"], total["checksum"]
        for fold in total["folds"]:
            fold.pop("seconds")
            fold.pop("command")
    assert single == jobs
    for k in (1, 2, 3):
        first, second = (
            torch.load(only(o) / f"fold{k}/checkpoints/weights.pt", weights_only=True) for o in (finished, tmp_path)
        )
        assert all(torch.equal(first["network"][name], second["network"][name]) for name in first["network"])


EPOCH_LOG = "callbacks.log._target_=helpers.user_callbacks.EpochLog"
BALANCED = ("data.sampler=balanced", "model.class_weights=balanced")
AVERAGED = (
    "average=ema",
    "average.decay=0.8",
    "average.start=0.3",
    "model.stochastic_depth=0.5",
    "crops.seconds=0.3",
    "crops.trim=true",
    "crops.test=3",
    "augment=strong",
)


@pytest.mark.slow
@pytest.mark.parametrize("options", [("augment=strong", "split=nested"), LEAKY])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(root, tmp_path, options):
    long = ("fold=2", "trainer.max_epochs=8", *options)
    cross_validate(root, tmp_path / "whole", *long)
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *overrides(root, tmp_path / "killed", *long)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            rows = [p.read_text().count("\n") for p in (tmp_path / "killed").glob("tiny-*/fold2/metrics.csv")]
            if rows and rows[0] > 3:
                break
            time.sleep(0.01)
        assert process.poll() is None, process.stderr.read().decode()
        os.kill(process.pid, signal.SIGKILL)
    folder = only(tmp_path / "killed")
    assert (folder / "fold2/checkpoints/last.ckpt").is_file()
    assert not (folder / "fold2/result.json").exists()
    cross_validate(root, tmp_path / "killed", *long)
    for name in ("predictions.csv", "metrics.csv"):
        reference = (only(tmp_path / "whole") / "fold2" / name).read_text()
        assert (folder / "fold2" / name).read_text() == reference


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        pytest.param((*LEAKY, "trainer.max_epochs=5"), (1, 2), marks=pytest.mark.slow),
        pytest.param((*LEAKY, "trainer.max_epochs=5", "augment.copies.after=3"), (2,), marks=pytest.mark.slow),
        (("trainer.max_epochs=-1", "trainer.max_steps=10"), (1,)),
        (("split=nested", "trainer.max_epochs=-1", "trainer.max_steps=5"), (2,)),
        (("split=nested", "trainer.max_epochs=5", "selection.patience=2", "selection.monitor=val/f1"), (2,)),
        pytest.param((*AVERAGED, *BALANCED, "split=nested", "trainer.max_epochs=4"), (2,), marks=pytest.mark.slow),
        pytest.param(
            ("split=nested", "trainer.max_epochs=5", "trainer.check_val_every_n_epoch=2"), (3,), marks=pytest.mark.slow
        ),
        pytest.param(
            ("split=nested", "trainer.val_check_interval=1", "trainer.accumulate_grad_batches=2", EPOCH_LOG),
            (1,),
            marks=pytest.mark.slow,
        ),
    ],
    ids=[
        "copies",
        "copies added later",
        "steps",
        "nested, ends within an epoch",
        "nested",
        "averaged",
        "rarely validated",
        "often validated",
    ],
)
def test_a_run_stopped_in_any_epoch_equals_an_uninterrupted_one(root, tmp_path, monkeypatch, options, epochs):
    options = ("fold=2", *options)
    cross_validate(root, tmp_path / "whole", *options)
    train = Classifier.training_step
    for epoch in epochs:

        def stop(self, *batch, epoch=epoch):
            if self.current_epoch == epoch:
                raise RuntimeError("stopped")
            return train(self, *batch)

        with monkeypatch.context() as patch:
            patch.setattr(Classifier, "training_step", stop)
            with pytest.raises(RuntimeError, match="stopped"):
                cross_validate(root, tmp_path / f"stopped{epoch}", *options)
        cross_validate(root, tmp_path / f"stopped{epoch}", *options)
        for name in ("predictions.csv", "metrics.csv"):
            outputs = (tmp_path / f"stopped{epoch}", tmp_path / "whole")
            resumed, reference = ((only(path) / "fold2" / name).read_text() for path in outputs)
            assert resumed == reference, f"{name}, stopped in epoch {epoch}"


def test_a_fold_is_resumed_with_its_precision_and_draws_and_no_other_fold_is_added(root, tmp_path, monkeypatch, capsys):
    options = ("fold=1", "trainer.precision=auto")
    train, precisions = Classifier.training_step, []

    def stop(self, *batch):
        precisions.append(self.trainer.precision)
        if self.current_epoch == 1:
            raise RuntimeError("stopped")
        return train(self, *batch)

    monkeypatch.setattr(device, "_cpu_bfloat16", lambda: [True])
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            cross_validate(root, tmp_path, *options)
    assert set(precisions) == {"bf16-mixed"}
    with monkeypatch.context() as patch:
        patch.setattr(computed, "DRAWS", DRAWS + 1)
        with pytest.raises(InputError, match=f"interrupted when the version of the random draws .* was {DRAWS}, and "):
            cross_validate(root, tmp_path, *options)
    monkeypatch.setattr(device, "_cpu_bfloat16", lambda: [False])
    capsys.readouterr()
    cross_validate(root, tmp_path, *options)
    message = "Fold 1 was begun with trainer.precision=bf16-mixed, and goes on with it: slowly, because this hardware"
    assert message in capsys.readouterr().err
    (result,) = load_folds(only(tmp_path))
    assert result.computed == {"precision": "bf16-mixed", "draws": DRAWS}
    assert "trainer:\n" in (config := (only(tmp_path) / "fold1/config.yaml").read_text())
    assert "precision: auto" in config
    monkeypatch.setattr(runs, "run_fold", lambda *_: pytest.fail("trained before it was refused"))
    with pytest.raises(InputError, match="bf16-mixed in fold 1, 32-true in fold 2"):
        cross_validate(root, tmp_path, "fold=2", "trainer.precision=auto")
    monkeypatch.setattr(device, "_cpu_bfloat16", lambda: [True])
    monkeypatch.setattr(computed, "DRAWS", DRAWS + 1)
    with pytest.raises(InputError, match=f"draws of augmentation is {DRAWS} in fold 1, {DRAWS + 1} in fold 2"):
        cross_validate(root, tmp_path, "fold=2", "trainer.precision=auto")


@pytest.mark.parametrize("tail", ["1", "12,1", "\0\0\0", None])
def test_a_resumed_run_restores_a_torn_or_missing_metrics_file(tail, tmp_path):
    path = tmp_path / "metrics.csv"
    content = "epoch,step,lr,train/loss\n" + "".join(f"{epoch},{epoch},0.1,0.5\n" for epoch in range(12))
    if tail is not None:
        path.write_text(content + tail)
    metrics = MetricsCsv(path)
    rows = [{"epoch": epoch, "step": epoch, "lr": "0.1", "train/loss": "0.5"} for epoch in range(12)]
    metrics.load_state_dict({"rows": rows})
    metrics.on_fit_start(SimpleNamespace(loggers=[], is_global_zero=True), None)
    assert path.read_text() == content


@pytest.mark.slow
def test_a_leaky_protocol_marks_every_file(root, tmp_path, capsys):
    cross_validate(root, tmp_path, *LEAKY, "trainer.max_epochs=4")
    folder = only(tmp_path)
    assert folder.name.startswith("tiny-leaky-")
    assert "leaky" in capsys.readouterr().out.lower()
    assert json.loads((folder / "cv.json").read_text())["leaky"] is True
    for repeat in (1, 2, 3):
        result = json.loads((folder / f"fold{repeat}" / "result.json").read_text())
        assert result["leaky"] is True
        audit = result["audit"]
        assert (audit["train"], audit["val"], audit["test"]) == (18, 8, 4)
        assert audit["same_clip"] == 4
        assert audit["val_copies"] > 0
        with (folder / f"fold{repeat}" / "metrics.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert {row["leaky"] for row in rows} == {"true"}
        # two epochs on 18 clips, then on their copies
        assert [int(row["step"]) for row in rows[:2]] == [3, 6]
        assert int(rows[2]["step"]) - 6 == int(rows[3]["step"]) - int(rows[2]["step"]) == -(-audit["images"] // 8)
        assert result["val_accuracy"] == pytest.approx(float(rows[-1]["val/accuracy"]), rel=1e-4)


def test_a_leak_free_run_has_no_copies_of_test_clips(root, tmp_path):
    cross_validate(root, tmp_path, "augment=seed_copies", "augment.copies.after=1", "schedule=constant", "fold=1")
    (result,) = load_folds(only(tmp_path))
    assert not result.leaky
    assert result.audit["images"] > result.audit["train"] == 20
    assert (result.audit["same_clip"], result.audit["val_copies"]) == (0, 0)


STOP_AFTER = "callbacks.stop._target_=helpers.user_callbacks.StopAfter"
STOPS_EARLY = ("split=nested", "selection.monitor=val/accuracy", "selection.patience=1")


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        (["split=benchmark"], 2),
        pytest.param(["split=nested"], 2, marks=pytest.mark.slow),
        ([*STOPS_EARLY, "trainer.max_epochs=9"], 2),
        pytest.param([*LEAKY, "trainer.max_epochs=3"], 3, marks=pytest.mark.slow),
        pytest.param(["trainer.max_epochs=-1", "trainer.max_steps=6"], 2, marks=pytest.mark.slow),
        (["trainer.max_epochs=-1", "trainer.max_steps=7"], 3),
        ([*AVERAGED], 2),
        pytest.param([STOP_AFTER, "callbacks.stop.epochs=2", "trainer.max_epochs=9"], 2, marks=pytest.mark.slow),
    ],
    ids=["benchmark", "nested", "stopped early", "leaky", "steps", "steps within an epoch", "averaged", "callback"],
)
def test_a_run_killed_after_its_last_epoch_is_scored_without_training(root, tmp_path, monkeypatch, options, epochs):
    options = ("fold=1", "checkpoints.keep=all", *options)
    cross_validate(root, tmp_path, *options)
    fold = only(tmp_path) / "fold1"
    before = {name: (fold / name).read_bytes() for name in ("predictions.csv", "metrics.csv")}
    (result,) = load_folds(only(tmp_path))
    assert result.epochs == epochs
    (fold / "result.json").unlink()
    monkeypatch.setattr(Classifier, "training_step", lambda *_: pytest.fail("trained again"))
    cross_validate(root, tmp_path, *options)
    assert {name: (fold / name).read_bytes() for name in before} == before
    (again,) = load_folds(only(tmp_path))
    assert replace(again, seconds=result.seconds) == result


@pytest.mark.slow
def test_nested_can_score_the_last_epoch(root, tmp_path):
    options = ("selection.choose=last", "selection.monitor=val/accuracy", "trainer.check_val_every_n_epoch=3")
    cross_validate(root, tmp_path, "split=nested", "fold=1", "checkpoints.keep=all", "trainer.max_epochs=4", *options)
    folder = only(tmp_path) / "fold1"
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    saved = torch.load(folder / "checkpoints/weights.pt", weights_only=True)["network"]
    assert all(torch.equal(last[f"network.{name}"], saved[name]) for name in saved)
    assert not (folder / "checkpoints/best.ckpt").exists()
    (result,) = load_folds(only(tmp_path))
    assert result.objective == result.val_accuracy
    assert result.epochs == 4


def test_choosing_the_best_epoch_requires_a_validated_one(root, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "run_fold", lambda *_: pytest.fail("trained"))
    for options in (("trainer.check_val_every_n_epoch=3",), ("trainer.max_epochs=-1", "trainer.max_steps=1")):
        with pytest.raises(InputError, match=r"ends after \d+ steps, before its first validation.*choose=last"):
            cross_validate(root, tmp_path, "split=nested", *options)


def test_nested_chooses_and_saves_the_averaged_weights(root, tmp_path):
    options = ("split=nested", "fold=1", "checkpoints.keep=all", "selection.monitor=val/accuracy")
    cross_validate(root, tmp_path, *AVERAGED, *options, "trainer.max_epochs=4")
    folder = only(tmp_path) / "fold1"
    (result,) = load_folds(only(tmp_path))
    with (folder / "metrics.csv").open() as stream:
        best = max(float(row["val/accuracy"]) for row in csv.DictReader(stream))
    assert result.objective == result.val_accuracy == pytest.approx(best, rel=1e-4)
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    saved = torch.load(folder / "checkpoints/weights.pt", weights_only=True)["network"]
    assert not torch.equal(last["state_dict"]["network.conv1.weight"], saved["conv1.weight"])


def test_nested_scores_the_best_epoch_of_the_validation_fold(root, tmp_path):
    cross_validate(root, tmp_path, "split=nested", "fold=1", "checkpoints.keep=all")
    folder = only(tmp_path) / "fold1"
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    saved = torch.load(folder / "checkpoints/weights.pt", weights_only=True)["network"]
    assert all(torch.equal(best[f"network.{name}"], saved[name]) for name in saved)
    result = load_folds(only(tmp_path))[0]
    with (folder / "metrics.csv").open() as stream:
        losses = [float(row["val/loss"]) for row in csv.DictReader(stream)]
    assert result.objective == pytest.approx(-min(losses), rel=1e-4)
    assert (result.audit["train"], result.audit["val"], result.audit["test"]) == (10, 10, 10)


def test_runs_on_other_clips_have_another_folder(root, tmp_path):
    other = render(tmp_path / "other", seed=1)
    for collection in (root, other):
        cross_validate(
            collection, tmp_path / "outputs", "fold=1", "trainer.max_epochs=1", f"paths.cache={tmp_path}/cache"
        )
    assert len(list((tmp_path / "outputs").glob("tiny-*"))) == 2


def test_the_epoch_of_highest_accuracy_is_chosen(root, tmp_path, monkeypatch, capsys):
    values = iter((0.2, 0.9, 0.4))
    log = Classifier._log_scores
    monkeypatch.setattr(
        Classifier,
        "_log_scores",
        lambda self, stage, scores: log(
            self, stage, {**scores, "accuracy": next(values, 0.9)} if stage == "val" else scores
        ),
    )
    options = ("split=nested", "fold=1", "selection.monitor=val/accuracy", "trainer.max_epochs=3")
    assert cross_validate(root, tmp_path, *options) == pytest.approx(0.9)
    (result,) = load_folds(only(tmp_path))
    assert (result.chosen_epoch, result.epochs) == (2, 3)
    out, err = capsys.readouterr()
    assert "Fold 1/3: best epoch 2, validation accuracy 90.00 %, accuracy " in err
    header, row = (re.findall(r"[^┃│]+", line) for line in out.splitlines() if re.match("┃|│ +1 ", line))
    cells = dict(zip(map(str.strip, header), map(str.strip, row), strict=True))
    assert (cells["validation %"], cells["best epoch"]) == ("90.00", "2")
    assert f"{only(tmp_path).name}: 1 of 3 folds, split=nested" in " ".join(out.split())


@pytest.mark.slow
def test_a_moved_nested_fold_still_has_its_best_epoch(root, tmp_path):
    options = ("split=nested", "fold=1", "checkpoints.keep=all", "trainer.max_epochs=3")
    cross_validate(root, tmp_path / "original", *options)
    original = only(tmp_path / "original")
    copy = shutil.copytree(original, tmp_path / "copy" / original.name)
    (copy / "fold1" / "result.json").unlink()
    cross_validate(root, tmp_path / "copy", *options)
    expected, result = (load_folds(folder)[0] for folder in (original, copy))
    assert (result.objective, result.accuracy) == (expected.objective, expected.accuracy)


@pytest.mark.slow
def test_a_rerun_deletes_the_summary_of_its_old_results(root, tmp_path, monkeypatch):
    cross_validate(root, tmp_path, "trainer.max_epochs=1")
    monkeypatch.setattr(runs, "run_fold", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cross_validate(root, tmp_path, "trainer.max_epochs=1", "rerun=true")
    assert not {"cv.json", "report.html"} & {path.name for path in only(tmp_path).iterdir()}


def test_fold_none_trains_on_every_clip_and_has_no_score(root, tmp_path, capsys):
    assert cross_validate(root, tmp_path, "fold=none", "trainer.max_epochs=1") is None
    folder = only(tmp_path) / "foldnone"
    assert (folder / "checkpoints/weights.pt").is_file()
    assert json.loads((folder / "result.json").read_text())["accuracy"] is None
    assert not (folder / "predictions.csv").exists()
    assert "no score" in capsys.readouterr().err


def test_debug_is_never_stored_as_finished(root, tmp_path):
    cross_validate(root, tmp_path, "experiment=debug", "fold=1")
    assert not list(tmp_path.rglob("result.json"))


def test_saved_weights_start_another_run(root, finished, tmp_path):
    weights = only(finished) / "fold1/checkpoints/weights.pt"
    cross_validate(root, tmp_path, "fold=1", f"model.weights={weights}", "trainer.max_epochs=1")
    assert only(tmp_path).name != only(finished).name
    (result,) = load_folds(only(tmp_path))
    assert result.audit["seen_before"] == 0


def test_weights_trained_on_test_clips_are_refused_or_counted(root, finished, tmp_path, monkeypatch):
    weights = f"model.weights={only(finished) / 'fold1/checkpoints/weights.pt'}"
    with monkeypatch.context() as patch:
        patch.setattr(runs, "run_fold", lambda *_: pytest.fail("trained"))
        for fold in ("fold=2", "fold=all"):
            with pytest.raises(InputError, match="fold 2: 10 of 10 test clips, or clips of their sources"):
                cross_validate(root, tmp_path, fold, weights)
        # recognized by source and class if the samples differ
        with pytest.raises(InputError, match="fold 2: 10 of 10 test clips"):
            cross_validate(root, tmp_path, "fold=2", weights, "data.seconds=0.4")
    cross_validate(root, tmp_path, weights, "trainer.max_epochs=1", "split=random_clips", "allow_leakage=true")
    results = load_folds(only(tmp_path))
    assert sum(r.audit["seen_before"] for r in results) > 0
    bundle = ModelBundle.load(only(tmp_path) / "fold1/checkpoints/weights.pt")
    assert len(bundle.seen.hashes) > results[0].audit["train"] + results[0].audit["val"]


def test_a_rebuilt_model_reproduces_the_logits_of_the_run(root, finished):
    folder = only(finished) / "fold1"
    front_end, network = ModelBundle.load(folder / "checkpoints/weights.pt").rebuild()
    with (folder / "predictions.csv").open() as stream:
        for row in list(csv.DictReader(stream))[:3]:
            wave = soundfile.read(root / "audio" / row["filename"], dtype="int16")[0]
            logits = network(front_end(torch.from_numpy(wave)[None]))[0]
            assert logits.tolist() == pytest.approx([float(row["logit_noise"]), float(row["logit_tone"])], abs=1e-4)


def test_a_file_that_is_not_a_model_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    for content in (b"no", None):
        path.write_bytes(content) if content else torch.save({"network": {}}, path)
        with pytest.raises(InputError, match=r"weights\.pt is not a trained model"):
            ModelBundle.load(path)


@pytest.mark.slow
def test_the_report_script_summarizes_a_run_from_its_folds(finished, tmp_path):
    folder = shutil.copytree(only(finished), tmp_path / only(finished).name)
    for name in ("cv.json", "report.html"):
        (folder / name).unlink()
    command = [sys.executable, str(ROOT / "scripts" / "report.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "mean ± sd" in done.stdout
    assert (folder / "cv.json").read_text() == (only(finished) / "cv.json").read_text()
    # the page lists non-default values without Hydra's search path; test_sweep.py has it within Hydra's jobs
    assert re.search(r"trainer\.max_epochs</th><td>50</td><td>2</td>", (folder / "report.html").read_text())


@pytest.mark.slow  # as test_wandb_runs.py, but from the command line
def test_wandb_offline_runs_are_closed_and_grouped(root, tmp_path):
    done = train(*overrides(root, tmp_path, "logger=wandb", "trainer.max_epochs=2"))
    assert done.returncode == 0, done.stderr
    folder = only(tmp_path)
    kinds = {}
    for path in sorted(folder.rglob("run-*.wandb")):
        records = wandb_records(path)
        (run,) = [r.run for r in records if r.HasField("run")]
        assert run.run_group == folder.name
        kinds[run.display_name] = run.job_type
        assert [r.exit.exit_code for r in records if r.HasField("exit")] == [0]
        history = [i.nested_key for r in records if r.HasField("history") for i in r.history.item]
        if run.job_type == "fold":
            assert ["train/loss"] in history
        else:
            assert run.run_id == f"cv-{folder.name[5:]}"
            summary = {(i.key or i.nested_key[0]): i.value_json for r in records for i in r.summary.update}
            total = json.loads((folder / "cv.json").read_text())
            assert float(summary["cv/accuracy"]) == pytest.approx(total["accuracy"])
    assert kinds == {**{f"{folder.name} fold {k}": "fold" for k in (1, 2, 3)}, f"{folder.name} cv": "cv"}


def test_a_terminated_run_exits_with_143(root, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "train.py")]
    command += overrides(root, tmp_path, "fold=1", "trainer.max_epochs=500")
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("tiny-*/fold1/metrics.csv")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.terminate()
        assert process.wait(60) == 143
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("option", ["model.channels_last=true", "trainer.precision=bf16-mixed", "optim=sgd"])
def test_speed_and_optimizer_options_train(root, tmp_path, option):
    assert cross_validate(root, tmp_path, "fold=1", option) is not None


@pytest.mark.slow
def test_a_compiled_network_trains_to_a_similar_loss(root, tmp_path):
    # without a smaller last batch, which is compiled separately
    for mode in ("default", "none"):
        cross_validate(root, tmp_path / mode, "fold=1", "data.batch_size=10", f"model.compile={mode}")
    compiled, eager = (load_folds(only(tmp_path / mode))[0] for mode in ("default", "none"))
    assert compiled.loss == pytest.approx(eager.loss, rel=0.05)


def test_an_unwritable_outputs_folder_names_the_remedy(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"paths\.outputs"):
        cross_validate(root, tmp_path / "file", "fold=1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["fold=7"], "fold=7 has no clips"),
        (["features.f_max=5000"], "features.f_max=5000"),
        (["model.weights=none.pt"], "model.weights=none.pt cannot be read"),
        (["trainer.accelerator=mps"], "accelerator=mps is not available"),
        (["features.window=0"], "features.window=0"),
        (["data.root=/nowhere"], "no table of clips"),
    ],
)
def test_bad_input_is_refused_before_any_work(root, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        cross_validate(root, tmp_path, *options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options", [[], ["split=random_clips", "split.test=0.2", "split.val=0.2", "allow_leakage=true"]]
)
def test_a_table_of_one_fold_is_refused_before_training(tmp_path, options):
    single = render(tmp_path / "single")
    table = single / "meta" / "esc50.csv"
    table.write_text(re.sub(r"wav,\d", "wav,4", table.read_text()))
    with pytest.raises(InputError, match="has fold 4 only.*fold=none"):
        cross_validate(single, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()
    cross_validate(single, tmp_path / "out", "fold=none", "trainer.max_epochs=1")


def test_bad_input_exits_with_2_and_one_paragraph(root, tmp_path):
    done = train(*overrides(root, tmp_path, "fold=7"))
    assert done.returncode == 2
    assert "Error executing job" not in done.stderr
    assert "error: fold=7 has no clips; the table's folds are 1, 2, 3." in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_rerun_does_not_resume_from_old_checkpoints(root, tmp_path, monkeypatch):
    options = ("fold=1", "checkpoints.keep=all")
    cross_validate(root, tmp_path, *options)
    fold = only(tmp_path) / "fold1"
    assert (fold / "checkpoints/last.ckpt").is_file()

    def fail(*_args):
        raise RuntimeError("interrupted")

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", fail)
        with pytest.raises(RuntimeError, match="interrupted"):
            cross_validate(root, tmp_path, *options, "rerun=true")
    assert not list((fold / "checkpoints").glob("*"))
    assert not (fold / "result.json").exists()


def test_a_leaking_table_is_refused_before_training(root, tmp_path):
    leaking = render(tmp_path / "leaking")
    table = leaking / "meta" / "esc50.csv"
    # clips 1 and 2 are in folds 2 and 3
    table.write_text(table.read_text().replace("2.wav,3,0,noise,2", "2.wav,3,0,noise,1"))
    with pytest.raises(InputError, match="fold 2: 1 of 10 test clips"):
        cross_validate(leaking, tmp_path / "out", f"paths.cache={tmp_path}/cache")
    assert not list((tmp_path / "out").rglob("result.json"))
