"""GraphQL operations on artifacts: made, filled with files, committed, used."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from helpers.wandb_server.state import Refused, ServerArtifact, State

Variables = dict[str, Any]


def create(state: State, variables: Variables) -> dict[str, Any]:
    """Create a version, or return the one of the same contents."""
    given = variables["input"]
    name, kind, digest = given["artifactCollectionName"], given["artifactTypeName"], given["digest"]
    if given.get("runName"):  # none makes an artifact that is used first
        state.run(given["entityName"], given["projectName"], given["runName"])
    versions = [artifact for artifact in state.artifacts.values() if artifact.name == name]
    committed = [artifact for artifact in versions if artifact.state == "COMMITTED"]
    same = [artifact for artifact in committed if artifact.digest == digest]
    artifact = same[0] if same else None
    if artifact is None:
        artifact = ServerArtifact(
            state.new_id("artifact"),
            name,
            kind,
            digest,
            run=given.get("runName") or "",
            entity=given["entityName"],
            project=given["projectName"],
            metadata=json.loads(given.get("metadata") or "{}"),
            aliases=[alias["alias"] for alias in given.get("aliases") or []],
            client_id=given.get("clientID") or "",
            version=len(versions),
        )
        state.artifacts[artifact.id] = artifact
    latest = {"id": committed[-1].id} if committed else None
    answer = {"id": artifact.id, "state": artifact.state, "artifactSequence": {"latestArtifact": latest}}
    return {"createArtifact": {"artifact": answer}}


def create_manifest(state: State, variables: Variables) -> dict[str, Any]:
    artifact = _artifact(state, variables["artifactID"])
    return {"createArtifactManifest": {"artifactManifest": _manifest(state, artifact)}}


def update_manifest(state: State, variables: Variables) -> dict[str, Any]:
    artifact = _artifact(state, variables["artifactManifestID"].removeprefix("manifest-"))
    return {"updateArtifactManifest": {"artifactManifest": _manifest(state, artifact)}}


def create_files(state: State, variables: Variables) -> dict[str, Any]:
    edges = []
    for file in variables["input"]["artifactFiles"]:
        artifact = _artifact(state, file["artifactID"])
        target = partial(artifact.files.__setitem__, file["name"])
        node = {"storagePath": file["name"], "uploadUrl": state.upload_url(target), "uploadHeaders": []}
        edges.append({"node": {**node, "uploadMultipartUrls": None, "artifact": {"id": artifact.id}}})
    return {"createArtifactFiles": {"files": {"edges": edges}}}


def commit(state: State, variables: Variables) -> dict[str, Any]:
    artifact = _artifact(state, variables["artifactID"])
    if missing := set(json.loads(artifact.manifest)["contents"]) - set(artifact.files):
        references = {name for name, entry in json.loads(artifact.manifest)["contents"].items() if "ref" in entry}
        if missing := missing - references:
            raise Refused(f"the artifact {artifact.name} is committed without {', '.join(sorted(missing))}")
    artifact.state = "COMMITTED"
    return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}


def use(state: State, variables: Variables) -> dict[str, Any]:
    given = variables["input"]
    artifact = _artifact(state, given["artifactID"])
    state.run(given["entityName"], given["projectName"], given["runName"]).used_artifacts.append(artifact.name)
    return {"useArtifact": {"artifact": {"id": artifact.id}}}


def client_id(state: State, variables: Variables) -> dict[str, Any]:
    """Return the server's id of an artifact that a table or an artifact refers to."""
    found = [artifact.id for artifact in state.artifacts.values() if artifact.client_id == variables["clientID"]]
    return {"clientIDMapping": {"serverID": found[0]} if found else None}


def artifact_type(state: State, variables: Variables) -> dict[str, Any]:
    found = [artifact for artifact in state.artifacts.values() if artifact.name == variables["name"].split(":")[0]]
    return {"project": {"artifact": {"artifactType": {"name": found[0].type}} if found else None}}


def by_id(state: State, variables: Variables) -> dict[str, Any]:
    artifact = _artifact(state, variables["id"])
    project = {"id": artifact.project, "internalId": artifact.project, "name": artifact.project}
    project["entity"] = {"name": artifact.entity}
    collection = {"__typename": "ArtifactSequence", "name": artifact.name, "project": project}
    absent = ("description", "historyStep", "commitHash", "updatedAt")
    answer: dict[str, Any] = dict.fromkeys(absent) | {"ttlDurationSeconds": -2, "ttlIsInherited": True}
    answer |= {"__typename": "Artifact", "id": artifact.id, "artifactSequence": collection}
    answer |= {"versionIndex": artifact.version, "artifactType": {"name": artifact.type}, "tags": []}
    answer |= {"metadata": json.dumps(artifact.metadata), "state": artifact.state, "digest": artifact.digest}
    answer |= {"digestAlgorithm": "MANIFEST_MD5", "createdAt": "2026-01-01T00:00:00Z"}
    answer |= {"size": sum(map(len, artifact.files.values())), "fileCount": len(artifact.files)}
    answer["aliases"] = [
        {
            "__typename": "ArtifactAlias",
            "id": f"{artifact.id}-{alias}",
            "alias": alias,
            "artifactCollection": collection,
        }
        for alias in artifact.aliases
    ]
    return {"artifact": answer}


def digest_algorithm(state: State, variables: Variables) -> dict[str, Any]:
    return {"project": {"artifactType": None}}


def _artifact(state: State, id: str) -> ServerArtifact:
    if id not in state.artifacts:
        raise Refused(f"there is no artifact {id}")
    return state.artifacts[id]


def _manifest(state: State, artifact: ServerArtifact) -> dict[str, Any]:
    url = state.upload_url(partial(setattr, artifact, "manifest"))
    file = {"id": f"file-{artifact.id}", "uploadUrl": url, "uploadHeaders": []}
    return {"id": f"manifest-{artifact.id}", "file": file}


OPERATIONS = {
    "CreateArtifact": create,
    "CreateArtifactManifest": create_manifest,
    "UpdateArtifactManifest": update_manifest,
    "CreateArtifactFiles": create_files,
    "CommitArtifact": commit,
    "UseArtifact": use,
    "ArtifactByID": by_id,
    "ClientIDMapping": client_id,
    "ArtifactType": artifact_type,
    "FetchArtifactDigestAlgorithm": digest_algorithm,
}
