"""GraphQL operations on saved views of a project: workspaces and reports."""

from __future__ import annotations

from typing import Any

from helpers.wandb_server.state import ENTITY, State

TIME = "2026-11-26T00:00:00"


def upsert_view(state: State, variables: dict[str, Any]) -> dict[str, Any]:
    """Store a view with its variables."""
    identity = state.new_id("view")
    state.views[identity] = variables
    project = {"id": variables["projectName"], "name": variables["projectName"], "entityName": variables["entityName"]}
    fields = {key: variables.get(key) for key in ("type", "name", "displayName", "description", "spec")}
    view = {"id": identity, **fields, "project": project, "updatedAt": TIME}
    return {"upsertView": {"view": view, "inserted": True}}


def project_id(state: State, variables: dict[str, Any]) -> dict[str, Any]:
    return {"project": {"id": variables["projectName"], "internalId": f"id of {variables['projectName']}"}}


def projects(state: State, variables: dict[str, Any]) -> dict[str, Any]:
    """Return the projects that have runs."""
    nodes = [
        {
            "__typename": "Project",
            "id": name,
            "name": name,
            "entityName": ENTITY,
            "createdAt": TIME,
            "isBenchmark": False,
            "user": None,
        }
        for name in sorted({run.project for run in state.runs.values()})
    ]
    edges = [{"node": node, "cursor": node["id"]} for node in nodes]
    return {"models": {"edges": edges, "pageInfo": {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}}}


def default_entity(state: State, variables: dict[str, Any]) -> dict[str, Any]:
    return {"viewer": {"id": "user1", "entity": ENTITY}}


OPERATIONS = {
    "GetDefaultEntity": default_entity,
    "UpsertView2": upsert_view,
    "upsertView": upsert_view,
    "ProjectInternalId": project_id,
    "GetProjects": projects,
}
