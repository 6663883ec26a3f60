"""Probe frozen embeddings under the official folds; the work of ``soundfold probe``."""

from __future__ import annotations

import hashlib
import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import OmegaConf
from rich.progress import track

from soundfold.config.migration import to_yaml
from soundfold.data.embeddings import EmbeddingFile
from soundfold.data.leakage import audit, check_leakage
from soundfold.data.splits import BENCHMARK, make_split
from soundfold.errors import InputError
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.metrics import confusion_matrix
from soundfold.evaluation.predictions import predictions_csv
from soundfold.evaluation.probes import KINDS, log_probabilities, settings
from soundfold.evaluation.results import FoldResult, load_folds
from soundfold.evaluation.summary import write_summary
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device
from soundfold.experiment.metrics import metric_values
from soundfold.inference.embed import NAME, Embedder, write_embedded
from soundfold.inference.few_shot import write_few_shot
from soundfold.inference.own_clips import OwnClips, read_own_clips
from soundfold.inference.predictor import Predictor
from soundfold.inference.probe_data import ProbeData, model_of, read_probe_data, read_probe_table
from soundfold.io.atomic import explain_write_errors, write_text
from soundfold.io.console import console
from soundfold.models.metrics import default_metrics, score_clips
from soundfold.report.terminal import print_run


def probe(args: Namespace) -> None:
    """Score probes of embeddings as cross-validations, and draw their few-shot curves.

    Args:
        args: arguments of ``soundfold probe``.

    Raises:
        InputError: the embeddings, the model or the table cannot be used, or the folds share sources.
    """
    path = embeddings_of_run(args.embeddings, args.device) if args.embeddings.is_dir() else args.embeddings
    table = read_probe_table(args)
    file = EmbeddingFile(path, args.names, args.vectors)
    data = read_probe_data(file, table)
    name = args.embeddings.resolve().name if args.embeddings.is_dir() else path.stem
    runs = {kind: _cross_validate(kind, data, file, name, args) for kind in KINDS}
    for folder, run in runs.values():
        print_run(load_folds(folder), run)
    for line in remarks(data):
        console.print(line, soft_wrap=True)
    if args.draws:
        folder, run = runs["logistic"]
        full = {kind: run.total.accuracy for kind, (_, run) in runs.items()}
        write_few_shot(folder, data, args.shots, args.draws, full)
    for folder, _ in runs.values():
        console.print(f"Result: {folder}", soft_wrap=True)


def embeddings_of_run(run: Path, device: str = "auto") -> Path:
    """Return the embeddings of a run's own collection; write them first if they are not there, or of other weights.

    Raises:
        InputError: a fold has no model, or a clip cannot be embedded.
    """
    path = run / f"{NAME}.parquet"
    predictor = Predictor.load(run, device=choose_device(device, "--device"))
    own = read_own_clips(predictor.models[0].bundle)
    embedder = Embedder(predictor, run, own)
    about = embedder.about()
    for fold in own.table.fold_numbers:
        model_of(fold, list(about["models"]), run)  # refused before minutes of embedding
    if path.is_file() and (file := EmbeddingFile(path)).about == about and _has_all(file, own, [*about["models"]]):
        return path
    if write_embedded(embedder, own.paths, path):
        raise InputError("Not every clip of the run's collection could be embedded, see the errors above.")
    return path


def _has_all(file: EmbeddingFile, own: OwnClips, models: list[str]) -> bool:
    """Return whether a file has a vector of every clip by every model: `soundfold embed` skips unreadable clips."""
    rows = pd.concat([rows[["filename", "model"]] for rows, _ in file.blocks()])
    return len(rows.dropna().drop_duplicates()) == len(own.table) * len(models)


def remarks(data: ProbeData) -> list[str]:
    """Return sentences on what the model of the embeddings has seen."""
    if not data.seen:
        return [
            "Training data unknown: nothing says whether the model of these embeddings was trained on the scored clips "
            "or their sources, so the scores may be too high."
        ]
    lines = []
    if n_leaks := sum(map(data.leaks, data.spaces)):
        lines.append(
            f"LEAKY: the models of {n_leaks} of {len(data.table)} scored clips were trained on them, or on clips of "
            "their source and class. Embed with each fold's model (a finished cross-validation, without --fold)."
        )
    if any(mask.any() for mask in data.seen.values()):
        lines.append(
            "The models were trained on the training clips with their labels: these scores tell what the vectors "
            "retain, and few-shot curves are no evidence of learning new classes from few clips."
        )
    return lines


def _cross_validate(
    kind: str, data: ProbeData, file: EmbeddingFile, name: str, args: Namespace
) -> tuple[Path, RunResult]:
    """Score a probe on each fold, and write the results in the format of a run; return its folder and summary."""
    with file.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    values = _config(kind, data, name, digest)
    table = data.table
    key = json.dumps([values, table.files, table.folds.tolist(), table.targets.tolist(), table.sources])
    cv_id = hashlib.sha256(key.encode()).hexdigest()[:8]
    folder = args.out / f"probe-{kind}-{name}-{cv_id}"
    leaky = any(map(data.leaks, data.spaces))
    with explain_write_errors(args.out, "Free some space, or name another folder with --out."):
        for fold in track([*data.spaces], f"Fitting {kind}", console=console, transient=True):
            _write_fold(folder, kind, data, fold, to_yaml(OmegaConf.create(values)), cv_id, leaky)
    return folder, write_summary(folder)


def _config(kind: str, data: ProbeData, name: str, digest: str) -> dict[str, Any]:
    models = ", ".join(sorted(set(data.models.values())))
    probe = {"embeddings": name, "sha256": digest, "models": models or "unknown"}
    probe["training_data"] = "audited" if data.seen else "unknown"
    # not the name of a collection: such a score does not rank among those of trained networks
    return {"name": f"probe-{kind}", "seed": 0, "data": {"name": f"{name}-probe"}, "probe": probe | settings(kind)}


def _write_fold(folder: Path, kind: str, data: ProbeData, fold: int, config: str, cv_id: str, leaky: bool) -> None:
    started, table = time.perf_counter(), data.table
    split = make_split(table, BENCHMARK, fold)
    counts = audit(table, split)
    check_leakage(counts, BENCHMARK, fold)
    vectors, n_classes = data.spaces[fold], len(table.classes)
    logits = log_probabilities(kind, vectors[split.train], table.targets[split.train], vectors[split.test], n_classes)
    targets = table.targets[split.test]
    scores = score_clips(default_metrics(n_classes), torch.from_numpy(logits), torch.from_numpy(targets))
    predictions = predictions_csv(table, split.test, logits)
    accuracy = float((logits.argmax(axis=1) == targets).mean())
    path = folder / f"fold{fold}"
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / "config.yaml", config)
    write_text(path / "predictions.csv", predictions)
    FoldResult(
        cv_id=cv_id,
        fold=fold,
        folds=list(table.fold_numbers),
        # in every table
        protocol=BENCHMARK.name if data.seen else f"{BENCHMARK.name}, training data unknown",
        leaky=leaky,
        seed=0,
        classes=list(table.classes),
        n=len(split.test),
        accuracy=accuracy,
        metrics=metric_values(scores),
        loss=-float(logits[np.arange(len(targets)), targets].mean()),
        confusion=confusion_matrix(targets, logits.argmax(axis=1), n_classes).tolist(),
        val_accuracy=None,
        objective=accuracy,
        epochs=0,
        steps=0,
        seconds=time.perf_counter() - started,
        audit=_audit(counts.as_dict(), data, fold, len(split.test)),
        environment=environment.describe(torch.device("cpu"), _packages()),
        predictions=hashlib.sha256(predictions.encode()).hexdigest(),
        config=hashlib.sha256(config.encode()).hexdigest(),
    ).save(path / "result.json")


def _audit(counts: dict[str, Any], data: ProbeData, fold: int, n_test: int) -> dict[str, Any]:
    return counts | {"seen_before": data.leaks(fold), "unknown_training": 0 if data.seen else n_test}


def _packages() -> dict[str, str]:
    import sklearn

    return {"scikit-learn": sklearn.__version__}
