"""Folds as jobs of a sweep, ``fold=each``: their expansion, their table, and the summary by the last of them."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.command import run_here
from helpers.runs import write_run
from helpers.tiny import ROOT, overrides, render

from soundfold.config import compose_config
from soundfold.errors import InputError, TrainingError
from soundfold.evaluation.results import load_folds
from soundfold.evaluation.summary import write_summary
from soundfold.experiment import loggers, sweep
from soundfold.experiment import run as runs
from soundfold.experiment.sweep import read_jobs
from soundfold.experiment.sweep_folds import FoldJobs
from soundfold.report import reporter
from soundfold.report.terminal import print_jobs

REPEATS = 50


@pytest.fixture
def root(tmp_path) -> Path:
    return render(tmp_path / "root")


@pytest.fixture
def train_here(tmp_path, monkeypatch, capsys):
    """A function that runs ``soundfold train`` with a function in place of `cross_validate`.

    It returns the exit code, the jobs, stdout and stderr.
    """
    monkeypatch.setattr(sweep, "claim_gpu", lambda *_: None)
    monkeypatch.chdir(tmp_path)

    def run(task, *args: str) -> tuple[int, list[sweep.Job], str, str]:
        monkeypatch.setattr(runs, "cross_validate", task)
        code = run_here(monkeypatch, "train", *args)
        (folder,) = (tmp_path / "outputs" / "multirun").iterdir()
        return code, read_jobs(folder), *capsys.readouterr()

    return run


def jobs_of(root: Path, *setting: str, fold: object = "all") -> list[list[str]]:
    def load(setting: list[str]):
        return compose_config(*overrides(root, root.parent / "out"), *setting)

    return FoldJobs().of([*setting], fold, load)


@pytest.mark.parametrize(
    ("setting", "fold", "expected"),
    [
        (("seed=1", "fold=each"), "all", [["seed=1", f"fold={k}"] for k in (1, 2, 3)]),
        (("fold=each", "+label=b"), "all", [["+label=b", f"fold={k}"] for k in (1, 2, 3)]),
        (("seed=1",), "each", [["seed=1", f"fold={k}"] for k in (1, 2, 3)]),
        (("seed=1", "fold=2"), "each", [["seed=1", "fold=2"]]),
        (("seed=1",), "all", [["seed=1"]]),
        # of data, to another section
        (
            ("data.batch_size=${trainer.max_epochs}", "fold=each"),
            "all",
            [["data.batch_size=${trainer.max_epochs}", f"fold={k}"] for k in (1, 2, 3)],
        ),
        # invalid settings are one job, which reports why
        (("fold=each", "seed=-1"), "all", [["fold=each", "seed=-1"]]),
        (("fold=each", "search=lr_wd", "split=nested"), "all", [["fold=each", "search=lr_wd", "split=nested"]]),
        (("fold=each", "experiment=find_lr"), "all", [["fold=each", "experiment=find_lr"]]),
    ],
)
def test_each_is_a_job_of_every_fold(setting, fold, expected, root):
    assert jobs_of(root, *setting, fold=fold) == expected


def test_each_setting_has_the_folds_of_its_own_table(root, tmp_path):
    other = render(tmp_path / "other" / "root", folds=4)
    assert len(jobs_of(root, "fold=each", f"data.root={other}")) == 4


def test_without_the_table_one_job_trains_all_folds(tmp_path, capsys):
    assert jobs_of(tmp_path / "missing", "seed=1", "fold=each") == [["seed=1", "fold=all"]]
    assert "warning: One job trains all folds of seed=1: There is no table of clips" in capsys.readouterr().err


def write_folds(folder: Path, *folds: int) -> Path:
    """Write a run of which only these folds are finished."""
    write_run(folder, np.arange(12) > 2)
    for fold in {1, 2, 3} - {*folds}:
        (folder / f"fold{fold}" / "result.json").unlink()
    return folder


def test_a_failed_fold_does_not_stop_the_others(root, tmp_path, train_here):
    def task(cfg, reporter, record_folder):
        record_folder(tmp_path / "run1")
        if cfg.fold == 3:
            raise TrainingError("The loss is not finite.")
        return 0.5

    write_folds(tmp_path / "run1", 1, 2)
    # without -m
    code, jobs, out, err = train_here(task, *overrides(root, Path("outputs")), "fold=each")
    assert code == 1
    assert [(job.fold, job.status) for job in jobs] == [(1, "finished"), (2, "finished"), (3, "failed")]
    assert rows_of(out) == [["0-2", "fold=each", "failed (2 of 3 folds)"]]
    assert "Sweep of 1 setting, 3 jobs" in out
    assert "error: job 2 (fold=3): The loss is not finite." in err
    assert "no mean, because fold(s) 3 are missing" in out


def rows_of(out: str) -> list[list[str]]:
    """Return the cells of the table of jobs, without the run."""
    return [[cell.strip() for cell in line.split("│")[1:4]] for line in out.splitlines() if line.startswith("│")]


def print_settings(tmp_path: Path, protocol: str, *finished: tuple[int, ...]) -> None:
    """Print a sweep of the three folds of several settings, of which these folds are finished."""
    jobs = []
    for setting, folds in enumerate(finished):
        folder = write_folds(tmp_path / f"run{setting}", *folds)
        for fold in (1, 2, 3):
            status = "finished" if fold in folds else "failed"
            options = {"protocol": protocol, "monitor": "val/loss", "mode": "min"}
            setting_of = [f"optim.lr={setting}", f"fold={fold}", "seed=1"]
            jobs.append(sweep.Job(len(jobs), setting_of, fold, status, str(folder), **options))
    print_jobs(jobs, ["-m", "fold=each"], [range(3 * k, 3 * k + 3) for k in range(len(finished))])


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("benchmark", [["0-2", "optim.lr=0", "failed (2 of 3 folds)"], ["3-5", "optim.lr=1", "75.00 ± 43.30"]]),
        # best validation first, and a setting without a fold has no figure
        ("nested", [["3-5", "optim.lr=1", "-0.5"], ["0-2", "optim.lr=0", "failed (2 of 3 folds)"]]),
    ],
)
def test_the_table_has_a_row_for_each_setting(protocol, expected, tmp_path, capsys):
    print_settings(tmp_path, protocol, (1, 2), (1, 2, 3))
    out, err = capsys.readouterr()
    assert rows_of(out) == expected
    assert "Sweep of 2 settings, 6 jobs" in out
    assert "error: job 2 (optim.lr=0 fold=3): " in err
    assert "mean ± sd" not in out


def test_a_single_setting_is_shown_with_its_folds(tmp_path, capsys):
    print_settings(tmp_path, "benchmark", (1, 2, 3))
    out = capsys.readouterr().out
    assert rows_of(out)[0] == ["0-2", "fold=each", "75.00 ± 43.30"]
    assert out.count("mean ± sd") == 1


def test_a_search_with_each_is_refused_once(root, train_here):
    given = [*overrides(root, Path("outputs")), "search=lr_wd", "split=nested", "fold=each"]
    code, jobs, _, err = train_here(lambda *_, **__: pytest.fail("ran"), *given)
    assert code == 1
    assert len(jobs) == 1
    assert "fold=each: a search trains every fold of each setting" in err


def test_each_is_refused_where_it_makes_no_jobs(root, tmp_path):
    with pytest.raises(InputError, match="soundfold train -m fold=each"):
        runs.cross_validate(compose_config(*overrides(root, tmp_path / "out", "fold=each")), None)


def unshare(runs: Path, view: Path) -> list[str]:
    """Return the start of a command that sees ``runs`` as ``view``, with namespaces for mounts and processes."""
    view.mkdir()
    script = f'mount --bind {runs} {view} && exec "$@"'
    return ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, "sh"]


def can_unshare() -> bool:
    command = ["unshare", "--mount", "--pid", "--fork", "mount", "--bind", "/tmp", "/tmp"]
    return shutil.which("unshare") is not None and not subprocess.run(command, capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.parametrize("namespaces", [False, True])
def test_of_two_folds_that_finish_at_once_one_at_least_sums_up(namespaces, tmp_path):
    """In namespaces of their own the processes have the same number, and other paths, as on two machines."""
    if namespaces and not can_unshare():
        pytest.skip("needs mount and process namespaces (unshare as root)")
    folder = tmp_path / "runs"
    for number in range(REPEATS):
        run = write_run(folder / f"run{number:02d}", np.arange(12) > 2)
        for fold in ("fold1", "fold2"):
            (run / fold / "result.json").rename(run / fold / "unfinished.json")
    processes = []
    for name, fold in (("a", "fold1"), ("b", "fold2")):
        view = tmp_path / f"view-{name}" if namespaces else folder
        start = unshare(folder, view) if namespaces else []
        command = [*start, sys.executable, str(ROOT / "tests" / "helpers" / "finish_folds.py"), str(view), name, fold]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    both = 0
    for run in sorted(path for path in folder.iterdir() if path.is_dir()):
        written = (run / "cv.json").read_bytes()
        (run / "cv.json").unlink()
        write_summary(run)
        assert (run / "cv.json").read_bytes() == written
        seen = (run / "seen.txt").read_text().splitlines()
        assert seen in (["logged"], ["logged", "not logged"])
        both += len(seen) == 2
        assert {path.name for path in run.iterdir()} == {
            "fold1",
            "fold2",
            "fold3",
            "cv.json",
            "seen.txt",
            "logged.json",
        }
        assert not [*run.rglob("*.part")]
    # the processes did race
    assert both


def test_jobs_that_find_the_run_complete_log_it_once_and_draw_one_page(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", np.arange(12) > 2)
    logged, pages = [], []

    def draw(folder, run, options):
        pages.append(folder)
        (folder / "report.html").touch()
        return folder / "report.html"

    def send(folder, run, *_):
        logged.append("wandb")
        (folder / "wandb").mkdir()
        shutil.copy(folder / "cv.json", folder / "wandb")

    logger = SimpleNamespace(log_metrics=lambda *_: None, finalize=lambda _: logged.append("logger"))
    monkeypatch.setattr(loggers, "make_cv_loggers", lambda *_: [logger])
    monkeypatch.setattr("soundfold.report.run_page.write_run_page", draw)
    monkeypatch.setattr("soundfold.experiment.wandb_runs.log_cv", send)
    monkeypatch.setattr(reporter, "render_mistakes", lambda *_: [], raising=False)
    cfg = compose_config("logger.mine={_target_: x.Y}", "trainer.enable_autolog_hparams=false", "report.mistakes=0")
    context = SimpleNamespace(cfg=cfg, folder=folder, cv_id="run")

    def report(_: int) -> None:
        summary = write_summary(folder)
        loggers.log_cv(context, summary)
        options = {"show_table": False, "once": True}
        reporter.RunReporter().report_run(folder, summary, cfg.report, cfg.logger, **options)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(report, range(8)))
    assert sorted(logged) == ["logger", "wandb"]
    assert len(pages) == 1
    assert len(load_folds(folder)) == json.loads((folder / "cv.json").read_text())["all_folds"]
