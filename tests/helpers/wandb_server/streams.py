"""The file stream, by which a run sends its history, summary, console and end."""

from __future__ import annotations

import json
from typing import Any

from helpers.wandb_server.search import stop_early
from helpers.wandb_server.state import Refused, ServerRun, State


def stream(state: State, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Take a request of ``/files/ENTITY/PROJECT/RUN/file_stream``."""
    _, _, entity, project, name, _ = path.split("/")
    run = state.run(entity, project, name)
    for file, chunk in (body.get("files") or {}).items():
        _take(run, file, chunk["offset"], chunk["content"])
    run.uploaded |= set(body.get("uploaded") or [])
    run.is_preempting |= bool(body.get("preempting"))
    if body.get("complete"):
        run.exit_code = body["exitcode"]
        run.state = "finished" if not run.exit_code else "preempted" if run.is_preempting else "failed"
    stop_early(state, run)
    return {"exitcode": None, "limits": {}, **({"stopped": True} if run.should_stop else {})}


def _take(run: ServerRun, file: str, offset: int, lines: list[str]) -> None:
    if file == "wandb-history.jsonl":
        run.append_history(offset, lines)
    elif file == "wandb-summary.json":
        run.summary = json.loads(lines[-1])
    elif file == "wandb-events.jsonl":
        run.events += [json.loads(line) for line in lines]
    elif file == "output.log":
        # a console line may be sent again as it grows
        run.console[offset : offset + len(lines)] = lines
    else:
        raise Refused(f"{run.name} streams {file}, which the stand-in does not know")
