"""The plan for a GPU: jobs in parallel until a deadline, and results that survive it."""

import json
import sys
import time
import zipfile

import pytest
import yaml
from benchmarks.gpu_plan import ABLATIONS, PROBE_STEPS, PUBLISHED, SPEEDRUN_SECONDS, SPEEDRUN_STEPS, Plan
from benchmarks.pool import GRACE, Job, Pool
from helpers.tiny import overrides, render

from soundfold.config import compose_config


def sleeper(name: str, seconds: float = 0.3, code: int = 0, after: tuple[str, ...] = (), alone: bool = False) -> Job:
    return Job(name, (sys.executable, "-c", f"import sys, time; time.sleep({seconds}); sys.exit({code})"), after, alone)


def run(tmp_path, jobs, parallel=3, seconds=30.0, done=()) -> dict[str, str]:
    ended = {}
    pool = Pool(
        parallel, time.monotonic() + GRACE + seconds, tmp_path, lambda j, s, _: ended.update({j.name: s}), set(done)
    )
    pool.run(jobs)
    return ended


def test_a_job_starts_after_those_that_it_needs(tmp_path):
    jobs = [sleeper("a"), sleeper("bad", code=3), sleeper("b", after=("a",)), sleeper("never", after=("bad",))]
    assert run(tmp_path, jobs) == {"a": "finished", "bad": "failed", "b": "finished", "never": "failed"}


def test_finished_jobs_are_not_repeated(tmp_path):
    assert run(tmp_path, [sleeper("a"), sleeper("b", after=("a",))], done=["a"]) == {"b": "finished"}


def test_running_jobs_are_stopped_at_the_deadline(tmp_path):
    began = time.monotonic()
    ended = run(tmp_path, [sleeper("short", 0.1), sleeper("long", 60), sleeper("waiting", 60)], parallel=1, seconds=1.5)
    assert ended == {"short": "finished", "long": "stopped"}
    assert time.monotonic() - began < 1.5 + GRACE


def test_nothing_runs_beside_a_job_that_measures_time(tmp_path):
    stamp = "import time; t = time.time(); time.sleep(0.4); print(t, time.time())"
    jobs = [Job(name, (sys.executable, "-c", stamp), alone=name == "alone") for name in ("a", "alone", "b")]
    assert set(run(tmp_path, jobs).values()) == {"finished"}
    spans = {name: tuple(map(float, (tmp_path / f"{name}.log").read_text().split())) for name in ("a", "alone", "b")}
    assert spans["a"][1] < spans["alone"][0]
    assert spans["alone"][1] < spans["b"][0]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (("data=esc50_16k",), {"collection=esc50_16k", "root=data/ESC-50-16k"}),
        (("data=esc50", "data.root=x"), {"collection=esc50", "root=x"}),
    ],
)
def test_a_plan_on_esc50_has_a_speedrun_at_its_sample_rate(tmp_path, data, expected):
    (job,) = Plan(tmp_path, "cpu", data).speedrun_jobs()
    assert job.alone
    assert expected | {"what=speedrun", f"steps={SPEEDRUN_STEPS}", "repeats=1"} < set(job.command)
    assert Plan(tmp_path, "cpu", ("data=esc10",)).speedrun_jobs() == []


@pytest.mark.parametrize(("seconds", "started"), [(SPEEDRUN_SECONDS + 60, True), (SPEEDRUN_SECONDS - 60, False)])
def test_a_speedrun_comes_last_and_only_with_enough_time(tmp_path, monkeypatch, capsys, seconds, started):
    plan, calls = Plan(tmp_path, "cpu", ("data=esc50_16k",), minutes=(GRACE + seconds) / 60), []
    monkeypatch.setattr(plan, "_affordable_steps", lambda: 100)
    monkeypatch.setattr(plan.pool, "run", lambda jobs: calls.append([job.name for job in jobs]))
    plan.run(("speedrun", "tables", "recipe"))
    assert calls[0] == ["table_frontend", "table_train"]
    assert calls[1][0] == "recipe_100_seed0_fold1"
    assert calls[2:] == ([["table_speedrun"]] if started else [])
    assert ("No speedrun" in capsys.readouterr().out) is not started


def test_a_plan_that_goes_on_trains_its_recipe_for_the_same_steps(tmp_path, monkeypatch):
    def run(plan: Plan, seconds: dict[int, float]) -> int:
        jobs = {f"probe_{s}_fold{f}": {"status": "finished", "result": {"seconds": t}} for f, (s, t) in seconds.items()}
        monkeypatch.setattr(plan.pool, "run", lambda _: plan.record["jobs"].update(jobs))
        steps = plan._affordable_steps()
        plan._write()
        return steps

    few, many = PROBE_STEPS
    fast = {1: (few, 1.0)} | {fold: (many, 1.5) for fold in range(2, 6)}
    slow = {1: (few, 1.0)} | {fold: (many, 60.0) for fold in range(2, 6)}
    assert run(Plan(tmp_path / "other", "cpu", ()), slow) < run(Plan(tmp_path / "plan", "cpu", ()), fast)
    assert run(Plan(tmp_path / "plan", "cpu", ()), slow) == run(Plan(tmp_path / "plan", "cpu", ()), fast)


@pytest.mark.slow
def test_every_training_of_the_plan_is_valid(tmp_path):
    plan = Plan(tmp_path, "cpu", ("data=esc50_16k",))
    jobs = [*plan.published_jobs(), *plan.ablations_jobs(), *plan.recipe_jobs(1000)]
    assert len({job.name for job in jobs}) == len(jobs)
    for job in jobs:
        if not job.name.endswith("_fold1"):
            continue  # differs in the fold only
        assert compose_config(*job.command[2:]).name == job.name.rpartition("_")[0]
    settings = yaml.safe_load(ABLATIONS.read_text())["settings"]
    assert len(jobs) == 6 * len(PUBLISHED) + 3 * len(settings) + 6
    # every setting has one fold before any has two
    assert [job.name for job in plan.ablations_jobs()][: len(settings)] == [f"ablation_{n}_fold1" for n in settings]


@pytest.mark.slow
def test_a_plan_goes_on_where_it_ended(tmp_path):
    root = render(tmp_path / "data")
    ablations = tmp_path / "ablations.yaml"
    ablations.write_text(yaml.safe_dump({"base": ["augment=none"], "settings": {"base": [], "adam": ["optim=adam"]}}))
    data = [o for o in overrides(root, tmp_path) if not o.startswith(("name=", "paths.", "trainer="))]
    options = {"parallel": 2, "folds": (1,), "ablations": ablations}
    plan = Plan(tmp_path / "plan", "cpu", tuple(data), minutes=(GRACE + 1) / 60, **options)
    plan.run(["ablations"])
    assert "finished" not in {job["status"] for job in plan.record["jobs"].values()}
    archive = Plan(tmp_path / "plan", "cpu", tuple(data), minutes=5, **options).run(["ablations"])
    record = json.loads((tmp_path / "plan" / "plan.json").read_text())
    for name in ("ablation_base_fold1", "ablation_adam_fold1"):
        assert record["jobs"][name]["status"] == "finished"
        assert record["jobs"][name]["result"]["n"] == 10
    again = Plan(tmp_path / "plan", "cpu", tuple(data), minutes=5, **options)
    began = time.monotonic()
    again.run(["ablations"])
    assert time.monotonic() - began < 5
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
    assert "plan.json" in names
    assert sum(name.endswith("result.json") for name in names) == 2
    assert not any(name.endswith((".pt", ".ckpt", ".wav")) for name in names)
