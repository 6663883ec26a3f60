"""Fit and measure scores of novelty on a run; the work of ``soundfold novelty``."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from rich.table import Table

from soundfold.data.layouts import TableOptions, find_layout
from soundfold.data.tables import ClipTable
from soundfold.errors import ArgumentError, InputError
from soundfold.evaluation.compare import RunResult, load_run
from soundfold.evaluation.novelty import QUANTILE, FoldScores, mean_auroc, neighbor_distance, unit_vectors
from soundfold.evaluation.predictions import load_fold_predictions
from soundfold.evaluation.results import load_folds
from soundfold.experiment import build
from soundfold.experiment.device import choose_device
from soundfold.inference.fold_models import FoldModel, read_models
from soundfold.inference.novelty import FILE, SCORES, fold_scores, read_novelty
from soundfold.inference.own_clips import read_own_clips
from soundfold.inference.predictor import BATCH, Predictor
from soundfold.io.atomic import atomic_file, explain_write_errors, write_text
from soundfold.io.console import Terminal, console
from soundfold.report.run_audio import RunAudio


@dataclass(frozen=True)
class FoldNovelty:
    """A fold's model, and scores of the clips that it did not see.

    Attributes:
        model: of the fold.
        training: float32 (m, D), vectors of length 1 of its training clips.
        known: by score, (n,), of the fold's test clips.
        unknown: by score, of the fold's clips of classes that the run left out.
        sources: of these clips, known and unknown.
    """

    model: FoldModel
    training: np.ndarray
    known: dict[str, np.ndarray]
    unknown: dict[str, np.ndarray]
    sources: tuple[tuple[str, ...], tuple[str, ...]]


def novelty(args: Namespace) -> int:
    """Write ``novelty.npz``, for ``predict --novelty distance``, and ``novelty.json`` to a run's folder; print scores.

    Args:
        args: arguments of ``soundfold novelty``.

    Raises:
        InputError: the run, its models or its audio cannot be read, its split leaks, or its folder cannot be written.
    """
    if not args.run.is_dir():
        raise InputError(f"{args.run} is not a run's folder. Name one, outputs/<name>-<id>.")
    run = load_run(args.run)
    if run.total.leaky:
        raise InputError(f"{args.run} has a split that leaks, so its test clips are not new. Use split=benchmark.")
    audio, device = RunAudio(args.run, run), choose_device(args.device, "--device")
    unknown = unknown_clips(audio, run.total.classes)
    with Progress(console=console, transient=True) as progress:

        def start_bar(label: str, total: int) -> Callable[[int], None]:
            task = progress.add_task(label, total=total)
            return lambda done: progress.advance(task, done)

        folds = [
            _fold(args.run, audio, Predictor([model], device), unknown, start_bar)
            for model in read_models(args.run)
            if model.fold.isdigit()
        ]
    if not folds:
        raise InputError(
            f"{args.run} has no weights of a fold. Train its folds with checkpoints.keep=weights, the default."
        )
    with explain_write_errors(args.run, "Copy the run to a folder that is writable."):
        _write_distances(args.run / FILE, folds)
        content = _summary(args.run, run, folds, unknown)
        write_text(args.run / "novelty.json", json.dumps(content, indent=1))
    _print(content)
    console.print(f"Written: {args.run / 'novelty.json'} and {FILE}", soft_wrap=True)
    return 0


def unknown_clips(audio: RunAudio, classes: Sequence[str]) -> ClipTable:
    """Return the clips of the collection whose classes a run left out by ``data.leave_out`` or ``data.classes``.

    No clips, after a line that says why, if the classes that ``data.classes`` leaves out have too few sources.
    """
    cfg = audio.cfg
    options = build.table_options(cfg)
    complete = replace(options, leave_out=None) if options.leave_out else replace(options, classes=None)

    def read(options: TableOptions) -> ClipTable:
        return find_layout(cfg.data.layout, options).read(audio.root, audio.cache, options)

    try:
        table = read(complete)
    except ArgumentError:
        table = read(options)
        console.print(
            "Clips of the classes that data.classes leaves out are not scored: folds cannot be made of them.",
            soft_wrap=True,
        )
    return table.rows([i for i, target in enumerate(table.targets) if table.classes[target] not in classes])


def _fold(
    run: Path,
    audio: RunAudio,
    predictor: Predictor,
    left_out: ClipTable,
    start_bar: Callable[[str, int], Callable[[int], None]],
) -> FoldNovelty:
    (model,) = predictor.models
    own = read_own_clips(model.bundle)
    trained = [file for row, file in enumerate(own.table.files) if own.trained(model, row)]
    (result,) = (result for result in load_folds(run) if str(result.fold) == model.fold)
    test = load_fold_predictions(run, result)
    new = left_out.rows(np.flatnonzero(left_out.folds == result.fold))
    advance = start_bar(f"Fold {model.fold}", len(trained) + len(test.files) + len(new.files))
    # there may be no new clips, so the three parts are embedded together
    vectors = unit_vectors(_embed(predictor, audio, [*trained, *test.files, *new.files], advance))
    training, known_vectors, unknown_vectors = np.split(vectors, np.cumsum([len(trained), len(test.files)]))
    temperature = model.temperature or 1.0
    logits = {"known": test.logits, "unknown": _logits(predictor, audio, new.files)}
    known, unknown = (
        {score: fold_scores(score, rows, temperature) for score in ("softmax", "energy")} for rows in logits.values()
    )
    known["distance"] = neighbor_distance(known_vectors, training)
    unknown["distance"] = neighbor_distance(unknown_vectors, training)
    return FoldNovelty(model, training, known, unknown, (test.sources, new.sources))


def _embed(predictor: Predictor, audio: RunAudio, files: Sequence[str], advance: Callable[[int], None]) -> np.ndarray:
    vectors = []
    for names in _batches(files):
        (batch,) = predictor.scorer.embeddings(_pcm(audio, names).to(predictor.device))
        vectors.append(batch.cpu().numpy())
        advance(len(names))
    return np.concatenate(vectors)


def _logits(predictor: Predictor, audio: RunAudio, files: Sequence[str]) -> np.ndarray:
    logits = [np.zeros((0, len(predictor.classes)), np.float32)]
    logits += [predictor.scorer(_pcm(audio, names).to(predictor.device))[0].cpu().numpy() for names in _batches(files)]
    return np.concatenate(logits)


def _batches(files: Sequence[str]) -> list[Sequence[str]]:
    return [files[first : first + BATCH] for first in range(0, len(files), BATCH)]


def _pcm(audio: RunAudio, files: Sequence[str]) -> torch.Tensor:
    return torch.from_numpy(np.stack([audio.read(file)[0] for file in files]))


def _write_distances(path: Path, folds: Sequence[FoldNovelty]) -> None:
    arrays: dict[str, Any] = {}
    for fold in folds:
        name = fold.model.fold
        arrays[f"training{name}"], arrays[f"test{name}"] = fold.training, fold.known["distance"]
        arrays[f"weights{name}"] = np.array(fold.model.bundle.digest())
    with atomic_file(path) as stream:
        np.savez(stream, **arrays)


def _summary(path: Path, run: RunResult, folds: Sequence[FoldNovelty], unknown: ClipTable) -> dict[str, Any]:
    """Return the numbers of ``novelty.json``."""
    content: dict[str, Any] = {
        "run": run.name,
        "protocol": run.total.protocol,
        "folds": [fold.model.fold for fold in folds],
        "quantile": QUANTILE,
        "unknown_classes": sorted({unknown.classes[target] for target in unknown.targets}),
        "known_clips": sum(len(fold.known["energy"]) for fold in folds),
        "unknown_clips": sum(len(fold.unknown["energy"]) for fold in folds),
        "scores": {},
    }
    measured = [fold for fold in folds if len(fold.unknown["energy"])]
    for score in SCORES:
        values: dict[str, Any] = {"thresholds": {}, "known_rejected": None, "unknown_rejected": None, "auroc": None}
        if len(folds) > 1:
            thresholds = {f.model.fold: read_novelty(path, [f.model], score).threshold for f in folds}
            values["thresholds"] = thresholds
            values["known_rejected"] = _rejected([(f.known[score], thresholds[f.model.fold]) for f in folds])
            values["unknown_rejected"] = _rejected([(f.unknown[score], thresholds[f.model.fold]) for f in folds])
        if measured:
            scores = [FoldScores(f.known[score], f.unknown[score], *f.sources) for f in measured]
            values["auroc"] = mean_auroc(scores)._asdict()
        content["scores"][score] = values
    return content


def _rejected(scores: Sequence[tuple[np.ndarray, float]]) -> float | None:
    """Return the fraction of clips below the threshold of their fold's model; None without clips."""
    below = np.concatenate([values < threshold for values, threshold in scores])
    return float(below.mean()) if len(below) else None


def _print(content: dict[str, Any]) -> None:
    table = Table()
    for column in ("score", "AUROC", "95 % interval", "known reported %", "unknown reported %"):
        table.add_column(column)
    for score, values in content["scores"].items():
        auroc = values["auroc"]
        cells = ["", ""] if auroc is None else [f"{auroc['auroc']:.3f}", f"{auroc['low']:.3f} to {auroc['high']:.3f}"]
        cells += ["" if v is None else f"{100 * v:.1f}" for v in (values["known_rejected"], values["unknown_rejected"])]
        table.add_row(score, *cells)
    terminal = Terminal()
    terminal.print(table)
    if content["unknown_classes"]:
        terminal.print(
            f"{content['known_clips']} test clips of known classes, {content['unknown_clips']} clips of "
            f"{', '.join(content['unknown_classes'])}, folds {', '.join(content['folds'])}; AUROC is the mean over "
            "folds."
        )
    else:
        terminal.print("No AUROC: the run knows all classes of its collection. Train one with data.leave_out=[...].")
