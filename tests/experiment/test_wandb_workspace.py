"""`soundfold wandb workspace`: views and reports, as files and on the stand-in for W&B's server."""

import json
import sys

import pytest
from helpers.wandb_server import ENTITY, ServerRun

from soundfold.cli.wandb import main
from soundfold.errors import InputError
from soundfold.evaluation.compare import load_run
from soundfold.experiment.cv_metrics import curve_rows, cv_scores, fold_curves

pytest.importorskip("wandb_workspaces")


@pytest.fixture
def workspace(monkeypatch):
    """Return a function that runs the command with some arguments."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["soundfold wandb", "workspace", *map(str, args)])
        main()

    return run


def panels(specification: dict) -> dict[str, list[dict]]:
    """Return the panels of a view by section."""
    sections = specification["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def test_the_view_has_every_section_and_names_only_what_is_logged(workspace, tmp_path, tiny_run):
    path = tmp_path / "view.json"
    workspace("mine", "--json", path, "--sweep", "optim.lr", "augment.mixing.mixup")
    content = json.loads(path.read_text())
    leaderboard, curves, folds, sweep, classes, mistakes = panels(content).values()
    run = load_run(tiny_run)
    logged = set(cv_scores(run)) | {name for row in curve_rows(fold_curves(tiny_run, [1])) for name in row}
    bars = [panel["config"]["metrics"] for panel in leaderboard if panel["viewType"] == "Bar Chart"]
    assert bars[0] == ["cv/accuracy", "cv/accuracy_low", "cv/accuracy_high"]
    assert {name for metrics in bars for name in metrics} <= logged
    assert curves[0]["config"] | {"chartTitle": None} == {
        "chartTitle": None,
        "xAxis": "cv/epoch",
        "xAxisTitle": "epoch",
        "metrics": ["cv/mean/train/loss", "cv/low/train/loss", "cv/high/train/loss"],
    }
    assert set(curves[0]["config"]["metrics"]) <= logged
    assert {panel["config"]["groupBy"] for panel in folds} == {"group"}
    accessors = [column["accessor"] for column in sweep[0]["config"]["columns"]]
    assert accessors == ["config:optim.value.lr", "config:augment.value.mixing.mixup", "summary:cv/objective"]
    assert classes[0]["config"]["fieldSettings"] == {"Actual": "class", "Predicted": "fold", "nPredictions": "recall"}
    assert "cv/predictions" in json.dumps(mistakes[0])
    (runs,) = content["section"]["runSets"]
    assert runs["sort"]["keys"] == [{"key": {"section": "summary", "name": "cv/accuracy"}, "ascending": False}]


def test_a_report_has_the_groups_and_the_paired_test_of_its_runs(workspace, tmp_path, tiny_run):
    path = tmp_path / "report.json"
    other = tmp_path / "other-1a2b3c4d"
    other.symlink_to(tiny_run)
    workspace("mine", "--json", path, "--report", tiny_run, tmp_path / "gone-1a2b3c4d")
    text = path.read_text()
    assert tiny_run.name in text
    assert "gone-1a2b3c4d" in text
    assert "paired" not in text
    grids = [block for block in json.loads(text)["blocks"] if block["type"] == "panel-grid"]
    (runs,) = grids[0]["metadata"]["runSets"]
    filters = {item["key"]["name"]: item["value"] for item in runs["filters"]["filters"]}
    assert filters == {"group": [tiny_run.name, "gone-1a2b3c4d"], "jobType": "cv"}
    workspace("mine", "--json", path, "--report", tiny_run, other)
    assert "McNemar" in path.read_text()


def test_views_and_reports_are_saved_on_the_server(workspace, wandb_server):
    state = wandb_server.state
    state.runs[ENTITY, "mine", "a"] = ServerRun(ENTITY, "mine", "a", id="a")
    workspace("mine")
    workspace("mine", "--report", "a-1a2b3c4d", "b-1a2b3c4d")
    view, report = state.views.values()
    assert (view["entityName"], view["projectName"], view["type"]) == (ENTITY, "mine", "project-view")
    assert view["displayName"] == "Cross-validations"
    assert len(panels(json.loads(view["spec"]))) == 6
    assert (report["type"], report["displayName"]) == ("runs", "Comparison of a-1a2b3c4d and b-1a2b3c4d")
    assert "id of mine" in report["spec"]


@pytest.mark.slow
def test_a_missing_account_and_a_missing_package_are_input_errors(workspace, tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    with pytest.raises(InputError, match=r"^W&B: .*`wandb login` or WANDB_API_KEY; --json FILE"):
        workspace("mine")
    for name in [name for name in sys.modules if name.startswith("soundfold.experiment.wandb_runs.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(InputError, match=r"^soundfold wandb workspace requires wandb-workspaces.*: pip install "):
        workspace("mine")
