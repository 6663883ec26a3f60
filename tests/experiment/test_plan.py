"""``dry_run``: what a command would train is listed with its time and disk, and nothing is written."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.command import run_here
from helpers.tiny import overrides

from soundfold.cli import train
from soundfold.config import compose_config
from soundfold.errors import InputError
from soundfold.evaluation.results import FoldResult
from soundfold.experiment import past_speeds
from soundfold.experiment.callbacks.checkpoints import REQUIRED
from soundfold.experiment.fold_checks import count_steps
from soundfold.experiment.plan import PlannedFold, plan_run
from soundfold.io.checkpoints import save_checkpoint
from soundfold.validation import validate


@pytest.fixture(autouse=True)
def read_runs_again():
    """Forget the runs that another test has read."""
    past_speeds._newest.cache_clear()
    past_speeds._read.cache_clear()


@pytest.fixture
def part(tiny_run, tmp_path) -> Path:
    """Return a copy of a run, of which fold 1 is finished, fold 2 interrupted after an epoch, and fold 3 missing."""
    run = tmp_path / "outputs" / tiny_run.name
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("*.pt"))
    computed = FoldResult.load(run / "fold2" / "result.json").computed
    (run / "fold2" / "result.json").unlink()
    checkpoint = {**dict.fromkeys(REQUIRED), "epoch": 0, "global_step": 3, "computed": computed}
    save_checkpoint(run / "fold2" / "checkpoints" / "last.ckpt", checkpoint)
    shutil.rmtree(run / "fold3")
    return run


def options(tiny_run: Path, outputs: Path, *more: str) -> list[str]:
    """Return the overrides of `tiny_run`."""
    return overrides(tiny_run.parents[1] / "tiny", outputs, "report.page=none", *more)


def plan(tiny_run: Path, outputs: Path, *more: str, elsewhere: bool = False):
    return plan_run(compose_config(*options(tiny_run, outputs, *more)), elsewhere=elsewhere)


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_folds_are_finished_interrupted_or_missing(part, tiny_run, tmp_path):
    before = files(tmp_path)
    planned = plan(tiny_run, tmp_path / "outputs")
    assert files(tmp_path) == before
    result = FoldResult.load(part / "fold1" / "result.json")
    per_step = result.seconds / result.steps
    # twenty training clips in batches of eight, for two epochs
    assert planned.folds == [
        PlannedFold(1, "finished"),
        PlannedFold(2, "interrupted", epoch=1, step=3, steps=3, seconds=pytest.approx(3 * per_step)),
        PlannedFold(3, "missing", steps=6, seconds=pytest.approx(6 * per_step)),
    ]
    assert (planned.run, planned.epochs, planned.store) == (str(part), 2, 0)
    assert planned.seconds == pytest.approx(9 * per_step)
    (weights,) = (tiny_run / "fold1").rglob("weights.pt")
    assert planned.kept == pytest.approx(2 * weights.stat().st_size, rel=0.02)


@pytest.mark.parametrize(
    ("more", "statuses"),
    [
        (("rerun=true",), ["missing"] * 3),
        (("fold=1",), ["finished"]),
        (("fold=none",), ["missing"]),
        (("fold=each",), ["finished", "interrupted", "missing"]),
        (("label=again",), ["missing"] * 3),
    ],
)
def test_the_folds_that_a_command_asks_for_are_listed(more, statuses, part, tiny_run, tmp_path):
    assert [fold.status for fold in plan(tiny_run, tmp_path / "outputs", *more).folds] == statuses


@pytest.mark.parametrize(
    ("more", "is_known"),
    [
        (("label=again",), True),
        (("optim.lr=0.01", "augment=none"), True),
        (("features.n_mels=32",), False),
        (("model.width=32",), False),
        (("data.batch_size=4",), False),
    ],
)
def test_the_time_is_that_of_runs_with_the_same_images_network_and_batch(more, is_known, tiny_run):
    planned = plan(tiny_run, tiny_run.parent, *more)
    assert (planned.seconds is not None) == is_known
    assert not is_known or planned.speed.folds == 3


def test_the_speed_of_another_device_counts_only_elsewhere(part, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr("soundfold.experiment.plan._machine", lambda _: {"device": "cuda NVIDIA H100"})
    assert plan(tiny_run, tmp_path / "outputs").seconds is None
    planned = plan(tiny_run, tmp_path / "outputs", "trainer=gpu", "trainer.precision=32-true", elsewhere=True)
    assert planned.seconds > 0
    assert planned.speed.device.startswith("cpu")


@pytest.mark.parametrize(
    "target", [*(f"torch.optim.{name}" for name in ("NAdam", "RAdam", "Adagrad", "Adamax", "SGD")), "timm.optim.Adopt"]
)
def test_any_optimizer_of_pytorch_and_timm_is_accepted(target, tiny_run, tmp_path):
    # `~optim.betas`, which some of them do not have
    planned = plan(tiny_run, tmp_path / "o", f"optim._target_={target}", "~optim.betas", "optim.fused=false", "label=o")
    assert planned.training > 0


def test_a_capturable_optimizer_is_planned_for_another_machine(tiny_run, tmp_path):
    options = ("trainer=gpu", "trainer.precision=32-true", "optim.fused=false", "+optim.capturable=true")
    planned = plan(tiny_run, tmp_path / "outputs", *options, elsewhere=True)
    # the kernels do not count for the id
    assert planned.run.endswith(tiny_run.name)


def test_a_missing_store_is_not_built(tiny_run, tmp_path):
    planned = plan(tiny_run, tiny_run.parent, f"paths.cache={tmp_path / 'none'}")
    assert planned.store == 30 * 4000 * 2
    # the id is that of the run on the decoded clips
    assert planned.run == str(tiny_run)
    assert not [*tmp_path.iterdir()]


def test_a_collection_is_not_downloaded(tmp_path):
    with pytest.raises(InputError, match=r"so its folds are unknown.*data\.download=synthetic"):
        plan_run(compose_config("data=synthetic", f"data.root={tmp_path}/new", f"paths.outputs={tmp_path}"))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("search", ["search=lr_wd", "experiment=find_lr"])
def test_settings_that_are_not_known_beforehand_are_refused(search):
    with pytest.raises(InputError, match="dry_run=true lists trainings whose settings are known"):
        validate(compose_config(search, "split=nested", "dry_run=true"))


def test_jobs_of_another_sweeper_are_refused():
    with pytest.raises(InputError, match="hydra/sweeper=jobs"):
        train._print_plan(compose_config("dry_run=true"), is_job=True)


def test_steps_are_limited_by_epochs_and_steps():
    small = ("data.batch_size=8", "trainer.max_epochs=3")
    assert count_steps(compose_config(*small), 20) == 9
    assert count_steps(compose_config(*small, "trainer.max_steps=5"), 20) == 5
    assert count_steps(compose_config(*small, "trainer.limit_train_batches=2"), 20) == 6
    # later epochs may be longer
    assert count_steps(compose_config(*small, "augment=seed_copies"), 20) is None


@pytest.mark.parametrize("form", ["true", "json"])
def test_a_sweep_lists_its_settings_and_starts_nothing(form, part, tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    sweep = ("-m", f"dry_run={form}", "fold=each", "seed=0,-1", "hydra/launcher=processes")
    # an invalid job is reported as it would be
    assert run_here(monkeypatch, "train", *options(tiny_run, Path("outputs"), *sweep)) == 1
    out, err = capsys.readouterr()
    assert files(tmp_path) == before
    assert "error: setting 1 (" in err
    assert "seed=-1 must be at least 0." in err
    if form == "true":
        assert "Dry run: 2 settings, 4 jobs" in out
        row = next(line for line in out.splitlines() if "seed=0" in line).split("│")
        assert [cell.strip() for cell in row[1:6]] == ["0", "seed=0", "1", "2 (epoch 1 of 2, step 3)", "3"]
        assert "Folds: 1 finished and reused, 1 to resume, 1 to train. Nothing was started or written." in out
        return
    values = json.loads(out)
    assert [fold["status"] for fold in values["settings"][0]["plan"]["folds"]] == ["finished", "interrupted", "missing"]
    assert values["settings"][1]["plan"] is None
    counts = {name: values["total"][name] for name in ("jobs", "finished", "interrupted", "missing", "failed")}
    assert counts == {"jobs": 4, "finished": 1, "interrupted": 1, "missing": 1, "failed": 1}
    assert values["total"]["seconds"] == values["settings"][0]["plan"]["seconds"] > 0


def test_a_single_run_is_listed_without_m(part, tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    given = options(tiny_run, Path("outputs"), "dry_run=true")
    assert run_here(monkeypatch, "train", *given) == 0
    assert "Dry run: 1 setting, 1 job" in capsys.readouterr().out
    assert run_here(monkeypatch, "train", *given, "optim.lr=-1") == 2
    assert files(tmp_path) == before
