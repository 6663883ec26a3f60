"""``report.html`` of one cross-validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from omegaconf import DictConfig, OmegaConf

from soundfold.config import NOT_IDENTITY, compose_config, drop_keys, flatten
from soundfold.data.groups import esc50_groups
from soundfold.errors import InputError
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.metrics import ClassMetrics, calibration, class_metrics, merge_classes, probabilities
from soundfold.evaluation.published import published_leaderboard
from soundfold.evaluation.results import load_curves
from soundfold.report import plots
from soundfold.report.drawing import inline_svg, save_figure
from soundfold.report.mistakes import list_mistakes, mistake_cards
from soundfold.report.page import display_name, write_page

AUDIT = {
    "train": "clips that trained",
    "images": "images that trained",
    "val": "clips that validated",
    "test": "clips scored",
    "same_clip": "scored clips that trained themselves",
    "same_source_and_class": "… that share source and class with training",
    "same_source": "… that share a source with training",
    "same_audio": "… whose very audio trained",
    "seen_before": "… met by the weights that training started from",
    "val_copies": "validation images of a clip that trained",
}


def write_run_page(folder: Path, run: RunResult, report: DictConfig) -> Path:
    """Write ``<folder>/report.html``; with ``report.page=full`` the mistakes can be seen and heard in it, and every
    figure is written to ``<folder>/figures`` as PDF, SVG and PNG.

    Args:
        folder: of the run.
        run: see `load_run`.
        report: `soundfold.config.Report`.

    Returns:
        The page.
    """
    full = report.page == "full"
    total, confusion = run.total, np.array(run.total.confusion)
    classes, folds = total.classes, [fold["fold"] for fold in total.folds]
    confidence = probabilities(run.logits).max(axis=1)
    certainty = calibration(confidence, run.correct)
    scores = class_metrics(confusion)
    curves = load_curves(folder, folds)
    figures = {
        "confusion": plots.confusion_matrix(confusion, classes, linked=True),
        "reliability": plots.reliability_diagram(certainty),
        "classes": plots.class_bars(scores.f1, classes),
    }
    if curves:
        figures["curves"] = plots.learning_curves(curves, total.accuracy)
    mistakes, missing = list_mistakes(run, report.mistakes), None
    if full:
        try:
            mistakes = mistake_cards(folder, run, report.mistakes, report.audio)
        except InputError as error:
            missing = f"Pictures and sound are left out: {error}"
        for name, figure in figures.items():
            save_figure(figure, _made(folder / "figures"), name)
    cells = _cells(run, confidence)
    links = {
        f"#{cell['id']}": (
            f"{display_name(cell['true'])} predicted as {display_name(cell['predicted'])}: {len(cell['rows'])} clips"
        )
        for cell in cells
    }
    path = folder / "report.html"
    write_page(
        path,
        "run.html.j2",
        title=run.name,
        run=run,
        total=total,
        low=run.interval[0],
        high=run.interval[1],
        sources=len(set(run.sources)),
        unit="repeat" if total.leaky else "fold",
        top5=np.mean([fold["top5"] for fold in total.folds]),
        figures={
            name: inline_svg(figure, _alt(name, run, certainty.error), links if name == "confusion" else None)
            for name, figure in figures.items()
        },
        cells=cells,
        confused=_most_confused(confusion, classes),
        class_rows=_score_rows([display_name(name) for name in classes], scores),
        group_rows=_group_rows(confusion, classes),
        calibration_error=certainty.error,
        mean_confidence=confidence.mean(),
        mistakes=mistakes,
        heard=any(mistake.audio for mistake in mistakes),
        missing=missing,
        plain=not full,
        leaderboard_rows=published_leaderboard([run]),
        audit_rows=[[said, *(fold["audit"].get(key, "—") for fold in total.folds)] for key, said in AUDIT.items()],
        numbers=folds,
        changed=_changed(run.config),
        config=OmegaConf.to_yaml(OmegaConf.create(run.config)),
        environments=_environments(run),
        sections=_sections(bool(curves), esc50_groups(classes) is not None),
        footer="Written by soundfold. Clips belong to their authors.",
    )
    return path


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _sections(curves: bool, groups: bool) -> list[tuple[str, str]]:
    names = {
        "folds": "Folds",
        "curves": "Learning curves" if curves else "",
        "confusion": "Confusion matrix",
        "classes": "Classes",
        "groups": "Groups" if groups else "",
        "calibration": "Calibration",
        "mistakes": "Mistakes",
        "audit": "Audit",
        "config": "Configuration",
        "environment": "Environment",
    }
    return [(key, name) for key, name in names.items() if name]


def _alt(name: str, run: RunResult, error: float) -> str:
    return {
        "confusion": f"Confusion matrix of {run.total.n} clips; the most frequent confusions stand in the table below",
        "reliability": f"Accuracy against confidence; the expected calibration error is {100 * error:.1f} %",
        "classes": "F1 of each class, from best to worst; the figures stand in the table beside it",
        "curves": "Loss and accuracy by epoch, mean over folds and the band from least to greatest",
    }[name]


def _cells(run: RunResult, confidence: np.ndarray) -> list[dict[str, Any]]:
    """The clips of every cell that is not empty, mistakes first, the surest first."""
    clips: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in np.argsort(-confidence, kind="stable"):
        clips[int(run.targets[i]), int(run.predictions[i])].append(int(i))
    classes = run.total.classes
    return [
        {
            "id": f"cell-{true}-{predicted}",
            "true": classes[true],
            "predicted": classes[predicted],
            "rows": [[run.clips[i][1], run.clips[i][0], run.sources[i], f"{100 * confidence[i]:.1f}"] for i in indices],
        }
        for (true, predicted), indices in sorted(clips.items(), key=lambda cell: (cell[0][0] == cell[0][1], cell[0]))
    ]


def _most_confused(confusion: np.ndarray, classes: Sequence[str], most: int = 10) -> list[tuple[str, list[Any]]]:
    """The largest cells off the diagonal: the cell's id and its row of the table."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    found = [tuple(map(int, divmod(int(flat_index), len(classes)))) for flat_index in order]
    return [
        (f"cell-{true}-{said}", [classes[true], classes[said], int(wrong[true, said]), int(confusion[true].sum())])
        for true, said in found
        if wrong[true, said]
    ]


def _score_rows(names: Sequence[str], scores: ClassMetrics) -> list[list[Any]]:
    columns = (scores.precision, scores.recall, scores.f1)
    return [
        [name, *(f"{100 * column[i]:.1f}" for column in columns), int(scores.clips[i])] for i, name in enumerate(names)
    ]


def _group_rows(confusion: np.ndarray, classes: Sequence[str]) -> list[list[Any]]:
    """Scores of ESC-50's major groups, and of the classes within each; empty for other collections."""
    grouped = esc50_groups(classes)
    if grouped is None:
        return []
    names, group_of = grouped
    rows = _score_rows(names, class_metrics(merge_classes(confusion, group_of)))
    f1 = class_metrics(confusion).f1
    return [[*row, f"{100 * f1[group_of == group].mean():.1f}"] for group, row in enumerate(rows)]


def _changed(config: dict[str, Any]) -> list[list[Any]]:
    """Key, default and value of what differs from a run without a word, where it changes the numbers."""
    plain: Any = OmegaConf.to_container(compose_config(), resolve=True)
    default, own = (flatten(drop_keys(values, NOT_IDENTITY)) for values in (plain, config))
    absent = Markup("<span class='muted'>not set</span>")

    def shown(values: dict[str, Any], key: str) -> Any:
        return absent if key not in values else "null" if values[key] is None else values[key]

    return [
        [key, shown(default, key), shown(own, key)]
        for key in sorted(default.keys() | own.keys())
        if default.get(key) != own.get(key)
    ]


def _environments(run: RunResult) -> list[dict[str, Any]]:
    """Where the folds were trained: one entry for each different place, with its folds and their time."""
    places: dict[str, dict[str, Any]] = {}
    for fold in run.total.folds:
        where = fold["environment"]
        place = places.setdefault(repr(where), {"rows": _place(where), "folds": [], "seconds": 0.0})
        place["folds"].append(fold["fold"])
        place["seconds"] += fold["seconds"]
    return list(places.values())


def _place(where: dict[str, Any]) -> list[list[Any]]:
    rows = [[key, value] for key, value in where.items() if key != "versions"]
    return rows + [[name, number] for name, number in where.get("versions", {}).items()]
