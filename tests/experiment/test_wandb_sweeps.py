"""Sweeps led by W&B's agents, against a stand-in for its server; see `helpers.wandb_server`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers.command import python_path
from helpers.tiny import ROOT, overrides, render
from helpers.wandb_server import ServerRun, WandbServer

pytestmark = pytest.mark.slow

WANDB = (sys.executable, "-m", "wandb")
HYPERBAND = {"type": "hyperband", "min_iter": 1, "eta": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return render(tmp_path_factory.mktemp("tiny") / "root")


def create_sweep(folder: Path, root: Path, parameters: dict, *more: str, **options) -> str:
    """Create a sweep like scripts/wandb_sweep.yaml by ``wandb sweep``; return its id."""
    sweep = yaml.safe_load((ROOT / "scripts" / "wandb_sweep.yaml").read_text())
    fixed = overrides(root, folder / "out", "split=nested", "logger=wandb", "model.width=8", *more)
    rule = sweep.pop("early_terminate")
    assert rule == HYPERBAND
    sweep |= {"method": "grid", "program": str(ROOT / sweep["program"]), "parameters": parameters, **options}
    sweep["command"] = [*sweep["command"][:3], *fixed, "${args_no_hyphens}"]
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    subprocess.run([*WANDB, "sweep", str(path)], cwd=folder, check=True, capture_output=True)
    return f"tester/{sweep['project']}/sweep1"


@pytest.fixture
def start_agent(tmp_path):
    """Return a function that starts ``wandb agent``; agents that are left by a failed test are stopped."""
    agents: list[subprocess.Popen] = []
    # the agent starts `python`, and W&B's service sends every 15 s
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    more = {"PATH": path, "PYTHONPATH": python_path(), "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "0.5"}

    def start(sweep: str, *flags: str) -> subprocess.Popen:
        with (tmp_path / f"agent{len(agents)}.log").open("w") as log:
            command = [*WANDB, "agent", *flags, sweep]
            options = {"cwd": tmp_path, "env": {**os.environ, **more}, "stdout": log, "stderr": log}
            agents.append(subprocess.Popen(command, **options))
        return agents[-1]

    yield start
    for agent in agents:
        # the second signal ends its trial
        for _ in range(2):
            if agent.poll() is None:
                agent.terminate()
                time.sleep(1)
        agent.wait(timeout=60)


def trials(server: WandbServer) -> list[ServerRun]:
    return [server.state.runs["tester", "soundfold", name] for name in server.state.sweeps["sweep1"].trials]


def wait_until(condition: Callable[[], bool], agent: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert agent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_complete(trial: ServerRun) -> None:
    assert (trial.state, trial.exit_code, trial.column("cv/folds")) == ("finished", 0, [1, 2, 3])
    assert trial.summary["cv/objective"] == pytest.approx(trial.column("cv/objective")[-1])


def test_two_agents_train_a_grid(root, tmp_path, wandb_server, start_agent):
    parameters = {"optim.lr": {"values": [0.001, 0.01, 0.002]}, "augment": {"value": "none"}}
    sweep = create_sweep(tmp_path, root, parameters, "trainer.max_epochs=1")
    agents = [start_agent(sweep) for _ in range(2)]
    assert [agent.wait(timeout=400) for agent in agents] == [0, 0]
    assert [trial.values["optim.lr"] for trial in trials(wandb_server)] == [0.001, 0.01, 0.002]
    for trial in trials(wandb_server):
        assert_complete(trial)
        assert (trial.sweep, trial.values["augment"]) == ("sweep1", "none")
        folds = [run for run in wandb_server.state.runs.values() if run.group == trial.group and not run.sweep]
        assert sorted(run.values["fold"] for run in folds) == [1, 2, 3]
        assert {(run.state, run.project, run.job_type) for run in folds} == {("finished", "soundfold", "fold")}
        assert all(run.column("val/loss") for run in folds)
    # each agent had a part
    assert sorted(map(bool, (agent.runs for agent in wandb_server.state.agents.values()))) == [True, True]


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_an_agent_trains_what_a_random_or_bayes_search_draws(root, tmp_path, wandb_server, start_agent, method):
    parameters = {"optim.lr": {"min": 1e-4, "max": 1e-2, "distribution": "log_uniform_values"}}
    sweep = create_sweep(tmp_path, root, parameters, "trainer.max_epochs=1", method=method)
    assert start_agent(sweep, "--count", "2").wait(timeout=400) == 0
    first, second = trials(wandb_server)
    assert_complete(first)
    assert_complete(second)
    rates = [trial.values["optim.lr"] for trial in (first, second)]
    assert rates[0] != rates[1]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)


def test_hyperband_stops_a_trial_cleanly(root, tmp_path, wandb_server, start_agent):
    # the second one cannot learn
    parameters = {"optim.lr": {"values": [0.003, 1e-9]}}
    # so that the server's answer arrives between two folds: W&B asks for it every five seconds
    pause = ("callbacks.pause._target_=helpers.user_callbacks.Pause", "callbacks.pause.seconds=8")
    more = ("trainer.max_epochs=20", "selection.choose=last", "augment=none", *pause)
    sweep = create_sweep(tmp_path, root, parameters, *more, early_terminate=HYPERBAND)
    agent = start_agent(sweep)
    assert agent.wait(timeout=600) == 0
    first, stopped = trials(wandb_server)
    assert_complete(first)
    assert stopped.should_stop
    assert (stopped.state, stopped.exit_code, stopped.summary["cv/stopped"]) == ("finished", 0, True)
    assert 1 <= len(stopped.column("cv/folds")) < 3


def test_a_preempted_trial_is_resumed_by_another_agent(root, tmp_path, wandb_server, start_agent):
    sweep = create_sweep(tmp_path, root, {"optim.lr": {"values": [0.001]}}, "trainer.max_epochs=8", "augment=none")
    agent = start_agent(sweep, "--forward-signals")
    wait_until(lambda: any((tmp_path / "out").glob("*/*/fold1/result.json")), agent)
    # Ctrl-C, which the agent forwards to its trial
    agent.send_signal(signal.SIGINT)
    agent.wait(timeout=120)
    (trial,) = trials(wandb_server)
    assert (trial.state, trial.exit_code) == ("preempted", 130)
    (result,) = (tmp_path / "out").glob("*/*/fold1/result.json")
    written = result.stat().st_mtime_ns
    assert start_agent(sweep).wait(timeout=300) == 0
    (trial,) = trials(wandb_server)
    assert_complete(trial)
    assert result.stat().st_mtime_ns == written
