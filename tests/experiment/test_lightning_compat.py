"""Every workaround for Lightning works, and is still needed."""

import inspect
import signal
import sys

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.data import DataLoader

from soundfold.experiment.lightning_compat import (
    count_last_epoch,
    disable_signal_handlers,
    resume_at_epoch_end,
    run_without_compiler,
    set_rank,
)


class Regression(pl.LightningModule):
    """One weight; records its epochs and calls ``on_step`` at every step."""

    def __init__(self, on_step=lambda module: None):
        super().__init__()
        self.weight, self.on_step, self.epochs = torch.nn.Parameter(torch.zeros(1)), on_step, []

    def on_train_epoch_start(self):
        self.epochs.append(self.current_epoch)

    def training_step(self, batch, batch_idx):
        self.on_step(self)
        return (self.weight - batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_trainer(folder, **options) -> pl.Trainer:
    """A trainer of three steps per epoch, which writes ``last.ckpt`` at the end of every epoch."""
    checkpoint = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(default_root_dir=folder, callbacks=[checkpoint], **quiet, **options)


def batches() -> DataLoader:
    return DataLoader(torch.ones(3, 1))


@pytest.fixture(autouse=True)
def restored_handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("is_disabled", [True, False])
def test_sigterm_is_left_to_its_handler(tmp_path, is_disabled):
    def handler(number, frame):
        pass

    signal.signal(signal.SIGTERM, handler)
    seen = []
    trainer = make_trainer(tmp_path, max_epochs=1)
    if is_disabled:
        disable_signal_handlers(trainer)
    trainer.fit(Regression(lambda module: seen.append(signal.getsignal(signal.SIGTERM))), batches())
    assert (set(seen) == {handler}) is is_disabled


@pytest.mark.parametrize("is_patched", [True, False])
def test_a_run_with_max_steps_resumes_at_the_next_epoch(tmp_path, is_patched):
    def stop(module):
        if module.current_epoch == 1:
            raise RuntimeError("stopped")

    trainer = make_trainer(tmp_path, max_epochs=3, max_steps=9)
    with pytest.raises(RuntimeError, match="stopped"):
        trainer.fit(Regression(stop), batches())
    model, trainer = Regression(), make_trainer(tmp_path, max_epochs=3, max_steps=9)
    if is_patched:
        resume_at_epoch_end(trainer)
    trainer.fit(model, batches(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert (model.epochs == [1, 2]) is is_patched


def test_the_last_epoch_of_a_complete_run_is_counted_when_it_is_resumed(tmp_path):
    for resume in (False, True):
        trainer = make_trainer(tmp_path, max_epochs=3, max_steps=6)
        resume_at_epoch_end(trainer)
        checkpoint = {"ckpt_path": tmp_path / "last.ckpt", "weights_only": True} if resume else {}
        trainer.fit(Regression(), batches(), **checkpoint)
        assert trainer.current_epoch == (1 if resume else 2)
        count_last_epoch(trainer)
        assert trainer.current_epoch == 2


@pytest.mark.parametrize("is_patched", [True, False])
def test_loggers_write_although_another_job_set_a_rank(tmp_path, monkeypatch, is_patched):
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # as SLURM_PROCID=1 does at import
    if is_patched:
        set_rank(0)
    logger = CSVLogger(tmp_path)
    logger.log_metrics({"loss": 1.0}, 0)
    logger.save()
    assert bool(list(tmp_path.rglob("metrics.csv"))) is is_patched


class Blocked:
    """A finder that refuses PyTorch's compiler."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torch._dynamo":
            raise RuntimeError("PyTorch's compiler is imported")


@pytest.mark.parametrize("is_patched", [True, False])
def test_an_optimizer_works_without_the_compiler(monkeypatch, is_patched):
    class Momentum(torch.optim.SGD):
        # as PyTorch defines it, without what other tests have added
        step = inspect.unwrap(torch.optim.SGD.step, stop=lambda step: step.__code__.co_name == "_use_grad")

    weight = torch.nn.Parameter(torch.zeros(1))
    for method in vars(torch.optim.Optimizer).values():
        monkeypatch.delattr(getattr(method, "__wrapped__", method), "__dynamo_disable", raising=False)
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Blocked, *sys.meta_path])
    if not is_patched:
        with pytest.raises(RuntimeError, match="compiler is imported"):
            Momentum([weight], lr=0.1)
        return
    run_without_compiler(Momentum)
    optimizer = Momentum([weight], lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    for _ in range(2):
        optimizer.zero_grad()
        weight.sum().backward()
        optimizer.step()
        schedule.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert weight.item() == pytest.approx(-0.1 * (1 + 1.9))
    assert weight.requires_grad
    run_without_compiler(Momentum)  # again, with the hook of PyTorch's profiler on the class
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("hook"))
    optimizer.step()
    assert seen == ["hook"]
