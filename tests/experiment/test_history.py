"""The rows that loggers get beside the metrics of epochs."""

from types import SimpleNamespace

import pytest
import torch
from helpers.recording_logger import LoggerWithoutFolder

from soundfold.experiment.callbacks.history import History
from soundfold.experiment.callbacks.metrics_csv import MetricsCsv


class Trainer(SimpleNamespace):
    """What the callback reads of a trainer."""

    def __init__(self, **options):
        optimizer = SimpleNamespace(param_groups=[{"lr": 9.0}, {"lr": 0.1}])
        values = {"global_step": 0, "current_epoch": 0, "log_every_n_steps": 1, "world_size": 1}
        values |= {"check_val_every_n_epoch": 1}
        strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor)
        values |= {"sanity_checking": False, "optimizers": [optimizer], "strategy": strategy}
        super().__init__(**values | {"loggers": [LoggerWithoutFolder()]} | options)

    def names(self):
        return [(step, *sorted(name.partition("/")[2] for name in row if "/" in name)) for step, row in self.rows]

    @property
    def rows(self):
        return self.loggers[0].rows


def train(history, trainer, losses, micro_batches=1, validate_after=()):
    """Run one epoch of steps with these losses and gradient norms ten times as large."""
    model = SimpleNamespace(gradient_norm=torch.zeros(()), device=torch.device("cpu"))
    # Lightning restores the step of a resumed fold between these two
    resumed_at, trainer.global_step = trainer.global_step, 0
    history.on_fit_start(trainer, model)
    assert model.measure_gradient
    trainer.global_step = resumed_at
    history.on_train_start(trainer, model)
    history.on_train_epoch_start(trainer, model)
    for number, loss in enumerate(losses):
        trainer.optimizers[0].param_groups[-1]["lr"] = 0.1 + trainer.global_step
        for part in range(micro_batches):
            history.on_train_batch_start(trainer, model)
            if part == micro_batches - 1:
                trainer.global_step += 1
                # in place, as a replayed graph writes it
                model.gradient_norm.fill_(10 * loss)
                trainer.optimizers[0].param_groups[-1]["lr"] = 77.0
            outputs = {"loss": torch.tensor(loss / micro_batches)}
            history.on_train_batch_end(trainer, model, outputs, (None, None, range(4)), number)
        if number in validate_after:
            history.on_validation_start(trainer, model)
            trainer.loggers[0].log_metrics({"val/loss": 1.0}, trainer.global_step - 1)
            history.on_validation_end(trainer, model)
    history.on_train_epoch_end(trainer, model)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_values_are_those_of_the_step_and_are_sent_at_the_end_of_the_epoch(micro_batches):
    history, trainer = History(MetricsCsv(None)), Trainer()
    train(history, trainer, [3.0, 2.0], micro_batches)
    (first, second, epoch) = trainer.rows
    assert first == (0, {"epoch": 0, "train/loss_step": 3.0, "train/lr": 0.1, "train/grad_norm": 30.0})
    assert second[1]["train/grad_norm"] == 20
    assert second[1]["train/lr"] == 1.1
    assert (epoch[0], epoch[1]["epoch"]) == (1, 0)
    values = epoch[1]
    assert values["time/clips_per_second"] == pytest.approx(8 * micro_batches / values["time/epoch_seconds"])


@pytest.mark.parametrize(("every", "expected"), [(0, []), (1, [0, 1, 2, 3, 4]), (2, [1, 3])])
def test_steps_are_logged_at_the_interval_of_the_trainer(every, expected):
    history, trainer = History(MetricsCsv(None)), Trainer(log_every_n_steps=every)
    train(history, trainer, [1.0] * 5)
    assert [step for step, row in trainer.rows if "train/lr" in row] == expected


def test_rows_are_in_the_order_of_their_steps_and_long_epochs_are_sent_in_parts(monkeypatch):
    monkeypatch.setattr(History, "ROWS_BETWEEN", 2)
    history, trainer = History(MetricsCsv(None)), Trainer()
    train(history, trainer, [1.0] * 5, validate_after=(2, 4))
    step, epoch = ("grad_norm", "loss_step", "lr"), ("clips_per_second", "epoch_seconds")
    expected = [(0, *step), (1, *step), (2, "loss"), (2, *step), (3, *step), (4, "loss"), (4, *step), (4, *epoch)]
    assert trainer.names() == expected


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_resumed_fold_replays_steps_and_epochs_in_order(micro_batches):
    epochs = MetricsCsv(None)
    history, trainer = History(epochs), Trainer()
    train(history, trainer, [1.0, 2.0])
    epochs.rows = [{"epoch": 0, "step": 2, "lr": "0.1", "train/loss": "1.5", "val/loss": ""}]
    resumed, later = History(epochs), Trainer(global_step=2, current_epoch=1)
    resumed.load_state_dict(history.state_dict())
    train(resumed, later, [4.0], micro_batches)
    assert later.rows[:3] == trainer.rows
    assert later.rows[3] == (1, {"epoch": 0, "train/loss": 1.5})
    assert [step for step, _ in later.rows[4:]] == [2, 2]
    assert (later.rows[4][1]["train/loss_step"], later.rows[4][1]["train/grad_norm"]) == (4, 40)
    # the replayed rows are part of the next checkpoint, too
    assert len(resumed.rows) == 5


@pytest.mark.parametrize(("every", "expected"), [(1, [0.5, 0.5, 0.4]), (2, [None, 0.5, None]), (None, [0.5, 0.5, 0.4])])
def test_a_score_that_metrics_csv_repeats_is_not_replayed_as_measured(every, expected):
    epochs = MetricsCsv(None)
    scores = [{"epoch": k, "step": k + 1, "val/loss": score} for k, score in enumerate(("0.5", "0.5", "0.4"))]
    epochs.rows = [row | {"train/loss": "1"} for row in scores]
    trainer = Trainer(check_val_every_n_epoch=every)
    History(epochs).on_fit_start(trainer, SimpleNamespace())
    assert [row.get("val/loss") for _, row in trainer.rows] == expected
    assert [row["train/loss"] for _, row in trainer.rows] == [1, 1, 1]
