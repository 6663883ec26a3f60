"""GraphQL operations on sweeps and their agents."""

from __future__ import annotations

import json
from typing import Any

import yaml

from helpers.wandb_server.search import next_settings
from helpers.wandb_server.state import ENTITY, Refused, ServerAgent, ServerRun, ServerSweep, State

Variables = dict[str, Any]


def upsert(state: State, variables: Variables) -> dict[str, Any]:
    """Create a sweep, or change the state of one."""
    if variables.get("id"):
        (sweep,) = [sweep for sweep in state.sweeps.values() if sweep.id == variables["id"]]
        sweep.state = variables.get("state") or sweep.state
    else:
        name, text = state.new_id("sweep"), variables["config"]
        entity, project = variables.get("entityName") or ENTITY, variables.get("projectName") or "uncategorized"
        sweep = ServerSweep(name, f"id-{name}", entity, project, text, yaml.safe_load(text))
        state.sweeps[name] = sweep
    entity_node = {"id": "entity1", "name": sweep.entity}
    project_node = {"id": sweep.project, "name": sweep.project, "entity": entity_node}
    answer = {"name": sweep.name, "state": sweep.state, "project": project_node}
    return {"upsertSweep": {"sweep": answer, "configValidationWarnings": []}}


def with_runs(state: State, variables: Variables) -> dict[str, Any]:
    sweep = _sweep(state, variables["sweep"])
    absent = ("description", "createdAt", "heartbeatAt", "updatedAt", "earlyStopJobRunning", "bestLoss")
    answer = dict.fromkeys((*absent, "controller", "scheduler"))
    runs = [_trial(state.run(sweep.entity, sweep.project, name)) for name in sweep.trials]
    answer |= {"id": sweep.id, "name": sweep.name, "method": sweep.config["method"], "state": sweep.state}
    answer |= {"config": sweep.text, "runs": {"edges": [{"node": run} for run in runs]}}
    return {"project": {"sweep": answer}}


def create_agent(state: State, variables: Variables) -> dict[str, Any]:
    agent = ServerAgent(state.new_id("agent"), _sweep(state, variables["sweep"]).name)
    state.agents[agent.id] = agent
    return {"createAgent": {"agent": {"id": agent.id}}}


def heartbeat(state: State, variables: Variables) -> dict[str, Any]:
    """Answer an agent: start a trial, stop one, or exit."""
    if variables["id"] not in state.agents:
        raise Refused(f"there is no agent {variables['id']}")
    agent = state.agents[variables["id"]]
    alive = json.loads(variables["runState"])
    commands = _commands(state, agent, state.sweeps[agent.sweep], list(alive))
    return {"agentHeartbeat": {"agent": {"id": agent.id}, "commands": json.dumps(commands)}}


def _commands(state: State, agent: ServerAgent, sweep: ServerSweep, alive: list[str]) -> list[dict[str, Any]]:
    if sweep.state == "CANCELED":
        return [{"type": "exit"}]
    runs = [state.run(sweep.entity, sweep.project, name) for name in alive]
    if runs:
        return [{"type": "stop", "run_id": run.name} for run in runs if run.should_stop]
    trials = [state.run(sweep.entity, sweep.project, name) for name in sweep.trials]
    for run in trials:
        if run.state == "preempted":
            run.state = "pending"
            return [_start(agent, sweep, run, "resume")]
    settings = next_settings(state, sweep) if sweep.state == "RUNNING" else None
    if settings is None:
        return [{"type": "exit"}]
    name = f"{sweep.name}-trial{len(trials) + 1}"
    run = ServerRun(sweep.entity, sweep.project, name, id=state.new_id("bucket"), sweep=sweep.name)
    run.state, run.display_name = "pending", run.name
    state.runs[run.entity, run.project, run.name] = run
    sweep.trials[run.name] = settings
    return [_start(agent, sweep, run, "run")]


def _start(agent: ServerAgent, sweep: ServerSweep, run: ServerRun, kind: str) -> dict[str, Any]:
    agent.runs.append(run.name)
    args = {name: {"value": value} for name, value in sweep.trials[run.name].items()}
    return {"type": kind, "run_id": run.name, "program": sweep.config["program"], "args": args}


def _sweep(state: State, name: str) -> ServerSweep:
    if name not in state.sweeps:
        raise Refused(f"there is no sweep {name}")
    return state.sweeps[name]


def _trial(run: ServerRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "state": run.state,
        "config": json.dumps(run.config),
        "exitcode": run.exit_code,
        "heartbeatAt": None,
        "shouldStop": run.should_stop,
        "failed": run.state == "failed",
        "stopped": run.should_stop,
        "running": run.state == "running",
        "summaryMetrics": json.dumps(run.summary),
        "sampledHistory": [],
    }


OPERATIONS = {
    "UpsertSweep": upsert,
    "SweepWithRuns": with_runs,
    "CreateAgent": create_agent,
    "Heartbeat": heartbeat,
}
