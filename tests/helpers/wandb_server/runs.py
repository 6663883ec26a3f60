"""GraphQL operations on the viewer, the server and runs."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from helpers.wandb_server.state import ENTITY, ServerRun, State

Variables = dict[str, Any]
# answers by name; each takes the state and the variables
ENTITY_NODE = {"id": "entity1", "name": ENTITY}


def viewer(state: State, variables: Variables) -> dict[str, Any]:
    node = {"node": {"name": ENTITY, **ENTITY_NODE}}
    user = {"id": "user1", "entity": ENTITY, "username": ENTITY, "email": "tester@example.org", "flags": "{}"}
    return {"viewer": {**user, "name": ENTITY, "admin": False, "deletedAt": None, "teams": {"edges": [node]}}}


def server_features(state: State, variables: Variables) -> dict[str, Any]:
    return {"serverInfo": {"features": []}}


def digests(state: State, variables: Variables) -> dict[str, Any]:
    return {"entity": {"xxhashDigestsEnabled": False}}


def organization(state: State, variables: Variables) -> dict[str, Any]:
    return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}


def upsert_run(state: State, variables: Variables) -> dict[str, Any]:
    """Create or update a run; an absent variable leaves its value."""
    entity, project = variables.get("entity") or ENTITY, variables.get("project") or "uncategorized"
    name = variables.get("name")
    by_id = [run for run in state.runs.values() if run.id == variables.get("id")]
    run = by_id[0] if by_id else state.runs.get((entity, project, str(name)))
    inserted = run is None
    if run is None:
        name = name or state.new_id("run")
        run = ServerRun(entity, project, name, id=state.new_id("bucket"), display_name=name)
        state.runs[entity, project, name] = run
    names = {"displayName": "display_name", "groupName": "group", "jobType": "job_type", "notes": "notes"}
    for variable, attribute in {**names, "tags": "tags", "sweep": "sweep"}.items():
        if variables.get(variable) is not None:
            setattr(run, attribute, variables[variable])
    if variables.get("config"):
        run.config = json.loads(variables["config"])
    if variables.get("summaryMetrics"):
        run.summary |= json.loads(variables["summaryMetrics"])
    if run.state != "running":  # opened again, or by its agent
        run.state, run.exit_code, run.is_preempting = "running", None, False
    return {"upsertBucket": {"bucket": _bucket(run), "inserted": inserted}}


def resume_status(state: State, variables: Variables) -> dict[str, Any]:
    entity, project = variables.get("entity") or ENTITY, variables.get("project") or "uncategorized"
    run = state.runs.get((entity, project, variables["name"]))
    return {"model": {"id": project, "name": project, "entity": ENTITY_NODE, "bucket": run and _bucket(run)}}


def run_state(state: State, variables: Variables) -> dict[str, Any]:
    run = state.run(variables["entity"], variables["project"], variables["run"])
    return {"project": {"run": {"id": run.id, "state": run.state, "stopped": run.should_stop}}}


def create_files(state: State, variables: Variables) -> dict[str, Any]:
    run = state.run(variables["entity"], variables["project"], variables["run"])
    files = [
        {"name": name, "uploadUrl": state.upload_url(partial(run.files.__setitem__, name))}
        for name in variables["files"]
    ]
    return {"createRunFiles": {"runID": run.id, "uploadHeaders": [], "files": files}}


def mark_uploaded(state: State, variables: Variables) -> dict[str, Any]:
    run = state.run(variables["entity"], variables["project"], variables["run"])
    run.uploaded |= set(variables["files"])
    return {"markRunFilesUploaded": {"success": True}}


def _bucket(run: ServerRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "name": run.name,
        "displayName": run.display_name,
        "description": None,
        "config": json.dumps(run.config),
        "wandbConfig": json.dumps({"t": run.config.get("_wandb", {}).get("value", {}).get("t", {})}),
        "sweepName": run.sweep or None,
        "tags": run.tags,
        "notes": run.notes,
        "project": {"id": run.project, "name": run.project, "entity": {"id": "entity1", "name": run.entity}},
        "summaryMetrics": json.dumps(run.summary),
        "historyLineCount": len(run.history),
        "eventsLineCount": len(run.events),
        "logLineCount": len(run.console),
        "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
        "eventsTail": json.dumps([json.dumps(row) for row in run.events[-1:]]),
    }


OPERATIONS = {
    "Viewer": viewer,
    "ServerFeaturesQuery": server_features,
    "XXHashDigestsEnabled": digests,
    "OrganizationCoreWeaveOrganizationID": organization,
    "UpsertBucket": upsert_run,
    "RunResumeStatus": resume_status,
    "RunState": run_state,
    "CreateRunFiles": create_files,
    "MarkRunFilesUploaded": mark_uploaded,
}
