"""SIGTERM and Ctrl-C, wherever they come: exit codes, what is closed, what is kept, and whose handlers stay."""

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
from helpers.formula_folds import OVERRIDES as WORDS_OF_SEARCH
from helpers.formula_folds import patched_folds
from helpers.tiny import ROOT, cross_validate, only, overrides, render, train
from helpers.waiting import ONE_THREAD, wait_for
from helpers.wandb_log import wandb_records
from hydra.core.global_hydra import GlobalHydra
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from soundfold.data import store
from soundfold.evaluation.results import FoldResult
from soundfold.experiment import run as runs
from soundfold.experiment import sweep
from soundfold.io.signals import Stopped, handle_stop_signals
from soundfold.models.classifier import Classifier
from soundfold.report import run_page

STOPS = {signal.SIGTERM: 143, signal.SIGINT: 130}
WORDS = ("split=nested", "trainer.max_epochs=2", "average=ema", "model.width=8")


def own_defaults() -> None:
    """As a program begins; the suite's runner may have handlers of its own."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def begun():
    before = {number: signal.getsignal(number) for number in (*STOPS, signal.SIGCONT, signal.SIGUSR2)}
    own_defaults()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("tiny") / "root")


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory) -> Path:
    """The outputs of the uninterrupted run of `WORDS`."""
    outputs = tmp_path_factory.mktemp("whole")
    cross_validate(root, outputs, *WORDS)
    return outputs


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Run train.py with these words in this process: (code, what it told)."""
    monkeypatch.setattr(sweep, "claim_gpu", lambda *_: None)
    monkeypatch.chdir(tmp_path)

    def start(*words: str) -> tuple[int, str]:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sweep.Sweep, "folder", None)
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        code = 0
        try:
            runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code
        finally:
            GlobalHydra.instance().clear()
        return code, capsys.readouterr().err

    return start


@contextmanager
def arriving(number: int, owner: object, name: str, call: int) -> Iterator[None]:
    """The signal comes at the beginning of a call of that function, counted from 1."""
    real, calls = getattr(owner, name), itertools.count(1)

    def called(*arguments, **options):
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, called)
        yield


def results(folder: Path) -> dict[str, str]:
    names = ("predictions.csv", "metrics.csv")
    return {f"{fold.name}/{name}": (fold / name).read_text() for fold in folder.glob("fold?") for name in names}


# of three folds, two epochs of three batches and one of validation each; the report draws the learning curves
MOMENTS = {
    "decoding": (signal.SIGINT, store, "to_int16", 5, 0),
    "the first epoch": (signal.SIGTERM, Classifier, "training_step", 2, 0),
    "a later epoch": (signal.SIGINT, Classifier, "training_step", 7, 1),
    "validation": (signal.SIGTERM, Classifier, "validation_step", 9, 1),
    "a checkpoint": (signal.SIGINT, torch, "save", 8, 1),
    "the test": (signal.SIGTERM, Classifier, "test_step", 4, 1),
    "a result": (signal.SIGINT, FoldResult, "save", 2, 1),
    "the next fold": (signal.SIGTERM, runs, "_settled", 3, 2),
    "the report": (signal.SIGINT, run_page, "write_run_page", 1, 3),
}


QUICK = ("a later epoch",)


@pytest.mark.parametrize(
    ("number", "owner", "name", "call", "finished"),
    [pytest.param(*at, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, at in MOMENTS.items()],
)
def test_a_run_stopped_at_any_moment_goes_on_to_the_end_of_an_uninterrupted_one(
    root, whole, tmp_path, command, number, owner, name, call, finished
):
    outputs = tmp_path / "out"
    words = overrides(root, outputs, *WORDS, f"paths.cache={tmp_path}/cache")
    with arriving(number, owner, name, call):
        code, told = command(*words)
    assert code == STOPS[number]
    assert told.splitlines()[-1].startswith(f"Stopped by {'SIGTERM' if code == 143 else 'Ctrl-C'}: ")
    assert told.endswith("the same command goes on from there.\n")
    assert "Traceback" not in told
    assert "interrupt" not in told.lower()
    assert len(list(outputs.glob("tiny-*/fold*/result.json"))) == finished
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".part"]
    own_defaults()
    assert command(*words)[0] == 0
    assert results(only(outputs)) == results(only(whole))
    assert (only(outputs) / "report.html").is_file()


def test_loggers_are_closed_and_the_run_is_marked_as_failed(root, tmp_path, command):
    words = overrides(root, tmp_path / "out", *WORDS, "fold=2", "logger=[wandb,tensorboard]")
    with arriving(signal.SIGTERM, Classifier, "training_step", 3):
        code, _ = command(*words)
    assert code == 143
    assert wandb.run is None
    (kept,) = (tmp_path / "out").rglob("run-*.wandb")
    assert [record.exit.exit_code for record in wandb_records(kept) if record.HasField("exit")] == [1]
    board = EventAccumulator(str(only(tmp_path / "out") / "fold2" / "tensorboard"))
    board.Reload()
    assert len(board.Scalars("train/loss")) == 1


@pytest.mark.slow
def test_w_and_b_prints_no_traceback_of_the_run_of_the_cross_validation(root, tmp_path, command):
    words = overrides(root, tmp_path / "out", *WORDS, "logger=wandb", "trainer.max_epochs=1")
    with arriving(signal.SIGINT, wandb.plot, "confusion_matrix", 1):
        code, told = command(*words)
    assert code == 130
    assert "Traceback" not in told
    (kept,) = (only(tmp_path / "out") / "wandb").rglob("run-*.wandb")
    assert [record.exit.exit_code for record in wandb_records(kept) if record.HasField("exit")] == [1]
    own_defaults()
    assert command(*words)[0] == 0
    (kept,) = (only(tmp_path / "out") / "wandb").rglob("run-*.wandb")
    assert [record.exit.exit_code for record in wandb_records(kept) if record.HasField("exit")] == [0]


@pytest.mark.slow
def test_a_stop_while_libraries_are_imported_is_told_alike():
    """In a process of its own: here they are imported already."""
    finder = """
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "lightning.pytorch.loops":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    words = f"import sys; sys.argv = [{str(ROOT / 'scripts' / 'train.py')!r}]\n{finder}"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("Stopped by Ctrl-C: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", STOPS)
def test_after_a_stop_no_other_job_of_a_sweep_begins(command, tmp_path, monkeypatch, number):
    def task(cfg, reporter, opened):
        os.kill(os.getpid(), number)
        pytest.fail("went on")

    monkeypatch.setattr(runs, "cross_validate", task)
    code, told = command("-m", "seed=1,2,3")
    assert code == STOPS[number]
    (folder,) = (tmp_path / "outputs" / "multirun").iterdir()
    assert [(job.number, job.status) for job in sweep.read_jobs(folder)] == [(0, "running")]
    assert "error: job 0 (seed=1): it is still running, or was killed" in told
    assert told.splitlines()[-1].startswith("Stopped by ")


@pytest.mark.slow
def test_a_search_takes_up_the_trial_that_was_stopped(root, tmp_path, command):
    given = overrides(root, tmp_path / "out", *WORDS_OF_SEARCH, "search.trials=4", "search.sampler=random")
    with patched_folds(), arriving(signal.SIGTERM, runs, "run_fold", 5):
        code, told = command(*given)
    assert code == 143
    assert told.splitlines()[-1].startswith("Stopped by SIGTERM")
    with patched_folds():
        assert command(*given)[0] == 0
        assert command(*[word.replace(str(tmp_path / "out"), str(tmp_path / "whole")) for word in given])[0] == 0

    def trials(outputs: Path) -> list:
        (folder,) = outputs.glob("tiny-search-*")
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder / 'study.db'}")
        return [(trial.params, trial.value, trial.state) for trial in study.trials]

    assert len(trials(tmp_path / "out")) == 4
    assert trials(tmp_path / "out") == trials(tmp_path / "whole")


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
def test_a_second_ctrl_c_kills_at_once_and_a_repeated_sigterm_lets_it_close(first, second, seconds, code):
    words = [sys.executable, "-c", WAITING.format(first=first, seconds=seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "closing\n"
        process.send_signal(second)
        assert process.wait(30) == code
        assert process.stderr.read() == ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stop_that_a_destructor_or_a_library_swallows_comes_again_and_leaves_the_closing_alone():
    class Dying:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    closed = []

    @contextmanager
    def slow_to_close():
        try:
            yield
        finally:
            with contextlib.suppress(ZeroDivisionError):
                try:
                    raise ZeroDivisionError
                finally:
                    time.sleep(1.2)
            time.sleep(0.6)
            closed.append(True)

    def swallowed():
        dying = Dying()
        del dying
        with contextlib.suppress(BaseException):
            time.sleep(10)
        time.sleep(10)

    with pytest.raises(Stopped) as stop, handle_stop_signals(), slow_to_close():
        swallowed()
    assert stop.value.code == 143
    assert closed == [True]


def test_handlers_are_those_of_before_once_nothing_is_to_be_stopped():
    for number in STOPS:
        assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    with handle_stop_signals():
        within = [signal.getsignal(number) for number in STOPS]
        with handle_stop_signals():
            assert [signal.getsignal(number) for number in STOPS] == within
        assert [signal.getsignal(number) for number in STOPS] == within
    for number in STOPS:
        assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def test_a_job_environment_keeps_its_handlers_and_slurm_s_variables_change_nothing(
    root, whole, tmp_path, command, monkeypatch
):
    """As in a job that submitit has started: it lets SIGTERM and SIGCONT pass, and waits for SIGUSR2 to requeue."""
    passed = []
    theirs = (signal.SIGTERM, signal.SIGCONT, signal.SIGUSR2)
    for number in theirs:
        signal.signal(number, lambda number, _frame: passed.append(number))
    handlers = {number: signal.getsignal(number) for number in (*theirs, signal.SIGUSR1)}
    variables = {"NTASKS": "4", "JOB_ID": "77", "PROCID": "0", "LOCALID": "0", "JOB_NAME": "train", "NODELIST": "node1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    step = Classifier.training_step

    def watched(self, *batch):
        assert {number: signal.getsignal(number) for number in handlers} == handlers
        return step(self, *batch)

    monkeypatch.setattr(Classifier, "training_step", watched)
    with arriving(signal.SIGTERM, Classifier, "validation_step", 3):
        assert command(*overrides(root, tmp_path / "out", *WORDS, "fold=2"))[0] == 0
    assert passed == [signal.SIGTERM]
    ours = results(only(tmp_path / "out"))
    assert len(ours) == 2
    assert ours.items() <= results(only(whole)).items()


@pytest.mark.slow
def test_a_job_that_slurm_preempts_is_requeued_and_ends_as_an_uninterrupted_one(root, tmp_path):
    """By submitit's local stand-in for SLURM, whose job gets the signals that SLURM sends."""
    words = ("split=nested", "trainer.max_epochs=12", "fold=2", "logger=[wandb,tensorboard]", "report.page=none")
    outputs = tmp_path / "jobs"
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", "hydra/launcher=slurm_local"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ONE_THREAD}
    with subprocess.Popen([*command, *overrides(root, outputs, *words)], **pipes) as process:

        def epochs() -> int:
            return sum(path.read_text().count("\n") - 1 for path in outputs.glob("tiny-*/fold2/metrics.csv"))

        wait_for(lambda: epochs() >= 3, process)
        shown = subprocess.run(["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
        (job,) = [line for line in shown.splitlines() if "submitit.core._submit" in line and str(outputs) in line]
        for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGUSR2):
            os.kill(int(job.split()[0]), number)
        _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    (log,) = [path.read_text() for path in outputs.glob("multirun/*/.submitit/*/*_log.out")]
    for said in ("Bypassing signal SIGTERM", "Caught signal SIGUSR2", "Requeued job", "Job completed successfully"):
        assert said in log
    assert log.count("Starting with JobEnvironment") == 2
    (kept,) = outputs.rglob("run-*.wandb")
    assert [record.exit.exit_code for record in wandb_records(kept) if record.HasField("exit")] == [0]
    alone = train(*overrides(root, tmp_path / "whole", *words), env=ONE_THREAD)
    assert alone.returncode == 0, alone.stderr
    assert results(only(outputs)) == results(only(tmp_path / "whole"))
