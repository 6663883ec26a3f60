"""The stand-in for the server of W&B: requests that it refuses, and what the pinned client makes of it."""

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from helpers.wandb_server import KEY, serve
from helpers.wandb_server.query import UnknownField, parse, select


def send(server, path: str, body: dict, key: str = KEY) -> dict:
    """Return the answer to a request."""
    login = base64.b64encode(f"api:{key}".encode()).decode()
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Authorization": f"Basic {login}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def open_run(server, name: str) -> dict:
    query = "mutation UpsertBucket($name: String) { upsertBucket(input: {name: $name}) { bucket { id } inserted } }"
    return send(server, "/graphql", {"query": query, "variables": {"name": name, "project": "p"}})


def send_rows(server, name: str, offset: int, *rows: dict) -> dict:
    chunk = {"offset": offset, "content": [json.dumps(row) for row in rows]}
    path = f"/files/tester/p/{name}/file_stream"
    return send(server, path, {"files": {"wandb-history.jsonl": chunk}})


def test_a_query_selects_a_part_of_the_answer():
    text = """
    query Q($x: Boolean!) { a: run(name: "r") { id @include(if: $x) ...F } }
    fragment F on Run { tags { name } ... on Run { state } }
    """
    answer = {"run": {"id": 1, "tags": [{"name": "t", "other": 0}], "state": "running"}}
    operation = parse(text)
    assert operation.name == "Q"
    assert select(operation, answer, {"x": False}) == {"a": {"tags": [{"name": "t"}], "state": "running"}}
    del answer["run"]["state"]
    with pytest.raises(UnknownField, match=r"^Q\.run\.state$"):
        select(operation, answer, {"x": True})


def refused(server, call, *args) -> str:
    """Return the fault of a call that the server refuses, and forget it, so that the test goes on."""
    with pytest.raises(urllib.error.HTTPError, match="40[04]"):
        call(server, *args)
    return server.state.faults.pop()


def test_faults_fail_the_test(tmp_path):
    with pytest.raises(AssertionError, match=r"disagree: a fault$"), serve(tmp_path) as server:
        server.state.faults.append("a fault")


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("query RunColors { colors }", "the client makes a request that requests.txt does not list: RunColors"),
        ("query Viewer { viewer { id color } }", "the field Viewer.viewer.color is unknown to the stand-in"),
    ],
)
def test_an_unknown_request_is_refused_by_its_name(wandb_server, query, fault):
    assert refused(wandb_server, send, "/graphql", {"query": query}) == fault


@pytest.mark.parametrize(
    ("offset", "row", "fault"),
    [
        (0, {"_step": 0, "loss": 3}, "r sends rows again: its next row is 2, not 0"),
        (1, {"_step": 7, "loss": 3}, "r sends rows again: its next row is 2, not 1"),
        (3, {"_step": 7, "loss": 3}, "r leaves out rows: its next row is 2, not 3"),
        (2, {"_step": 1, "loss": 3}, "r sends step 1 after step 5"),
        (2, {"_step": 6, "loss": 2}, "r sends a row again, as step 6: {'loss': 2}"),
    ],
)
def test_a_row_that_is_sent_again_is_refused(wandb_server, offset, row, fault):
    open_run(wandb_server, "r")
    send_rows(wandb_server, "r", 0, {"_step": 0, "loss": 1}, {"_step": 5, "loss": 2})
    assert refused(wandb_server, send_rows, "r", offset, row) == fault
    assert len(wandb_server.state.runs["tester", "p", "r"].history) == 2


def test_an_unknown_path_is_refused(wandb_server):
    assert refused(wandb_server, send, "/elsewhere", {}) == "POST /elsewhere is unknown to the stand-in"


def test_a_wrong_key_is_refused(wandb_server):
    with pytest.raises(urllib.error.HTTPError, match="401"):
        send(wandb_server, "/graphql", {"query": "query Viewer { viewer { id } }"}, key="x")
    assert wandb_server.state.requests == set()


@pytest.mark.slow
def test_the_client_uses_and_makes_artifacts(wandb_server, tmp_path):
    import wandb

    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    run = wandb.init(project="p", id="r", dir=tmp_path, mode="online")
    run.use_artifact(wandb.Artifact("clips", "dataset", metadata={"digest": "d"}))
    model = wandb.Artifact("model", "model")
    model.add_file(str(path), policy="immutable")
    run.log_artifact(model)
    run.log({"table": wandb.Table(columns=["class"], data=[["dog"]])})
    run.finish()
    wandb.teardown()
    stored = wandb_server.state.runs["tester", "p", "r"]
    assert (stored.state, stored.used_artifacts) == ("finished", ["clips"])
    made = {artifact.type: artifact for artifact in wandb_server.state.artifacts.values() if artifact.run == "r"}
    assert made["model"].files == {"weights.pt": b"weights"}
    assert {artifact.state for artifact in made.values()} == {"COMMITTED"}
    (media,) = [content for name, content in stored.files.items() if name.startswith("media/table/")]
    assert json.loads(media)["data"] == [["dog"]]
    assert KEY not in "".join(p.read_text(errors="replace") for p in Path(tmp_path).rglob("*") if p.is_file())
