"""What the stand-in has received: runs, artifacts and sweeps."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any

ENTITY = "tester"


class Refused(Exception):
    """A request that the stand-in refuses; the message is recorded as a fault."""


@dataclass
class ServerRun:
    """A run on the server.

    Attributes:
        id: the server's own id, as opposed to ``name``, which is the run's id for users.
        state: ``pending`` (handed to an agent), ``running``, ``finished``, ``failed`` or ``preempted``.
        history: rows in the order of their lines.
        files: contents by name.
        uploaded: names that the client declared as uploaded.
        should_stop: answer file stream requests by a request to stop.
        is_preempting: the client asked for a new start by another agent, should it end with an error.
    """

    entity: str
    project: str
    name: str
    id: str
    display_name: str = ""
    group: str = ""
    job_type: str = ""
    notes: str = ""
    sweep: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    uploaded: set[str] = field(default_factory=set)
    used_artifacts: list[str] = field(default_factory=list)
    state: str = "running"
    exit_code: int | None = None
    should_stop: bool = False
    is_preempting: bool = False

    @property
    def values(self) -> dict[str, Any]:
        """Return the configuration without W&B's own part, as plain values."""
        return {key: item["value"] for key, item in self.config.items() if key != "_wandb"}

    def column(self, name: str) -> list[Any]:
        """Return the values of one metric over the rows that have it."""
        return [row[name] for row in self.history if name in row]

    def append_history(self, offset: int, lines: list[str]) -> None:
        """Add rows at their line.

        Raises:
            Refused: a row was sent before, a line is missing, or the step does not grow.
        """
        if offset != len(self.history):
            again = "sends rows again" if offset < len(self.history) else "leaves out rows"
            raise Refused(f"{self.name} {again}: its next row is {len(self.history)}, not {offset}")
        for row in map(json.loads, lines):
            if self.history and row["_step"] <= self.history[-1]["_step"]:
                raise Refused(f"{self.name} sends step {row['_step']} after step {self.history[-1]['_step']}")
            values = {name: value for name, value in row.items() if not name.startswith("_")}
            if values in ([{n: v for n, v in old.items() if not n.startswith("_")} for old in self.history]):
                raise Refused(f"{self.name} sends a row again, as step {row['_step']}: {values}")
            self.history.append(row)


@dataclass
class ServerArtifact:
    """A version of an artifact; ``state`` is PENDING until it is committed."""

    id: str
    name: str
    type: str
    digest: str
    run: str
    entity: str
    project: str
    metadata: dict[str, Any] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes = b""
    state: str = "PENDING"
    client_id: str = ""
    version: int = 0


@dataclass
class ServerSweep:
    """A sweep; ``trials`` has the settings of each run that was handed to an agent, by the run's name."""

    name: str
    id: str
    entity: str
    project: str
    text: str
    config: dict[str, Any]
    state: str = "RUNNING"
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class ServerAgent:
    """An agent of a sweep, and the runs that were handed to it."""

    id: str
    sweep: str
    runs: list[str] = field(default_factory=list)


@dataclass
class State:
    """Everything on the server. Change it with ``lock`` held.

    Attributes:
        faults: refused requests; a test fails if there is any.
        requests: names of the requests that were made.
        url: address of the server, for uploads.
    """

    url: str = ""
    key: str = ""
    lock: threading.RLock = field(default_factory=threading.RLock)
    faults: list[str] = field(default_factory=list)
    requests: set[str] = field(default_factory=set)
    runs: dict[tuple[str, str, str], ServerRun] = field(default_factory=dict)
    artifacts: dict[str, ServerArtifact] = field(default_factory=dict)
    sweeps: dict[str, ServerSweep] = field(default_factory=dict)
    agents: dict[str, ServerAgent] = field(default_factory=dict)
    uploads: dict[str, Any] = field(default_factory=dict)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    counter: int = 0

    def new_id(self, kind: str) -> str:
        """Return an id that was not given before."""
        self.counter += 1
        return f"{kind}{self.counter}"

    def run(self, entity: str | None, project: str | None, name: str) -> ServerRun:
        """Return a run.

        Raises:
            Refused: there is no such run.
        """
        run = self.runs.get((entity or ENTITY, project or "uncategorized", name))
        if run is None:
            raise Refused(f"there is no run {entity}/{project}/{name}")
        return run

    def upload_url(self, target: Any) -> str:
        """Return the address to which the contents of a file are sent; ``target`` receives them as bytes."""
        token = self.new_id("upload")
        self.uploads[token] = target
        return f"{self.url}/storage/{token}"
