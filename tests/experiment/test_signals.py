"""SIGTERM and Ctrl-C at any moment: exit codes, closed loggers, resumable runs, preserved handlers."""

import contextlib
import itertools
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
import torch
import wandb
from helpers.formula_folds import OVERRIDES as SEARCH_OVERRIDES
from helpers.formula_folds import patched_folds
from helpers.tiny import ROOT, cross_validate, only, overrides, render, train
from helpers.waiting import ONE_THREAD, wait_for
from helpers.wandb_log import wandb_records
from hydra.core.global_hydra import GlobalHydra
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from soundfold.data import store
from soundfold.evaluation.results import FoldResult
from soundfold.experiment import run as runs
from soundfold.experiment import sweep
from soundfold.io.signals import Stopped, handle_stop_signals
from soundfold.models.classifier import Classifier
from soundfold.report import run_page

STOPS = {signal.SIGTERM: 143, signal.SIGINT: 130}
OPTIONS = ("split=nested", "trainer.max_epochs=2", "average=ema", "model.width=8")


def restore_default_handlers() -> None:
    """Set the handlers that a new Python process has; the test runner may have set others."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def default_handlers():
    before = {number: signal.getsignal(number) for number in (*STOPS, signal.SIGCONT, signal.SIGUSR2)}
    restore_default_handlers()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("tiny") / "root")


@pytest.fixture(scope="module")
def reference(root, tmp_path_factory) -> Path:
    """Outputs of the uninterrupted run of `OPTIONS`."""
    outputs = tmp_path_factory.mktemp("reference")
    cross_validate(root, outputs, *OPTIONS)
    return outputs


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """A function that runs train.py with these arguments in this process, and returns its exit code and stderr."""
    monkeypatch.setattr(sweep, "claim_gpu", lambda *_: None)
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> tuple[int, str]:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sweep.Sweep, "folder", None)
        monkeypatch.setenv("PYTHONSAFEPATH", "1")  # restores it after a sweep has set it
        monkeypatch.setattr(sys, "argv", ["train.py", *args])
        code = 0
        try:
            runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code
        finally:
            GlobalHydra.instance().clear()
        return code, capsys.readouterr().err

    return run


@contextmanager
def send_signal(number: int, owner: object, name: str, call: int) -> Iterator[None]:
    """Send a signal to this process at the start of a call of ``owner.name``, counted from 1."""
    function, calls = getattr(owner, name), itertools.count(1)

    def signalled(*args, **options):
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return function(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, signalled)
        yield


def results(folder: Path) -> dict[str, str]:
    names = ("predictions.csv", "metrics.csv")
    return {f"{fold.name}/{name}": (fold / name).read_text() for fold in folder.glob("fold?") for name in names}


# (signal, owner and name of a function, its call, folds finished by then). A run has three folds of two epochs; an
# epoch has three training batches and one validation batch.
MOMENTS = {
    "decoding": (signal.SIGINT, store, "to_int16", 5, 0),
    "the first epoch": (signal.SIGTERM, Classifier, "training_step", 2, 0),
    "a later epoch": (signal.SIGINT, Classifier, "training_step", 7, 1),
    "validation": (signal.SIGTERM, Classifier, "validation_step", 9, 1),
    "a checkpoint": (signal.SIGINT, torch, "save", 8, 1),
    "the test": (signal.SIGTERM, Classifier, "test_step", 4, 1),
    "a result": (signal.SIGINT, FoldResult, "save", 2, 1),
    "the next fold": (signal.SIGTERM, runs, "_reuse_or_train", 3, 2),
    "the report": (signal.SIGINT, run_page, "write_run_page", 1, 3),
}

QUICK = ("a later epoch",)


@pytest.mark.parametrize(
    ("number", "owner", "name", "call", "finished"),
    [pytest.param(*values, id=id, marks=() if id in QUICK else pytest.mark.slow) for id, values in MOMENTS.items()],
)
def test_a_run_stopped_at_any_moment_and_resumed_equals_an_uninterrupted_one(
    root, reference, tmp_path, command, number, owner, name, call, finished
):
    outputs = tmp_path / "out"
    args = overrides(root, outputs, *OPTIONS, f"paths.cache={tmp_path}/cache")
    with send_signal(number, owner, name, call):
        code, err = command(*args)
    assert code == STOPS[number]
    assert err.splitlines()[-1].startswith(f"Stopped by {'SIGTERM' if code == 143 else 'Ctrl-C'}: ")
    assert err.endswith("the same command goes on from there.\n")
    assert "Traceback" not in err
    assert "interrupt" not in err.lower()
    assert len(list(outputs.glob("tiny-*/fold*/result.json"))) == finished
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".part"]
    restore_default_handlers()
    assert command(*args)[0] == 0
    assert results(only(outputs)) == results(only(reference))
    assert (only(outputs) / "report.html").is_file()


def test_loggers_are_closed_and_the_w_and_b_run_is_marked_as_failed(root, tmp_path, command):
    args = overrides(root, tmp_path / "out", *OPTIONS, "fold=2", "logger=[wandb,tensorboard]")
    with send_signal(signal.SIGTERM, Classifier, "training_step", 3):
        code, _ = command(*args)
    assert code == 143
    assert wandb.run is None
    (path,) = (tmp_path / "out").rglob("run-*.wandb")
    assert [record.exit.exit_code for record in wandb_records(path) if record.HasField("exit")] == [143]
    board = EventAccumulator(str(only(tmp_path / "out") / "fold2" / "tensorboard"))
    board.Reload()
    assert len(board.Scalars("train/loss")) == 1


@pytest.mark.slow
def test_no_traceback_is_printed_for_the_w_and_b_run_of_the_cross_validation(root, tmp_path, command):
    args = overrides(root, tmp_path / "out", *OPTIONS, "logger=wandb", "trainer.max_epochs=1")
    with send_signal(signal.SIGINT, wandb.plot, "confusion_matrix", 1):
        code, err = command(*args)
    assert code == 130
    assert "Traceback" not in err
    (path,) = (only(tmp_path / "out") / "wandb").rglob("run-*.wandb")
    assert [record.exit.exit_code for record in wandb_records(path) if record.HasField("exit")] == [130]
    restore_default_handlers()
    assert command(*args)[0] == 0
    (path,) = (only(tmp_path / "out") / "wandb").rglob("run-*.wandb")
    assert [record.exit.exit_code for record in wandb_records(path) if record.HasField("exit")] == [0]


@pytest.mark.slow
def test_a_stop_while_libraries_are_imported_is_reported_the_same_way():
    """In a new process: here they are imported already."""
    finder = """
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "lightning.pytorch.loops":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    code = f"import sys; sys.argv = [{str(ROOT / 'scripts' / 'train.py')!r}]\n{finder}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("Stopped by Ctrl-C: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", STOPS)
def test_no_other_job_of_a_sweep_starts_after_a_stop(command, tmp_path, monkeypatch, number):
    def task(cfg, reporter, record_folder):
        os.kill(os.getpid(), number)
        pytest.fail("continued")

    monkeypatch.setattr(runs, "cross_validate", task)
    code, err = command("-m", "seed=1,2,3")
    assert code == STOPS[number]
    (folder,) = (tmp_path / "outputs" / "multirun").iterdir()
    assert [(job.number, job.status) for job in sweep.read_jobs(folder)] == [(0, "running")]
    assert "error: job 0 (seed=1): it is still running, or was killed" in err
    assert err.splitlines()[-1].startswith("Stopped by ")


@pytest.mark.slow
def test_a_search_resumes_the_trial_that_was_stopped(root, tmp_path, command):
    args = overrides(root, tmp_path / "out", *SEARCH_OVERRIDES, "search.trials=4", "search.sampler=random")
    with patched_folds(), send_signal(signal.SIGTERM, runs, "run_fold", 5):
        code, err = command(*args)
    assert code == 143
    assert err.splitlines()[-1].startswith("Stopped by SIGTERM")
    with patched_folds():
        assert command(*args)[0] == 0
        assert command(*[arg.replace(str(tmp_path / "out"), str(tmp_path / "reference")) for arg in args])[0] == 0

    def trials(outputs: Path) -> list:
        (folder,) = outputs.glob("tiny-search-*")
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}")
        # the stopped one failed, and was retried as a new one
        return [(t.params, t.value, t.state) for t in study.trials if t.state != TrialState.FAIL]

    assert len(trials(tmp_path / "out")) == 4
    assert trials(tmp_path / "out") == trials(tmp_path / "reference")


WAITING = """
import signal, time
from soundfold.io.signals import handle_stop_signals
with handle_stop_signals():
    try:
        signal.raise_signal(signal.{first})
    finally:
        print("closing", flush=True)
        time.sleep({seconds})
"""


@pytest.mark.parametrize(
    ("first", "second", "seconds", "code"),
    [
        ("SIGINT", signal.SIGINT, 60, -signal.SIGINT),
        ("SIGTERM", signal.SIGINT, 60, -signal.SIGINT),
        ("SIGTERM", signal.SIGTERM, 0.5, 143),
        ("SIGINT", signal.SIGTERM, 0.5, 130),
    ],
)
def test_a_second_ctrl_c_kills_at_once_and_a_second_sigterm_is_ignored(first, second, seconds, code):
    command = [sys.executable, "-c", WAITING.format(first=first, seconds=seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "closing\n"
        process.send_signal(second)
        assert process.wait(30) == code
        assert process.stderr.read() == ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_stop_is_raised_again_until_cleanup_has_started():
    class SignalOnDelete:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    cleaned_up = []

    @contextmanager
    def slow_cleanup():
        try:
            yield
        finally:
            with contextlib.suppress(ZeroDivisionError):
                try:
                    raise ZeroDivisionError
                finally:
                    time.sleep(1.2)
            time.sleep(0.6)
            cleaned_up.append(True)

    def swallow():
        # an exception in a destructor is printed and ignored
        value = SignalOnDelete()
        del value
        with contextlib.suppress(BaseException):
            time.sleep(10)
        time.sleep(10)

    with pytest.raises(Stopped) as stop, handle_stop_signals(), slow_cleanup():
        swallow()
    assert stop.value.code == 143
    assert cleaned_up == [True]


def test_handlers_are_restored_at_the_end():
    for number in STOPS:
        assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    with handle_stop_signals():
        within = [signal.getsignal(number) for number in STOPS]
        with handle_stop_signals():
            assert [signal.getsignal(number) for number in STOPS] == within
        assert [signal.getsignal(number) for number in STOPS] == within
    for number in STOPS:
        assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def test_an_error_while_closing_does_not_replace_the_stop():
    @contextmanager
    def log() -> Iterator[None]:
        try:
            yield
        finally:
            raise ConnectionResetError("the process that writes the log got the signal, too")

    with pytest.raises(Stopped) as stop, handle_stop_signals(), log():
        signal.raise_signal(signal.SIGTERM)
    assert stop.value.code == 143


def test_a_job_scheduler_s_handlers_and_slurm_variables_are_left_alone(root, reference, tmp_path, command, monkeypatch):
    """As in a job of submitit, which ignores SIGTERM and SIGCONT, and requeues the job at SIGUSR2."""
    received = []
    numbers = (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2)
    for number in numbers:
        signal.signal(number, lambda number, _frame: received.append(number))
    handlers = {number: signal.getsignal(number) for number in (*numbers, signal.SIGUSR1)}
    variables = {"NTASKS": "4", "JOB_ID": "77", "PROCID": "0", "LOCALID": "0", "JOB_NAME": "train", "NODELIST": "node1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    training_step = Classifier.training_step

    def check_handlers(self, *batch):
        assert {number: signal.getsignal(number) for number in handlers} == handlers
        return training_step(self, *batch)

    monkeypatch.setattr(Classifier, "training_step", check_handlers)
    with send_signal(signal.SIGTERM, Classifier, "validation_step", 3):
        assert command(*overrides(root, tmp_path / "out", *OPTIONS, "fold=2"))[0] == 0
    assert received == [signal.SIGTERM]
    fold_2 = results(only(tmp_path / "out"))
    assert len(fold_2) == 2
    assert fold_2.items() <= results(only(reference)).items()


@pytest.mark.slow
def test_a_preempted_slurm_job_is_requeued_and_equals_an_uninterrupted_one(root, tmp_path):
    """With submitit's local executor in place of SLURM; the job gets the signals that SLURM sends."""
    options = ("split=nested", "trainer.max_epochs=12", "fold=2", "logger=[wandb,tensorboard]", "report.page=none")
    outputs = tmp_path / "jobs"
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", "hydra/launcher=slurm_local"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ONE_THREAD}
    with subprocess.Popen([*command, *overrides(root, outputs, *options)], **pipes) as process:

        def epochs() -> int:
            return sum(path.read_text().count("\n") - 1 for path in outputs.glob("tiny-*/fold2/metrics.csv"))

        wait_for(lambda: epochs() >= 3, process)
        listing = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
        (job,) = [line for line in listing.splitlines() if "submitit.core._submit" in line and str(outputs) in line]
        for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGUSR2):
            os.kill(int(job.split()[0]), number)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    (log,) = [path.read_text() for path in outputs.glob("multirun/*/.submitit/*/*_log.out")]
    for message in ("Bypassing signal SIGTERM", "Caught signal SIGUSR2", "Requeued job", "Job completed successfully"):
        assert message in log
    assert log.count("Starting with JobEnvironment") == 2
    (path,) = outputs.rglob("run-*.wandb")
    assert [record.exit.exit_code for record in wandb_records(path) if record.HasField("exit")] == [0]
    direct = train(*overrides(root, tmp_path / "direct", *options), env=ONE_THREAD)
    assert direct.returncode == 0, direct.stderr
    assert results(only(outputs)) == results(only(tmp_path / "direct"))
