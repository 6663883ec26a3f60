"""What a user sees while folds train, with and without a terminal."""

import io
import re
from types import SimpleNamespace

import pytest
from helpers.tiny import cross_validate, render

from soundfold.experiment.callbacks import progress
from soundfold.experiment.callbacks.progress import FoldProgress, duration
from soundfold.io.console import Terminal


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return render(tmp_path_factory.mktemp("clips") / "tiny")


def output(root, tmp_path, monkeypatch, *options: str, terminal: bool) -> str:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "console", Terminal(file=stream, force_terminal=terminal, width=120))
    monkeypatch.setattr(FoldProgress, "SECONDS_BETWEEN_DRAWINGS", 0)
    cross_validate(root, tmp_path, "fold=2", "trainer.enable_progress_bar=true", "trainer.max_epochs=3", *options)
    return stream.getvalue()


def test_lines_without_a_terminal_have_fold_epoch_and_time_left(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(FoldProgress, "SECONDS_BETWEEN_LINES", 0)
    lines = output(root, tmp_path, monkeypatch, terminal=False).splitlines()
    assert lines[0].startswith("fold 2/3 - epoch 1/3 - ")
    assert all(re.match(r"fold 2/3 - epoch [123]/3 - \d+ s left", line) for line in lines)
    assert re.search(r"epoch 3/3 - 0 s left  train/loss \d\.\d{3}  train/accuracy [01]\.\d{3}$", lines[-1])
    err = capsys.readouterr().err
    assert re.search(r"Fold 2/3: accuracy \d+\.\d\d %, epoch 3, 9 steps, \d+ s\.", err)
    assert "v_num" not in err + "".join(lines)


def test_no_line_is_printed_before_it_is_due(root, tmp_path, monkeypatch):
    assert output(root, tmp_path, monkeypatch, terminal=False) == ""


def test_a_line_within_an_epoch_has_the_metrics_of_the_last_one(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(progress, "console", Terminal(file=stream, force_terminal=False, width=120))
    callback, model = FoldProgress("fold 1/5"), SimpleNamespace()
    trainer = SimpleNamespace(global_step=0, estimated_stepping_batches=10, current_epoch=0, max_epochs=2)
    trainer.progress_bar_metrics = {"train/loss": 1.5}
    callback.on_train_start(trainer, model)
    callback.on_train_epoch_end(trainer, model)  # not due
    callback.SECONDS_BETWEEN_LINES = 0
    callback.on_train_batch_end(trainer, model, None, None, 0)
    assert stream.getvalue().strip().endswith("left  train/loss 1.500")


def test_a_terminal_has_a_bar_that_is_removed_at_the_end(root, tmp_path, monkeypatch):
    text = output(root, tmp_path, monkeypatch, "split=nested", terminal=True)
    assert "fold 2/3 - epoch 3/3 - 0 s left" in text
    assert "val/accuracy" in text
    assert "\x1b[2K" in text[-20:]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (90, "2 min"), (5000, "83 min"), (9000, "2.5 h")]
)
def test_durations_have_the_largest_unit(seconds, text):
    assert duration(seconds) == text
