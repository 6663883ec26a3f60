"""A workspace of W&B for a project of this package's runs, and a report that compares some of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb

from soundfold.config import install_command
from soundfold.errors import InputError
from soundfold.evaluation.compare import compare_pairs, describe_outcome, load_run
from soundfold.io.atomic import write_text

# an optional dependency
try:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
except ImportError:
    raise InputError(
        f"soundfold wandb workspace requires wandb-workspaces, which is not installed: {install_command('workspace')}."
    ) from None

from soundfold.experiment.wandb_runs import panels

NAME = "Cross-validations"
COLUMNS = ("accuracy", "accuracy_low", "accuracy_high", "accuracy_sd", "loss", "n", "protocol", "leaky")


def save_workspace(project: str, entity: str | None, sweep: Sequence[str], file: Path | None) -> None:
    """Save a view of a project: leaderboard, curves, sweep, classes and mistakes.

    Args:
        project: of the runs, ``logger.wandb.project``.
        entity: user or team; None is the default of the account.
        sweep: keys of the configuration for the parallel coordinates.
        file: write the specification of the view to this JSON file, and ask no server; None saves it on the server.

    Raises:
        InputError: there is no account, or the server refuses.
    """
    sections = {
        "Leaderboard": panels.leaderboard_panels(),
        "Curves over folds": panels.band_panels(),
        "Folds, grouped by cross-validation": panels.fold_panels(),
        "Sweep": panels.sweep_panels(sweep),
        "Classes and calibration": panels.class_panels(),
        "Predictions, mistakes first": panels.mistake_panels(),
    }
    view = ws.Workspace(
        entity=_entity(entity, file),
        project=project,
        name=NAME,
        sections=[ws.Section(name=name, panels=items, is_open=True) for name, items in sections.items()],
        # folds have no accuracy over folds, so they come last
        runset_settings=ws.RunsetSettings(
            order=[ws.Ordering(ws.Summary("cv/accuracy"), ascending=False)],
            pinned_columns=["run:jobType", *(f"summary:cv/{name}" for name in COLUMNS)],
        ),
    )
    _save(view, file)


def save_report(project: str, entity: str | None, runs: Sequence[str], file: Path | None) -> None:
    """Save a report that compares cross-validations; see `save_workspace` for the other arguments.

    Args:
        runs: folders of runs, or only their names. Folders also get the paired tests of their predictions.

    Raises:
        InputError: a folder's results cannot be read, there is no account, or the server refuses.
    """
    names = [Path(run).resolve().name for run in runs]
    folders = [Path(run) for run in runs if Path(run).is_dir()]
    owner = _entity(entity, file)
    # a specification without a server has no ids of its projects
    place: dict[str, Any] = {} if file else {"entity": owner, "project": project}
    groups = ", ".join(f"'{name}'" for name in names)

    def grid(job_type: str, items: list[Any]) -> Any:
        filters = f"Group in [{groups}] and JobType = '{job_type}'"
        return wr.PanelGrid(runsets=[wr.Runset(**place, name=job_type, filters=filters)], panels=items)

    tests = compare_pairs([load_run(folder) for folder in folders]) if len(folders) > 1 else []
    blocks = [
        wr.H1("Scores"),
        *(wr.P(describe_outcome(test)) for test in tests),
        grid("cv", panels.leaderboard_panels()),
        wr.H1("Curves over folds"),
        grid("cv", panels.band_panels()),
        wr.H1("Folds"),
        grid("fold", panels.fold_panels()),
        wr.H1("Classes and calibration"),
        grid("cv", panels.class_panels()),
        wr.H1("Predictions, mistakes first"),
        grid("cv", panels.mistake_panels()),
    ]
    title = f"Comparison of {' and '.join(names)}"[:128]
    _save(wr.Report(project=project, entity=owner, title=title, blocks=blocks, width="fluid"), file)


def _entity(entity: str | None, file: Path | None) -> str:
    if entity or file:
        return entity or ""
    try:
        return str(wandb.Api().default_entity)
    except Exception as error:  # of any kind, also of a refused request
        raise _refused(error) from error


def _save(view: Any, file: Path | None) -> None:
    try:
        if file is None:
            # prints the address
            view.save()
            return
        # the packages' classes can only be saved on a server
        specification = view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    except Exception as error:  # of any kind, also of a refused request
        raise _refused(error) from error
    write_text(file, json.dumps(json.loads(specification), indent=1) + "\n")


def _refused(error: Exception) -> InputError:
    return InputError(
        f"W&B: {error} Log in by `wandb login` or WANDB_API_KEY; --json FILE writes the view without a server."
    )
